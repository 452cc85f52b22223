"""Reading the log: for the gateway's own readers, and for commands beside a running gateway.

Every query is one statement on a read-only connection, so no read transaction outlives it and keeps the write-ahead
log from being reused.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiosqlite
from pydantic_core import from_json

from gateway.model.errors import NotFound
from gateway.model.reading import NewQuarantine, StoredReading, TimeSource
from gateway.model.status import BufferStatus
from gateway.storage.cursors import Attempt, Cursor

_NEWEST = 2**63 - 1

_READ = """SELECT h.id, s.organization_id, s.device_id, s.boot_id, h.seq, h.time_ms, h.time_source, h.received_at_ms,
        h.payload, m.json
    FROM device_telemetry_history h JOIN streams s ON s.id = h.stream
    LEFT JOIN device_metadata m ON m.id = h.metadata
    WHERE h.id > ? AND h.id <= ? ORDER BY h.id LIMIT ?"""

# The index is far narrower than the table, and answers a count many times faster.
_COUNT = "SELECT count(*) FROM device_telemetry_history INDEXED BY device_telemetry_history_key"

_CURSORS = """SELECT name, position, batch_id, after_row, last_row, readings, body_sha256, created_at_ms
    FROM cursors"""


class LogReader:
    """The log, read-only. Made by `LogReader.open`, or the reading half of `Log`."""

    def __init__(self, path: Path, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Open an existing log beside whoever writes it. Raises NotFound."""
        if not path.exists():  # noqa: ASYNC240 - a look at a local file
            raise NotFound(f"There is no log at {path}.", hint="Start the gateway once, or name its configuration.")
        async with connect_reader(path) as reader:
            yield cls(path, reader)

    async def log_uuid(self) -> str:
        """Return the identity of this log, a part of every reading's id."""
        ((uuid,),) = await self._reader.execute_fetchall("SELECT value FROM meta WHERE key = 'log_uuid'")
        return str(uuid)

    async def newest_row(self) -> int:
        """Return the newest reading's row, 0 if there is none."""
        ((row,),) = await self._reader.execute_fetchall("SELECT coalesce(max(id), 0) FROM device_telemetry_history")
        return int(row)

    async def read(
        self, after: int, *, until: int | None = None, limit: int, max_bytes: int = _NEWEST
    ) -> list[StoredReading]:
        """Return stored readings with `after` < row <= `until`, oldest first.

        At most `limit` of them and about `max_bytes` of payload, but always one when there is one.
        """
        newest = _NEWEST if until is None else until
        rows = await self._reader.execute_fetchall(_READ, (after, newest, limit))
        readings: list[StoredReading] = []
        size = 0
        for row, organization, device, boot, seq, time_ms, source, received, payload, metadata in rows:
            size += len(payload)
            if readings and size > max_bytes:
                break
            body = from_json(payload)
            readings.append(
                StoredReading(
                    row,
                    organization,
                    device,
                    boot or None,
                    body.get("seq") if seq is None else seq,
                    time_ms,
                    TimeSource(source),
                    received,
                    body,
                    from_json(metadata) if metadata else {},
                    len(payload),
                )
            )
        return readings

    async def count_after(self, row: int) -> tuple[int, int | None]:
        """Return how many readings there are after `row`, and when the first of them was received (unix ms)."""
        ((count,),) = await self._reader.execute_fetchall(f"{_COUNT} WHERE id > ?", (row,))
        first = await self._reader.execute_fetchall(
            "SELECT received_at_ms FROM device_telemetry_history WHERE id > ? ORDER BY id LIMIT 1", (row,)
        )
        return count, next((received for (received,) in first), None)

    async def quarantined(self, after: int = 0, limit: int = 100) -> list[tuple[int, NewQuarantine]]:
        """Return quarantined input, oldest first, with its row."""
        rows = await self._reader.execute_fetchall(
            "SELECT id, organization_id, device_id, source, code, reason, received_at_ms, payload"
            " FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [(row[0], NewQuarantine(*row[1:])) for row in rows]

    async def buffer(self) -> BufferStatus:
        """Return what is on disk now."""
        ((readings, oldest, newest, quarantined),) = await self._reader.execute_fetchall(
            f"""SELECT ({_COUNT}), (SELECT coalesce(min(id), 0) FROM device_telemetry_history),
                (SELECT coalesce(max(id), 0) FROM device_telemetry_history), (SELECT count(*) FROM quarantine)"""  # noqa: S608 - only constants
        )
        return BufferStatus(readings, oldest, newest, quarantined, self.size_bytes())

    def size_bytes(self) -> int:
        """Return the size of the log on disk, with its write-ahead log."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def cursors(self) -> list[Cursor]:
        """Return every reader's place, by name."""
        rows = await self._reader.execute_fetchall(f"{_CURSORS} ORDER BY name")
        return [
            Cursor(name, position, None if batch_id is None else Attempt(name, batch_id, *rest))
            for name, position, batch_id, *rest in rows
        ]


def connect_reader(path: Path) -> aiosqlite.Connection:
    """Connect read-only; to be entered."""
    return aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
