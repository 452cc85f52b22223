"""What one group commit writes: readings, quarantined input, cursor moves and frozen attempts, in one transaction.

An entry that the database cannot hold (input checks should have seen to that) must not cost the others their commit:
then all begins anew, they are written one by one, and the culprit goes to quarantine. There is no savepoint to go back
to: with one, SQLite keeps every page as it was, in a temporary file once that is more than 64 KB. A commit of readings
of a hundred boards wrote twice as much as it does now.

Each statement lets go of the interpreter and must get it back from the event loop, which for a commit of a few readings
takes longer than the work. So readings are inserted many at a time; and what is nothing but a few readings of known
boards is one statement, a transaction by itself. With both, a hundred boards with one unacknowledged reading each are
taken in a quarter faster.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from functools import cache
from itertools import chain

from gateway.model.reading import NewQuarantine, NewReading, Stream
from gateway.storage.cursors import Attempt, destination_of, other_cursor
from gateway.storage.dead_letters import CONFIRM
from gateway.storage.quarantine_cap import TrimQuarantine
from gateway.storage.reclaim import read_pages
from gateway.storage.space import Pages
from gateway.storage.unused_metadata import USED_AGAIN

_INSERT = """INSERT INTO device_telemetry_history (stream, seq, time_ms, time_source, received_at_ms,
    gateway_boot, monotonic_ms, metadata, payload, raw) VALUES {} ON CONFLICT (stream, seq) DO NOTHING"""
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ROWS_AT_ONCE = 64
"""More would hardly be faster; and there is one statement for each number of rows, all of them kept prepared."""
_BYTES_AT_ONCE = 100_000
"""A prepared statement keeps what it was given last."""

_SAME_BYTES = """SELECT 1 FROM (
        SELECT payload, raw, received_at_ms, gateway_boot, monotonic_ms FROM device_telemetry_history
        WHERE stream = ? AND seq IS NULL ORDER BY id DESC LIMIT 1000
    ) WHERE CASE gateway_boot WHEN ? THEN monotonic_ms >= ? ELSE received_at_ms BETWEEN ? AND ? END
        AND coalesce(raw, payload) = ? LIMIT 1"""

_QUARANTINE = """INSERT INTO quarantine (organization_id, device_id, source, code, reason, received_at_ms, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""

_FREEZE = """UPDATE cursors SET batch_id = ?, after_row = ?, last_row = ?, readings = ?, body_sha256 = ?,
    created_at_ms = ?, epochs = ?, historical_until = ?, chosen = ? WHERE name = ?"""

_ANSWERED = """UPDATE cursors SET batch_id = NULL, after_row = NULL, last_row = NULL, readings = NULL,
    body_sha256 = NULL, created_at_ms = NULL, epochs = NULL WHERE name = ?"""

_COUNT = "SELECT count(*) FROM device_telemetry_history WHERE id > ? AND id <= ?"

MOVE = """UPDATE cursors SET position = ?, batch_id = NULL, after_row = NULL, last_row = NULL, readings = NULL,
    body_sha256 = NULL, created_at_ms = NULL, epochs = NULL WHERE name = ?"""

_UNSTORABLE = (ValueError, OverflowError, sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)
_MOST = 2**63 - 1

logger = logging.getLogger(__name__)

Row = tuple[int, int | None, int, int, int, int, int, int | None, bytes, bytes | None]


@cache
def _insert_sql(rows: int) -> str:
    return _INSERT.format(", ".join([_ROW] * rows))


@dataclass(slots=True)
class Append:
    """One transaction of the log. After a commit `inserted` and `last_row` say what it did."""

    gateway_boot: int
    dedupe_window_ms: int
    interned: dict[str, int]
    erased_streams: set[int]
    entries: list[NewReading | NewQuarantine]
    moves: dict[str, int]
    freezes: list[Attempt]
    trim: TrimQuarantine
    sees_pages: bool = True
    """Whether it must say how the file is used afterwards."""
    inserted: int = 0
    duplicates: int = 0
    last_row: int = 0
    """The newest row that was inserted."""
    frozen: set[str] = field(default_factory=set)
    """Batch ids of the attempts that were frozen."""
    pages: Pages | None = None
    received: Counter[int] = field(default_factory=Counter)
    """How many readings were received at which monotonic millisecond."""
    _new_streams: list[Stream] = field(default_factory=list)
    _new_metadata: list[str] = field(default_factory=list)
    _quarantines: bool = False

    def write_at_once(self, db: sqlite3.Connection) -> bool:
        """Write everything in one statement, if that is enough; see `AtOnce`."""
        if self.sees_pages or self.moves or self.freezes or not self._is_one_insert():
            return False
        try:
            self._insert(db, [entry for entry in self.entries if type(entry) is NewReading])
        except _UNSTORABLE:  # nothing is stored: one by one will tell which it is
            return False
        return True

    def _is_one_insert(self) -> bool:
        """Whether there is nothing but a few readings as boards send them, of boards that are known."""
        size = 0
        for entry in self.entries:
            if type(entry) is not NewReading or entry.maybe_repeated or entry.raw is not None:
                return False
            if not self._is_interned(entry):
                return False
            size += _size_bytes(entry)
        return 0 < len(self.entries) <= _ROWS_AT_ONCE and size <= _BYTES_AT_ONCE

    def write(self, db: sqlite3.Connection) -> None:
        """Write everything; see `CommitThread`."""
        try:
            self._write_entries(db, self.entries)
        except _UNSTORABLE:
            db.execute("ROLLBACK")
            self.rolled_back()
            db.execute("BEGIN IMMEDIATE")
            self._write_one_by_one(db)
        if self._quarantines:
            self.trim.write(db)
        # Moves first: a freeze belongs to the position after them.
        if self.moves:
            db.executemany(MOVE, [(row, name) for name, row in self.moves.items()])
            db.executemany(CONFIRM, [(destination_of(name), row) for name, row in self.moves.items()])
        for attempt in self.freezes:
            self._freeze(db, attempt)
        self.pages = read_pages(db)

    def rolled_back(self) -> None:
        """Forget the rows that streams and metadata were promised."""
        self._forget()
        self.inserted = self.duplicates = 0
        self.received.clear()
        self.trim.rolled_back()

    def _forget(self, streams: int = 0, metadata: int = 0) -> None:
        """Forget the promised rows beyond the first so many."""
        for stream in self._new_streams[streams:]:
            stream.row = None
        for text in self._new_metadata[metadata:]:
            self.interned.pop(text, None)
        del self._new_streams[streams:], self._new_metadata[metadata:]

    def _freeze(self, db: sqlite3.Connection, a: Attempt) -> None:
        """Freeze an attempt, unless rows of it have left since they were read: those have been counted as lost."""
        (there,) = db.execute(_COUNT, (a.after_row, a.last_row)).fetchone()
        if there == a.readings:
            _, batch_id, *values = astuple(a)
            db.execute(_FREEZE, (batch_id, *values, a.destination))
            db.execute(_ANSWERED, (other_cursor(a.destination),))  # one is under way at a time: it had its answer
            self.frozen.add(a.batch_id)

    def _write_entries(self, db: sqlite3.Connection, entries: list[NewReading | NewQuarantine]) -> None:
        readings = [entry for entry in entries if type(entry) is NewReading]
        if readings:
            self._write_readings(db, readings)
        if len(readings) < len(entries):
            db.executemany(_QUARANTINE, [entry for entry in entries if type(entry) is NewQuarantine])
            self._quarantines = True

    def _write_one_by_one(self, db: sqlite3.Connection) -> None:
        for entry in self.entries:
            known = len(self._new_streams), len(self._new_metadata)
            db.execute("SAVEPOINT entry")
            try:
                self._write_entries(db, [entry])
            except _UNSTORABLE as error:
                db.execute("ROLLBACK TO entry")
                self._forget(*known)
                logger.exception("an entry cannot be stored, by a fault of ours: it is quarantined")
                db.execute(_QUARANTINE, _culprit(entry, error))
                self._quarantines = True
            db.execute("RELEASE entry")

    def _write_readings(self, db: sqlite3.Connection, readings: list[NewReading]) -> None:
        for reading in readings:
            if not self._is_interned(reading):
                self._intern(db, reading)
        if any(reading.maybe_repeated for reading in readings):
            for reading in readings:  # one may repeat another
                if reading.maybe_repeated and self._is_repeated(db, reading):
                    self.duplicates += 1
                    self.received[reading.monotonic_ms] += 1
                else:
                    self._insert(db, [reading])
        else:
            for some in _at_once(readings):
                self._insert(db, some)

    def _insert(self, db: sqlite3.Connection, readings: list[NewReading]) -> None:
        """Insert interned readings, but for those whose key is there already."""
        done = db.execute(_insert_sql(len(readings)), list(chain.from_iterable(map(self._row, readings))))
        inserted = done.rowcount  # not `total_changes`, which has 32 bits: some weeks fill them
        if inserted:
            assert done.lastrowid is not None
            self.last_row = done.lastrowid
        self.inserted += inserted
        self.duplicates += len(readings) - inserted
        self.received.update([reading.monotonic_ms for reading in readings])

    def _row(self, reading: NewReading) -> Row:
        stream, seq, time_ms, source, received, monotonic, payload, raw, metadata, _ = reading
        assert stream.row is not None
        return (
            stream.row,
            seq,
            time_ms,
            source,
            received,
            self.gateway_boot,
            monotonic,
            None if metadata is None else self.interned[metadata],
            payload,
            raw,
        )

    def _is_repeated(self, db: sqlite3.Connection, reading: NewReading) -> bool:
        """Whether the same bytes came from the same device within the window (only for readings without a key).

        Measured by the monotonic clock, as the other one may jump; only over a restart there is no other.
        """
        arrived = reading.payload if reading.raw is None else reading.raw
        now, monotonic, window = reading.received_at_ms, reading.monotonic_ms, self.dedupe_window_ms
        values = (reading.stream.row, self.gateway_boot, monotonic - window, now - window, now, arrived)
        return db.execute(_SAME_BYTES, values).fetchone() is not None

    def _is_interned(self, reading: NewReading) -> bool:
        row = reading.stream.row
        if row is None or row in self.erased_streams:
            return False
        return reading.metadata is None or reading.metadata in self.interned

    def _intern(self, db: sqlite3.Connection, reading: NewReading) -> None:
        if reading.stream.row is None or reading.stream.row in self.erased_streams:
            self._intern_stream(db, reading.stream)
        if reading.metadata is not None and reading.metadata not in self.interned:
            self._intern_metadata(db, reading.metadata)

    def _intern_stream(self, db: sqlite3.Connection, stream: Stream) -> None:
        key = (stream.organization_id, stream.device_id, stream.boot_id)
        found = _one(
            db.execute("SELECT id FROM streams WHERE organization_id = ? AND device_id = ? AND boot_id = ?", key)
        )
        if found is None:
            found = db.execute(
                "INSERT INTO streams (organization_id, device_id, boot_id) VALUES (?, ?, ?)", key
            ).lastrowid
        stream.row = found
        self._new_streams.append(stream)

    def _intern_metadata(self, db: sqlite3.Connection, text: str) -> None:
        found = _one(db.execute("SELECT id FROM device_metadata WHERE json = ?", (text,)))
        if found is None:
            found = db.execute("INSERT INTO device_metadata (json) VALUES (?)", (text,)).lastrowid
        else:
            db.execute(USED_AGAIN, (found,))
        assert found is not None
        self.interned[text] = found
        self._new_metadata.append(text)


def _at_once(readings: list[NewReading]) -> Iterator[list[NewReading]]:
    """Yield as many as one statement is to insert, at least one."""
    some: list[NewReading] = []
    size = 0
    for reading in readings:
        size += _size_bytes(reading)
        if some and (len(some) == _ROWS_AT_ONCE or size > _BYTES_AT_ONCE):
            yield some
            some, size = [], _size_bytes(reading)
        some.append(reading)
    yield some


def _size_bytes(reading: NewReading) -> int:
    return len(reading.payload) + (0 if reading.raw is None else len(reading.raw))


def _culprit(entry: NewReading | NewQuarantine, error: Exception) -> NewQuarantine:
    """Return what is kept of an entry that the database cannot hold."""
    if type(entry) is NewReading:
        stream, source, arrived = entry.stream, "", entry.payload if entry.raw is None else entry.raw
        organization, device = stream.organization_id, stream.device_id
    else:
        assert type(entry) is NewQuarantine
        organization, device, source, arrived = entry.organization_id, entry.device_id, entry.source, entry.payload
    received = entry.received_at_ms if abs(entry.received_at_ms) <= _MOST else 0
    reason = f"It cannot be stored: {error}."
    return NewQuarantine(
        _clean(organization), _clean(device), _clean(source), "unstorable", _clean(reason), received, arrived
    )


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _one(rows: Iterator[tuple[int]]) -> int | None:
    row = next(rows, None)
    return None if row is None else row[0]
