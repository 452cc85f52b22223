"""What the log promises, in plain Python: it follows the tables from transaction to transaction and finds fault.

It knows what was asked of the log and what was acknowledged; it does not know how the log does it.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from gateway.model.reading import NewQuarantine, NewReading, StoredReading, TimeSource
from gateway.storage.cursors import Attempt
from tests.storage.tampered_disk import Row, State

Entry = NewReading | NewQuarantine
Key = tuple[str, str, str, int]

CLOCK_STEP_MS = 1_000
DAY_MS = 86_400_000
LOW_WATER_ROWS = 4
HIGH_WATER_ROWS = 8
QUARANTINE_BYTES = 1_000
QUARANTINE_ROW_BYTES = 200
DEDUPE_WINDOW_MS = 60_000


@dataclass(slots=True)
class Reader:
    """An active reader of the log."""

    position: int
    """What it has acknowledged last."""
    on_disk: int
    """What of it must survive a kill."""
    stations: set[int] = field(default_factory=set)
    """Every position it has ever had."""
    batch: str = ""
    """What it is sending; empty: nothing."""

    def move(self, row: int) -> None:
        """Acknowledge up to `row`."""
        assert row > self.position, "the test itself moves a cursor back"
        self.position = row
        self.stations.add(row)
        self.batch = ""


@dataclass(slots=True)
class Frozen:
    """An attempt, with the readings that it was made of."""

    attempt: Attempt
    readings: list[StoredReading]

    @property
    def rows(self) -> set[int]:
        """Which rows they are."""
        return {one.row for one in self.readings}


class LogModel:
    """One log from its creation on, over all restarts."""

    def __init__(self, state: State, *, overflow: str, retention_ms: int, capacity: int) -> None:
        self.state = state
        self.overflow = overflow
        self.retention_ms = retention_ms
        self.capacity = capacity
        """How many rows there is room for."""
        self.tightest = capacity
        """The least of that since the log was quiet."""
        self.newest = 0
        """The newest row there ever was."""
        self.newest_quarantined = 0
        self.boot = 0
        self.retains_before_ms: int | None = None
        """Rows received before may leave by their age alone; None while the clock is not to be believed."""
        self.disturbed = False
        """Whether the disk has failed since the log was quiet."""
        self.was_full = False
        """Whether nothing was taken in when the log was quiet last; looking for room lets a few rows leave."""
        self.readers: dict[str, Reader] = {}
        self.lost: dict[str, set[int]] = {}
        self.attempts: dict[str, Frozen] = {}
        """Every attempt there ever was, by batch id."""

    @property
    def room(self) -> int:
        """How many rows more there is room for."""
        return self.capacity - len(self.state.rows)

    # Following

    def follow(self, states: Iterable[State], acknowledged: Iterable[Entry]) -> None:
        """Take in what the log held after each transaction; exactly what was acknowledged must have come to it."""
        readings: deque[NewReading] = deque()
        quarantined: deque[NewQuarantine] = deque()
        for entry in acknowledged:
            if isinstance(entry, NewReading):
                readings.append(entry)
            else:
                quarantined.append(entry)
        seen = dict(self.state.rows)
        for state in states:
            there = dict(self.state.rows)
            for row in sorted(state.rows.keys() - self.state.rows.keys()):
                self._appears(row, state.rows[row], readings, there, seen)
                there[row] = seen[row] = state.rows[row]
            for row in sorted(state.quarantine.keys() - self.state.quarantine.keys()):
                assert row > self.newest_quarantined, "an id of the quarantine is used again"
                self.newest_quarantined = row
                assert quarantined, "input that was not acknowledged is in quarantine"
                assert state.quarantine[row] == quarantined.popleft(), "other input is in quarantine"
            self._check_what_left(state)
            self._check_quarantine(state)
            self._check_cursors(state)
            self.state = state
        for reading in readings:
            assert _repeats(reading, seen.values(), self.boot), f"acknowledged, but not stored: {reading}"
        assert not quarantined, "acknowledged, but not in quarantine"

    def _appears(
        self, row: int, new: Row, acknowledged: deque[NewReading], there: dict[int, Row], seen: dict[int, Row]
    ) -> None:
        assert row > self.newest, f"row {row} is used again"
        self.newest = row
        while acknowledged and not _is(acknowledged[0], new):
            repeat = acknowledged.popleft()
            assert _repeats(repeat, seen.values(), self.boot), f"acknowledged, but not stored: {repeat}"
        assert acknowledged, f"stored, but not acknowledged: {new}"
        reading = acknowledged.popleft()
        assert not _repeats(reading, there.values(), self.boot), f"stored twice: {new}"
        assert new.gateway_boot == self.boot, "of another boot"

    def _check_what_left(self, state: State) -> None:
        before = self.state.rows
        for row in before.keys() & state.rows.keys():
            assert state.rows[row] == before[row], f"row {row} was rewritten"
        left = sorted(before.keys() - state.rows.keys())
        spared = self.under_way(state)
        assert not spared & set(left), "rows of an attempt under way have left"
        losses: dict[str, set[int]] = {}
        for name, reader in self.readers.items():
            if name in state.cursors:
                losses[name] = {row for row in left if row > reader.position}
                self.lost.setdefault(name, set()).update(losses[name])
        lost = set().union(*losses.values())
        if lost:
            assert self.overflow == "drop_oldest", f"rows {lost} were lost"
            assert self.tightest - len(before) < HIGH_WATER_ROWS, f"rows {lost} were lost though there is room"
            assert all(row in spared for row in state.rows if row < max(lost)), f"not the oldest were lost: {lost}"
        if left and self.tightest - len(before) >= HIGH_WATER_ROWS and not self.disturbed and not self.was_full:
            assert all(self.is_old(row) for row in left), f"rows {left} have left, but there was room"
        counted = {name: (len(rows), min(rows), max(rows)) for name, rows in self.lost.items() if rows}
        assert state.losses == counted, f"lost: {counted}, counted as lost: {state.losses}"

    def _check_quarantine(self, state: State) -> None:
        before = self.state.quarantine
        left = before.keys() - state.quarantine.keys()
        assert all(row > max(left) for row in state.quarantine) if left else True, "not the oldest left the quarantine"
        if left:
            newest = before[max(left)]
            rest = sum(map(_quarantine_bytes, state.quarantine.values()))
            assert rest + _quarantine_bytes(newest) > QUARANTINE_BYTES, "more than needed left the quarantine"

    def _check_cursors(self, state: State) -> None:
        for name, reader in self.readers.items():
            cursor, before = state.cursors.get(name), self.state.cursors.get(name)
            assert cursor or not before, f"the cursor {name} is gone"
            if cursor and before:
                assert cursor.position >= before.position, f"the cursor {name} moves back"
                assert cursor.position in reader.stations, f"the cursor {name} skips to {cursor.position}"

    # What may leave

    def under_way(self, state: State) -> set[int]:
        """Return the rows of attempts that have not been acknowledged."""
        rows: set[int] = set()
        for name, reader in self.readers.items():
            attempt = state.cursors[name].attempt if name in state.cursors else None
            if attempt is not None and attempt.last_row > reader.position:
                rows.update(range(attempt.after_row + 1, attempt.last_row + 1))
        return rows

    def passed(self) -> set[int]:
        """Return the rows that no active reader needs any more."""
        spared = self.under_way(self.state)
        least = min((reader.position for reader in self.readers.values()), default=self.newest)
        return {row for row in self.state.rows if row <= least and row not in spared}

    def may_leave(self) -> set[int]:
        """Return the rows that leave when room is needed."""
        return self.passed() if self.overflow == "reject" else self.state.rows.keys() - self.under_way(self.state)

    def is_old(self, row: int) -> bool:
        """Tell whether the row may leave for its age."""
        if self.retains_before_ms is None or not self.retention_ms:
            return False
        stored = self.state.rows[row]
        epoch = self.state.epochs.get(stored.gateway_boot)
        known = self.state.received_by.get(stored.gateway_boot)
        received = known if epoch is None else epoch + stored.monotonic_ms
        return received is not None and received < self.retains_before_ms

    # Reading

    def read(
        self, after: int, until: int, limit: int, max_bytes: int = 2**60, epochs: Mapping[int, int | None] | None = None
    ) -> list[StoredReading]:
        """Return what the log must answer."""
        readings: list[StoredReading] = []
        size = 0
        for number, row in self.state.rows.items():
            size += len(row.payload) if after < number <= until else 0
            if after < number <= until and len(readings) < limit and (not readings or size <= max_bytes):
                known = self.state.epochs if epochs is None else epochs
                readings.append(_as_read(number, row, known.get(row.gateway_boot)))
        return readings

    def thaws(self, attempt: Attempt) -> Frozen | None:
        """Return what the attempt must be made of again; None when rows of it have left since it was acknowledged."""
        frozen = self.attempts[attempt.batch_id]
        assert frozen.attempt == attempt, "an attempt on disk is not the one that was frozen"
        return frozen if frozen.rows <= self.state.rows.keys() else None

    # Restarts

    def restart(self, state: State, boot: int) -> None:
        """The log was opened again: it must hold what it held, and readers are where they must be at least."""
        assert boot > self.boot, "a boot of the gateway is counted twice"
        self.boot = boot
        old = self.state
        assert state.rows == old.rows, f"rows: {list(old.rows)} before, {list(state.rows)} now"
        assert state.quarantine == old.quarantine
        assert state.cursors == old.cursors
        assert state.losses == old.losses
        assert {key: epoch for key, epoch in state.epochs.items() if key != boot} == old.epochs
        self.state = state
        for name, reader in list(self.readers.items()):
            if name not in state.cursors:
                del self.readers[name]
                continue
            cursor = state.cursors[name]
            assert cursor.position >= reader.on_disk, (
                f"the reader {name} was at {reader.on_disk}, is at {cursor.position}"
            )
            reader.position = reader.on_disk = cursor.position
            reader.batch = cursor.attempt.batch_id if cursor.attempt else ""


def _is(reading: NewReading, row: Row) -> bool:
    stream, *rest = reading
    of = (row.organization_id, row.device_id, row.boot_id)
    return of == (stream.organization_id, stream.device_id, stream.boot_id) and tuple(rest[:-1]) == (
        row.seq,
        row.time_ms,
        row.time_source,
        row.received_at_ms,
        row.monotonic_ms,
        row.payload,
        row.raw,
        row.metadata,
    )


def _repeats(reading: NewReading, rows: Iterable[Row], boot: int) -> bool:
    """Tell whether the reading is one of these, by its key or, marked as a repeat, by its bytes."""
    stream = (reading.stream.organization_id, reading.stream.device_id, reading.stream.boot_id)
    for row in rows:
        if (row.organization_id, row.device_id, row.boot_id) != stream or row.seq != reading.seq:
            continue
        if reading.seq is not None:
            return True
        is_same = (row.raw or row.payload) == (reading.raw or reading.payload)
        if row.gateway_boot == boot:
            is_recent = row.monotonic_ms >= reading.monotonic_ms - DEDUPE_WINDOW_MS
        else:
            is_recent = 0 <= reading.received_at_ms - row.received_at_ms <= DEDUPE_WINDOW_MS
        if reading.maybe_repeated and is_same and is_recent:
            return True
    return False


def _quarantine_bytes(entry: NewQuarantine) -> int:
    return len(entry.payload) + QUARANTINE_ROW_BYTES


def _as_read(number: int, row: Row, epoch_ms: int | None) -> StoredReading:
    time_ms, source, received_ms = row.time_ms, TimeSource(row.time_source), row.received_at_ms
    if epoch_ms is not None:
        wrong_by = epoch_ms + row.monotonic_ms - received_ms
        if abs(wrong_by) >= CLOCK_STEP_MS:
            received_ms += wrong_by
            if source is not TimeSource.DEVICE:
                time_ms += wrong_by
                source = TimeSource.CORRECTED
    body: dict[str, Any] = from_json(row.payload)
    return StoredReading(
        number,
        row.organization_id,
        row.device_id,
        row.boot_id or None,
        row.seq,
        time_ms,
        source,
        received_ms,
        body,
        from_json(row.metadata) if row.metadata else {},
        len(row.payload),
        row.gateway_boot,
        epoch_ms,
    )
