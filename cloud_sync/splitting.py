"""What goes out next after a batch was refused: ever smaller parts of it, until each culprit is alone.

Pure bookkeeping in rows; nothing here is kept on disk. After a restart only the search begins anew: where the
destination stands, and the part that was under way, are kept by the log.

One culprit among n readings costs about log2(n) requests. A part that must hold a culprit, because the part before it
was accepted, is not sent whole: it would only be refused once more. That is a guess about the other side, and a
wrong one costs a few requests, never a reading.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise


class Splitting:
    """The parts of refused batches, in order. All readings before the next part have been dealt with."""

    def __init__(self) -> None:
        self._ends: list[int] = []  # the last row of each part; the next part is last
        self._guilty: int | None = None  # the end of the part that must hold a culprit

    @property
    def end(self) -> int | None:
        """The last row of the part that goes out next; None when nothing is suspected."""
        return self._ends[-1] if self._ends else None

    def cut(self, rows: Sequence[int]) -> int:
        """Return how many of the next part's rows go out together."""
        if len(rows) > 1 and self._ends and self._ends[-1] == self._guilty:
            half = len(rows) // 2
            self._ends.append(rows[half - 1])
            return half
        return len(rows)

    def refused(self, rows: Sequence[int], culprits: Collection[int] = ()) -> None:
        """Split a batch of several readings, by halves or around the culprits that the destination named."""
        self._drop_until(rows[-1])
        named = set(culprits)
        ends = {before for before, row in pairwise(rows) if row in named} | named.intersection(rows)
        self._guilty = None if ends else rows[-1]
        self._ends += sorted(ends | {rows[-1]}, reverse=True)

    def passed(self, row: int, *, clean: bool) -> None:
        """Go on beyond `row`; not `clean` when a culprit was found there, so that nothing is known of the rest."""
        self._drop_until(row)
        if not clean:
            self._guilty = None

    def clear(self) -> None:
        """Forget all suspicion."""
        self._ends.clear()
        self._guilty = None

    def _drop_until(self, row: int) -> None:
        while self._ends and self._ends[-1] <= row:
            self._ends.pop()


class BatchSize:
    """How many readings go into a batch: halved when that was too much, then feeling its way back up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.readings = most

    def too_large(self, readings: int) -> None:
        """Hear that a batch of so many was too large."""
        self.readings = max(1, readings // 2)

    def accepted(self) -> None:
        """Hear that a batch was accepted."""
        self.readings = min(self.readings + 1 + self.readings // 32, self._most)
