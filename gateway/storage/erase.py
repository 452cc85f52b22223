"""Removes what is stored of one device, so that the bytes are gone and not only the rows.

- step by step, each a small transaction of the writing thread: whoever stores readings waits for one step at most
- what a step has erased stays erased; after an interruption the next run goes on with the rest
- deleted content is overwritten (secure_delete), freed pages leave the file, and the write-ahead log, which holds
  older versions of pages, ends empty
- a damaged log that was set aside and salvaged is deleted, as it holds readings of every board; and so is the copy that
  a killed backup has left
- nothing of this is a loss by overflow, and no forwarder sends again what was erased: see `Log.erasures`

It does not: touch the registration (state.db), or what destinations and backups hold.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.model.errors import StoreFailed
from gateway.model.topics import KeptTopics, kept_topics
from gateway.storage.data_dir import DataDir
from gateway.storage.log import Log
from gateway.storage.snapshot import remove_left_copy

_ROWS_PER_STEP = 2_000
_BYTES_PER_STEP = 4_000_000
_PAGES_PER_STEP = 500
_TRUNCATE_TRIES = 100
_TRUNCATE_PAUSE_S = 0.1
_BUSY_MS = 50  # the writing thread waits this long for a reader to end, then lets the others on

_STREAMS = "SELECT id FROM streams WHERE organization_id = ? AND device_id = ?"
_READINGS = """SELECT id, length(payload) + coalesce(length(raw), 0) FROM device_telemetry_history
    INDEXED BY device_telemetry_history_key WHERE stream = ? AND id <= ? ORDER BY seq"""
_LETTERS = """SELECT rowid, length(payload) FROM dead_letters
    WHERE organization_id = ? AND device_id = ? AND row <= ?"""
_QUARANTINED = "SELECT id, length(payload) FROM quarantine WHERE organization_id = ? AND device_id = ? AND id <= ?"
_KEPT = {
    "retained_messages": "topic",
    "session_outbox": "topic",
    "mqtt_messages": "organization_id || '/' || topic",
}
"""Where messages are kept, and their topic as it is behind the door."""
_EMPTY_STREAMS = f"""DELETE FROM streams WHERE id IN ({_STREAMS})
    AND NOT EXISTS (SELECT 1 FROM device_telemetry_history WHERE stream = streams.id) RETURNING id"""  # noqa: S608 - only constants
# The newest reading may have left already, and its dead letter be here: SQLite knows the highest id that was given.
_COUNT = f"""SELECT
    (SELECT count(*) FROM device_telemetry_history INDEXED BY device_telemetry_history_key
        WHERE stream IN ({_STREAMS})),
    (SELECT count(*) FROM dead_letters WHERE organization_id = ? AND device_id = ?),
    (SELECT count(*) FROM quarantine WHERE organization_id = ? AND device_id = ?),
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'device_telemetry_history'), 0),
    (SELECT coalesce(max(id), 0) FROM quarantine)"""  # noqa: S608 - only constants


@dataclass(slots=True)
class Erased:
    """What has been erased so far, and what is left of it."""

    readings: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    messages: int = 0
    """What the MQTT broker has kept of it: retained, or for subscribers that are away."""
    total: int = 0
    """All of them, as it was at the beginning."""
    pages_left: int = 0
    """Afterwards: freed pages that still have to leave the file."""

    @property
    def count(self) -> int:
        """How many of `total` are gone."""
        return self.readings + self.dead_letters + self.quarantined + self.messages


async def erase(
    log: Log, organization_id: str, device_id: str, topics: KeptTopics | None = None
) -> AsyncGenerator[Erased, None]:
    """Erase what is stored of the device now, yielding after each step. Raises StoreFailed.

    What comes in from it meanwhile stays. `topics`: where the broker keeps messages of it; those it owns.
    """
    found = _Found(topics or kept_topics(organization_id, device_id))
    key = (organization_id, device_id)
    await log.outside_transaction(lambda db: found.look(db, key))
    so_far = Erased(total=found.total)
    yield so_far
    while True:
        await log.require_whole()  # what is salvaged later would come back
        step = _Step(key, found, log.erased_streams)
        log.erasures += 1  # also before: a batch that is about to leave is looked at again
        try:
            await log.transact(step)
        finally:
            log.erasures += 1
        so_far.readings += step.readings
        so_far.dead_letters += step.dead_letters
        so_far.quarantined += step.quarantined
        so_far.messages += step.messages
        log.dead_letters.note_settled()
        if not step.rows:
            break
        yield so_far
    await log.outside_transaction(found.look_at_pages)
    for so_far.pages_left in range(found.free_pages, 0, -_PAGES_PER_STEP):
        await log.outside_transaction(_give_pages_back)
        yield so_far
    so_far.pages_left = 0
    await _empty_wal(log)
    await log.require_whole()
    if not log.bounds.drop_wrecks():
        raise StoreFailed("Everything is erased, but a damaged log was set aside meanwhile.", hint="Run it again.")
    if not await asyncio.to_thread(remove_left_copy, log.folder):
        copy = DataDir(log.folder).snapshot
        raise StoreFailed(f"Everything is erased, but not the copy in {copy}.", hint="Remove it.")
    yield so_far


@dataclass(slots=True)
class _Found:
    topics: KeptTopics
    total: int = 0
    newest_reading: int = 0
    newest_quarantined: int = 0
    newest_kept: dict[str, int] = field(default_factory=dict)
    """By table."""
    free_pages: int = 0

    def look(self, db: sqlite3.Connection, key: tuple[str, str]) -> None:
        *counts, self.newest_reading, self.newest_quarantined = db.execute(_COUNT, key * 3).fetchone()
        with _knowing(db, self.topics):
            for table in _KEPT:
                (newest,) = db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()  # noqa: S608 - ours
                self.newest_kept[table] = newest
                counts.append(sum(1 for _ in _kept(db, table, newest)))
        self.total = sum(counts)

    def look_at_pages(self, db: sqlite3.Connection) -> None:
        (self.free_pages,) = db.execute("PRAGMA freelist_count").fetchone()


@dataclass(slots=True)
class _Step:
    """A transaction, see `CommitThread`: some of the readings; when none is left, some of the rest."""

    key: tuple[str, str]
    found: _Found
    erased_streams: set[int]
    """Told in the writing thread: the very next commit must know."""
    readings: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    messages: int = 0

    @property
    def rows(self) -> int:
        return self.readings + self.dead_letters + self.quarantined + self.messages

    def write(self, db: sqlite3.Connection) -> None:
        """Delete a step's worth."""
        _set_secure_delete(db, "on")
        try:
            self.readings = _delete(db, "device_telemetry_history", self._next_readings(db))
            if not self.readings:
                letters = db.execute(_LETTERS, (*self.key, self.found.newest_reading))
                self.dead_letters = _delete(db, "dead_letters", letters)
            if not self.rows:
                quarantined = db.execute(_QUARANTINED, (*self.key, self.found.newest_quarantined))
                self.quarantined = _delete(db, "quarantine", quarantined)
            with _knowing(db, self.found.topics):
                for table, newest in self.found.newest_kept.items():
                    if not self.rows:
                        self.messages = _delete(db, table, _kept(db, table, newest))
            if not self.rows:
                self.erased_streams.update(stream for (stream,) in db.execute(_EMPTY_STREAMS, self.key).fetchall())
        finally:
            _set_secure_delete(db, "fast")

    def _next_readings(self, db: sqlite3.Connection) -> Iterator[tuple[int, int]]:
        for (stream,) in db.execute(_STREAMS, self.key).fetchall():
            yield from db.execute(_READINGS, (stream, self.found.newest_reading))

    def rolled_back(self) -> None:
        """Nothing is gone."""
        self.readings = self.dead_letters = self.quarantined = self.messages = 0


@contextmanager
def _knowing(db: sqlite3.Connection, topics: KeptTopics) -> Iterator[None]:
    """Let statements ask whether a topic is one of these."""
    db.create_function("is_theirs", 1, topics.includes)
    try:
        yield
    finally:
        db.create_function("is_theirs", 1, None)


def _kept(db: sqlite3.Connection, table: str, newest: int) -> Iterator[tuple[int, int]]:
    """Yield (rowid, bytes) of what the broker keeps under the device's topics."""
    yield from db.execute(
        f"SELECT rowid, length(payload) FROM {table} WHERE rowid <= ? AND is_theirs({_KEPT[table]})",  # noqa: S608 - only constants
        (newest,),
    )


def _delete(db: sqlite3.Connection, table: str, found: Iterator[tuple[int, int]]) -> int:
    """Delete the first of these (rowid, bytes), as many as a step may take: the write-ahead log must hold it."""
    doomed: list[tuple[int]] = []
    size = 0
    for row, length in found:
        size += length
        if doomed and size > _BYTES_PER_STEP:
            break
        doomed.append((row,))
        if len(doomed) == _ROWS_PER_STEP:
            break
    db.executemany(f"DELETE FROM {table} WHERE rowid = ?", doomed)  # noqa: S608 - a constant of ours
    return len(doomed)


def _set_secure_delete(db: sqlite3.Connection, mode: str) -> None:
    db.execute(f"PRAGMA secure_delete = {mode}").fetchall()


def _give_pages_back(db: sqlite3.Connection) -> None:
    """Let freed pages leave: what was deleted earlier, without haste, is still on them."""
    db.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})")  # `execute` would free one page


async def _empty_wal(log: Log) -> None:
    """Empty the write-ahead log as soon as no reader needs it. Raises StoreFailed."""
    busy = True

    def truncate(db: sqlite3.Connection) -> None:
        nonlocal busy
        (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").fetchall()
        try:
            busy = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        finally:
            db.execute(f"PRAGMA busy_timeout = {patience_ms}").fetchall()

    for _ in range(_TRUNCATE_TRIES):
        await log.outside_transaction(truncate)
        if not busy:
            return
        await asyncio.sleep(_TRUNCATE_PAUSE_S)  # a reader's end cannot be awaited
    raise StoreFailed("Everything is erased, but old pages are still in the write-ahead log.", hint="Run it again.")
