"""Which ids have come, in little memory: a gateway's ids count up, so they are kept as ranges."""

from bisect import bisect_right


class SeenRows:
    """A set of row numbers kept as sorted, separate ranges; `add` costs nothing while rows come in order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # inclusive

    def add(self, row: int) -> bool:
        """Add a row; False when it was there already."""
        starts, ends = self._starts, self._ends
        after = bisect_right(starts, row)  # the range behind the row
        joins_before = after > 0 and ends[after - 1] >= row - 1
        if joins_before and ends[after - 1] >= row:
            return False
        joins_after = after < len(starts) and starts[after] == row + 1
        if joins_before and joins_after:
            ends[after - 1] = ends.pop(after)
            starts.pop(after)
        elif joins_before:
            ends[after - 1] = row
        elif joins_after:
            starts[after] = row
        else:
            starts.insert(after, row)
            ends.insert(after, row)
        return True


class SeenIds:
    """A set of reading ids, `{gateway_id}:{log_uuid}:{row}`."""

    def __init__(self) -> None:
        self._logs: dict[str, SeenRows] = {}

    def add(self, reading_id: str) -> bool:
        """Add an id; False when it was there already. Raises ValueError when it is not an id of a gateway."""
        log, _, row = reading_id.rpartition(":")
        rows = self._logs.get(log)
        if rows is None:
            rows = self._logs[log] = SeenRows()
        return rows.add(int(row))
