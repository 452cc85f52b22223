"""Reading the log: for the gateway's own readers, and for commands when no gateway runs.

Every query is one statement on a read-only connection, so no read transaction outlives it and keeps the write-ahead
log from being reused.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import aiosqlite

from gateway.model.errors import NotFound, StoreFailed
from gateway.model.reading import NewQuarantine, StoredReading
from gateway.model.selection import EVERYTHING, Selection
from gateway.model.status import BufferStatus, Loss
from gateway.storage.cursors import Attempt, Cursor
from gateway.storage.dead_letters import DeadLetterReader
from gateway.storage.stored_row import to_reading

NEWEST = 2**63 - 1

_ROWS = """SELECT h.id, s.organization_id, s.device_id, s.boot_id, h.seq, h.time_ms, h.time_source, h.received_at_ms,
        h.payload, m.json, h.gateway_boot, h.monotonic_ms, b.epoch_ms
    FROM device_telemetry_history h JOIN streams s ON s.id = h.stream
    LEFT JOIN gateway_boots b ON b.id = h.gateway_boot
    LEFT JOIN device_metadata m ON m.id = h.metadata"""
READ = f"{_ROWS} WHERE h.id > ? AND h.id <= ?"
"""What `corrected` makes readings of: those of a range of rows."""

_READ = f"{READ} ORDER BY h.id LIMIT ?"
_READ_THESE = f"{_ROWS} WHERE h.id IN (SELECT value FROM json_each(?)) ORDER BY h.id"  # noqa: S608 - only constants

_WHOSE = """SELECT h.id, length(h.payload), s.organization_id, s.device_id
    FROM device_telemetry_history h CROSS JOIN streams s ON s.id = h.stream
    WHERE h.id > ? AND h.id <= ? ORDER BY h.id LIMIT ?"""
_ROWS_AT_ONCE = 5_000
ROWS_LOOKED_AT = 50_000  # of one page, so that whoever wants nearly nothing still moves on now and then

_SIZES = "SELECT id, length(payload) FROM device_telemetry_history WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"

# The index is far narrower than the table, and answers a count many times faster; without a condition, SQLite only
# adds up its pages, which is faster again.
_COUNT_FEW = "SELECT count(*) FROM device_telemetry_history"
_FEW_ROWS = 20_000  # so many rows at its end are counted faster in the table itself
_COUNT = "SELECT count(*) FROM device_telemetry_history INDEXED BY device_telemetry_history_key"
_COUNT_STREAMS = """SELECT count(*), min(id) FROM device_telemetry_history INDEXED BY device_telemetry_history_key
    WHERE stream IN (SELECT value FROM json_each(?)) AND id > ?"""
_COUNT_FEW_STREAMS = """SELECT count(*), min(id) FROM device_telemetry_history
    WHERE +stream IN (SELECT value FROM json_each(?)) AND id > ?"""
_EXTENT = f"""SELECT ({_COUNT}), (SELECT coalesce(min(id), 0) FROM device_telemetry_history),
    (SELECT coalesce(max(id), 0) FROM device_telemetry_history)"""  # noqa: S608 - only constants

# As `read` corrects it.
_RECEIVED = """SELECT coalesce(b.epoch_ms + h.monotonic_ms, h.received_at_ms)
    FROM device_telemetry_history h LEFT JOIN gateway_boots b ON b.id = h.gateway_boot"""
_LAST_RECEIVED = f"""{_RECEIVED} WHERE h.id = (
        SELECT max(h.id) FROM streams s
        JOIN device_telemetry_history h INDEXED BY device_telemetry_history_key ON h.stream = s.id
        WHERE s.organization_id = ? AND s.device_id = ?
    )"""  # noqa: S608 - only constants

_LATEST_STREAMS = "SELECT id FROM streams WHERE organization_id = ? AND device_id = ? ORDER BY id DESC LIMIT 3"
_LATEST_OF_STREAM = """SELECT id FROM device_telemetry_history INDEXED BY device_telemetry_history_key
    WHERE stream = ? ORDER BY seq DESC, id DESC LIMIT ?"""

_CURSORS = """SELECT name, position, until_row, batch_id, after_row, last_row, readings, body_sha256, created_at_ms,
    epochs, historical_until, chosen FROM cursors"""
STILL_SALVAGED = "SELECT file FROM salvages WHERE NOT finished LIMIT 1"


@dataclass(slots=True, frozen=True)
class Page:
    """What a reader wants of the next rows of the log."""

    readings: list[StoredReading]
    last_row: int
    """Up to here everything that it wants is in `readings`."""
    rows: int
    """How many rows the log has up to there, wanted or not."""


@dataclass(slots=True, frozen=True)
class Readers:
    """Two read-only connections: who asks how it is does not queue behind those who read thousands of rows."""

    _quick: aiosqlite.Connection
    _pages: aiosqlite.Connection

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Connect; to be closed."""
        uri = f"{path.absolute().as_uri()}?mode=ro"  # noqa: ASYNC240 - no look at the disk
        quick = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=10)
        try:
            return cls(quick, await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=10))
        except BaseException:
            await quick.close()
            raise

    async def fetch(self, sql: str, parameters: Iterable[object], *, page: bool) -> Iterable[sqlite3.Row]:
        """Return all rows; `page` says that they may be thousands."""
        return await (self._pages if page else self._quick).execute_fetchall(sql, parameters)

    async def close(self) -> None:
        """Close both."""
        await self._quick.close()
        await self._pages.close()


def still_salvaged(file: str) -> StoreFailed:
    """Return the error that says that readings are still to come back from this damaged log."""
    return StoreFailed(
        f"Readings are still being salvaged from {file}; now they would be missing.",
        hint="Run it again when the gateway has ended that: its /ready and its log say so.",
    )


class LogReader:
    """The log, read-only. Made by `LogReader.open`, or the reading half of `Log`."""

    def __init__(self, path: Path, readers: Readers) -> None:
        self._path = path
        self._readers = readers
        self.dead_letters = DeadLetterReader(self.fetch)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Open an existing log beside whoever writes it. Raises NotFound."""
        if not path.exists():  # noqa: ASYNC240 - a look at a local file
            raise NotFound(f"There is no log at {path}.", hint="Start the gateway once, or name its configuration.")
        readers = await Readers.connect(path)
        try:
            yield cls(path, readers)
        finally:
            await readers.close()

    async def fetch(self, sql: str, parameters: Iterable[object] = (), *, page: bool = False) -> Iterable[sqlite3.Row]:
        """Return what a query finds; `page` says that it may be thousands of rows."""
        return await self._readers.fetch(sql, parameters, page=page)

    @property
    def folder(self) -> Path:
        """Where it lies, with whatever is kept beside it."""
        return self._path.parent

    async def log_uuid(self) -> str:
        """Return the identity of this log, a part of every reading's id."""
        ((uuid,),) = await self.fetch("SELECT value FROM meta WHERE key = 'log_uuid'")
        return str(uuid)

    async def require_whole(self) -> None:
        """Raise StoreFailed while readings are still to come back from a damaged log that was set aside."""
        for (file,) in await self.fetch(STILL_SALVAGED):
            raise still_salvaged(file)

    async def newest_row(self) -> int:
        """Return the newest reading's row, 0 if there is none."""
        ((row,),) = await self.fetch("SELECT coalesce(max(id), 0) FROM device_telemetry_history")
        return int(row)

    async def row_before(self, readings: int) -> int:
        """Return the row behind which the newest so many readings lie; 0 if there are no more. Rows have gaps."""
        rows = await self.fetch(
            "SELECT id FROM device_telemetry_history ORDER BY id DESC LIMIT 1 OFFSET ?", (readings,)
        )
        return next((int(row) for (row,) in rows), 0)

    async def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = NEWEST,
        epochs: Mapping[int, int] | None = None,
    ) -> list[StoredReading]:
        """Return stored readings with `after` < row <= `until`, oldest first.

        At most `limit` of them and about `max_bytes` of payload, but always one when there is one. Times that came
        from the gateway's clock are corrected by what is known of it now, or by the given `epochs` (by gateway boot).
        """
        newest = NEWEST if until is None else until
        if max_bytes < NEWEST:  # look at the sizes first: thousands of large payloads need not fit into memory
            sizes = await self.fetch(_SIZES, (after, newest, limit), page=True)
            totals = accumulate(size for _, size in sizes)
            limit = max(1, sum(total <= max_bytes for total in totals))
        rows = await self.fetch(_READ, (after, newest, limit), page=True)
        # Off the event loop: thousands of rows would hold up everybody's acknowledgements for tens of milliseconds.
        return await asyncio.to_thread(corrected, rows, epochs)

    async def select(
        self,
        after: int,
        *,
        until: int,
        selection: Selection,
        limit: int,
        max_bytes: int = NEWEST,
        epochs: Mapping[int, int] | None = None,
        look_at: int = ROWS_LOOKED_AT,
    ) -> Page:
        """As `read`, but only what is wanted; of a row that is not, hardly more than whose it is gets looked at.

        The page ends when about `look_at` rows were.
        """
        if selection.is_everything:
            readings = await self.read(after, until=until, limit=limit, max_bytes=max_bytes, epochs=epochs)
            return Page(readings, readings[-1].row if readings else until, len(readings))
        taken: list[StoredReading] = []
        last_row = after
        rows = size = 0
        while rows < look_at:
            found = list(await self.fetch(_WHOSE, (last_row, until, _ROWS_AT_ONCE), page=True))
            ids, looked_at = _choose(found, selection, limit - len(taken), max_bytes - size, at_least=0 if taken else 1)
            these = await self.fetch(_READ_THESE, (json.dumps(ids),), page=True) if ids else ()
            wanted = await asyncio.to_thread(_wanted, these, epochs, selection)
            taken += wanted
            size += sum(reading.size_bytes for reading in wanted)
            rows += looked_at
            if looked_at == len(found) < _ROWS_AT_ONCE:
                return Page(taken, until, rows)
            if looked_at:
                last_row = found[looked_at - 1][0]
            if taken and (len(taken) >= limit or looked_at < len(found)):
                break
        return Page(taken, last_row, rows)

    async def count_of(self, rows: Sequence[int]) -> int:
        """Return how many of these rows are still there."""
        ((count,),) = await self.fetch(
            "SELECT count(*) FROM device_telemetry_history WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(rows),),
        )
        return int(count)

    async def count_after(self, row: int, selection: Selection = EVERYTHING) -> tuple[int, int | None]:
        """Return how many readings there are after `row`, and when the first of them was received (unix ms).

        Of the devices that are wanted: which sensors a reading has is not looked at.
        """
        if selection.devices or selection.organizations:
            streams = await self.fetch("SELECT id, organization_id, device_id FROM streams")
            wanted = [stream for stream, *whose in streams if selection.wants_device(*whose)]
            is_few = await self.newest_row() - row <= _FEW_ROWS  # by the index, each row that is kept would be read
            counting = _COUNT_FEW_STREAMS if is_few else _COUNT_STREAMS
            ((count, oldest),) = await self.fetch(counting, (json.dumps(wanted), row))
            return count, await self._received_ms(oldest - 1 if count else NEWEST)
        return await self._count_after(row), await self._received_ms(row)

    async def _received_ms(self, after: int) -> int | None:
        first = await self.fetch(f"{_RECEIVED} WHERE h.id > ? ORDER BY h.id LIMIT 1", (after,))
        return next((received for (received,) in first), None)

    async def _count_after(self, row: int) -> int:
        newest = await self.newest_row()
        if newest - row > _FEW_ROWS:
            ((stored, oldest, newest),) = await self.fetch(_EXTENT)
            if row < oldest:
                return int(stored)
            if newest - oldest + 1 == stored:  # no row is missing in between
                return int(newest) - row
        counting = _COUNT if newest - row > _FEW_ROWS else _COUNT_FEW
        ((count,),) = await self.fetch(f"{counting} WHERE id > ?", (row,))
        return int(count)

    async def count_between(self, after: int, until: int) -> int:
        """Return how many readings there are with `after` < row <= `until`."""
        ((count,),) = await self.fetch(f"{_COUNT} WHERE id > ? AND id <= ?", (after, until))
        return int(count)

    async def last_received_ms(self, organization_id: str, device_id: str) -> int | None:
        """Return when the device's newest reading was received (unix ms)."""
        rows = await self.fetch(_LAST_RECEIVED, (organization_id, device_id))
        return next((received for (received,) in rows), None)

    async def latest_of(self, organization_id: str, device_id: str, limit: int) -> list[StoredReading]:
        """Return the device's newest readings as far as its last starts hold so many, the newest first."""
        rows = await self.fetch(_LATEST_STREAMS, (organization_id, device_id))
        latest = [row for (stream,) in rows for (row,) in await self.fetch(_LATEST_OF_STREAM, (stream, limit))]
        ids = sorted(latest, reverse=True)[:limit]
        found = await self.fetch(_READ_THESE, (json.dumps(ids),)) if ids else ()
        return corrected(found)[::-1]

    async def quarantined(self, after: int = 0, limit: int = 100) -> list[tuple[int, NewQuarantine]]:
        """Return quarantined input, oldest first, with its row."""
        rows = await self.fetch(
            "SELECT id, organization_id, device_id, source, code, reason, received_at_ms, payload"
            " FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [(row[0], NewQuarantine(*row[1:])) for row in rows]

    async def buffer(self) -> BufferStatus:
        """Return what is on disk now."""
        ((readings, oldest, newest, quarantined),) = await self.fetch(
            f"{_EXTENT}, (SELECT count(*) FROM quarantine)"  # noqa: S608 - only constants
        )
        return BufferStatus(readings, oldest, newest, quarantined, self.size_bytes())

    async def loss(self, destination: str) -> Loss | None:
        """Return what the destination has lost for want of room."""
        rows = await self.fetch(
            "SELECT readings, first_row, last_row, since_ms FROM losses WHERE destination = ?", (destination,)
        )
        return next((Loss(*row) for row in rows), None)

    def size_bytes(self) -> int:
        """Return the size of the log on disk, with its write-ahead log."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def cursors(self) -> list[Cursor]:
        """Return every reader's place, by name; a destination with a backlog has two."""
        rows = await self.fetch(f"{_CURSORS} ORDER BY name")
        return [
            Cursor(name, position, None if batch_id is None else Attempt(name, batch_id, *rest), until)
            for name, position, until, batch_id, *rest in rows
        ]


def _choose(
    found: Sequence[Any], selection: Selection, limit: int, max_bytes: int, *, at_least: int
) -> tuple[list[int], int]:
    """Return which of these rows are to be read, and how many were looked at to know."""
    ids: list[int] = []
    size = 0
    for number, (row, length, organization_id, device_id) in enumerate(found):
        if selection.wants_device(organization_id, device_id):
            size += length
            if len(ids) >= at_least and (size > max_bytes or len(ids) == limit):
                return ids, number
            ids.append(row)
    return ids, len(found)


def _wanted(rows: Iterable[sqlite3.Row], epochs: Mapping[int, int] | None, selection: Selection) -> list[StoredReading]:
    wanted = [reading for reading in corrected(rows, epochs) if selection.wants(reading)]
    for reading in wanted:
        selection.reduce(reading)
    return wanted


def corrected(rows: Iterable[sqlite3.Row], epochs: Mapping[int, int] | None = None) -> list[StoredReading]:
    """Make readings of what `READ` has found, with their times as they are known now or were by these epochs."""
    readings: list[StoredReading] = []
    for row in rows:
        *stored, gateway_boot, monotonic_ms, epoch_ms = row
        reading = to_reading(tuple(stored))
        reading.gateway_boot, reading.monotonic_ms = gateway_boot, monotonic_ms
        reading.epoch_ms = epoch_ms if epochs is None else epochs.get(gateway_boot)
        if reading.epoch_ms is not None:
            reading.correct_by(reading.epoch_ms + monotonic_ms - reading.received_at_ms)
        readings.append(reading)
    return readings
