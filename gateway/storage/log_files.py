"""The log's connections, one that writes and one that reads, and their exchange for those of a fresh log."""

import asyncio
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import Clock
from gateway.model.errors import StoreFailed
from gateway.storage.commit_thread import CommitThread
from gateway.storage.disk import own_existing
from gateway.storage.log_reader import Readers
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.repair.damage import DamagedError, begin_whole, inspect, is_damage, store_failed
from gateway.storage.repair.exchange import CURSORS_LOST, HISTORY, Connect, Known, complete_exchange, replace_log
from gateway.storage.repair.salvage import SalvageState, finished, unfinished
from gateway.storage.space import drop_ballast, is_full


@dataclass(slots=True, frozen=True)
class LogStart:
    """What an opened log says of itself."""

    uuid: str
    gateway_boot: int
    newest_row: int
    salvages: list[SalvageState]
    """Those that are still to be done."""
    salvaged: set[str]
    """The damaged logs that are not needed any more."""
    cursors_lost: bool
    """A cursor that is not there may have been."""


class LogFiles:
    """See the module's own words. Opened by `open`."""

    readers: Readers
    writer: CommitThread

    def __init__(self, path: Path, connect: Connect, clock: Clock, *, repairs: bool) -> None:
        self._path = path
        self._connect = connect
        self._clock = clock
        self._repairs = repairs
        self._db: sqlite3.Connection | None = None
        self._replaced = False

    async def open(self) -> LogStart:
        """Open the log, or, where it is repaired, a fresh one if it is damaged. Raises SchemaTooNew or StoreFailed."""
        start = await asyncio.to_thread(self._open)
        assert self._db is not None
        self.readers = await Readers.connect(self._path)
        self.writer = CommitThread(self._db, asyncio.get_running_loop())
        self.writer.start()
        return start

    async def replace(self, reason: str, known: Known) -> LogStart:
        """Set the open log aside, and open a fresh one; after an error (see `open`) it may be tried again."""
        # The readers go last: the last connection writes the write-ahead log back, unless it is read-only.
        await self._close(self._db)
        await self.readers.close()
        if not self._replaced:
            await asyncio.to_thread(replace_log, self._path, reason, self._connect, self._clock.now_ms(), known)
            self._replaced = True
        start = await self.open()
        self._replaced = False
        return start

    async def close(self) -> None:
        """Carry out what is queued, then close the log."""
        await self.readers.close()
        await self._close(self._db)

    async def _close(self, db: sqlite3.Connection | None) -> None:
        await asyncio.to_thread(self.writer.close)
        if db is not None:
            await asyncio.to_thread(db.close)

    def _open(self) -> LogStart:
        try:
            return self._open_or_replace()
        except (OSError, sqlite3.Error, DamagedError, StoreFailed) as error:
            if is_full(self._path.parent) and drop_ballast(self._path.parent):
                return self._open()
            if isinstance(error, StoreFailed):
                raise
            raise store_failed(self._path, "The log cannot be opened", error) from error

    def _open_or_replace(self) -> LogStart:
        for file in self._path.parent.glob(f"{self._path.name}*"):  # also what an earlier release has left
            own_existing(file)
        complete_exchange(self._path)
        try:
            inspect(self._path, len(LOG_MIGRATIONS))
            if not self._path.exists():
                begin_whole(self._path, lambda path: self._connect(path).close())
            return self._connect_and_begin()
        except Exception as error:
            damage = _damage_in(error)
            if damage is None or not self._repairs:
                raise
        replace_log(self._path, damage, self._connect, self._clock.now_ms(), Known())
        return self._connect_and_begin()

    def _connect_and_begin(self) -> LogStart:
        db = self._connect(self._path)
        try:
            start = _begin(db, self._clock)
        except sqlite3.Error:
            db.close()
            raise
        self._db = db
        return start


def _damage_in(error: Exception) -> str | None:
    for one in (error, error.__cause__):
        if is_damage(one):
            return str(one)
    return None


def _begin(db: sqlite3.Connection, clock: Clock) -> LogStart:
    """Note that a gateway has started, and read what the log says of itself."""
    db.execute("INSERT OR IGNORE INTO meta VALUES ('log_uuid', ?)", (uuid.uuid4().hex,))
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    started = (clock.now_ms(), clock.boot_id() or None)
    boot = db.execute("INSERT INTO gateway_boots (started_at_ms, machine_boot) VALUES (?, ?)", started).lastrowid
    assert boot is not None
    (newest,) = db.execute(f"SELECT coalesce(max(id), 0) FROM {HISTORY}").fetchone()  # noqa: S608 - a constant
    db.execute("SELECT count(*) FROM cursors").fetchone()
    salvages = unfinished(db)
    if not salvages:
        # Boots whose last reading has left; only now, as nobody holds a stream in memory yet.
        db.execute(f"DELETE FROM streams WHERE NOT EXISTS (SELECT 1 FROM {HISTORY} WHERE stream = streams.id)")  # noqa: S608 - a constant
    return LogStart(meta["log_uuid"], boot, newest, salvages, finished(db), CURSORS_LOST in meta)
