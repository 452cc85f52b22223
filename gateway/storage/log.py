"""The append-only log of readings, with one named cursor per reader.

Invariants
- an id is never reused and only grows
- `append` returns, and an owner hears `committed`, after the commit is on disk (synchronous=FULL: after the sync)
- (organisation, device, boot_id, seq) is stored once, however often it is sent; the repeat counts as committed
- rows that arrive while a commit runs form the next one, in the order they came
- a cursor's move rides along with the next commit; a frozen attempt is on disk before `freeze` returns
- stored rows are never rewritten

It does not: decide what a valid reading is (parsers, ingest), or drop anything.
"""

import asyncio
import logging
import sqlite3
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import aiosqlite

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewQuarantine, NewReading, Stream
from gateway.storage.append import Append
from gateway.storage.commit_thread import CommitThread
from gateway.storage.cursors import Attempt, Cursor
from gateway.storage.log_reader import LogReader, connect_reader
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate

logger = logging.getLogger(__name__)

Entry = NewReading | NewQuarantine

_STREAMS_IN_MEMORY = 20_000
_METADATA_IN_MEMORY = 10_000
_MOVE_FLUSH_S = 1.0  # a cursor move that no commit takes along is written by itself after this long
_WAL_PAGES = 4_000  # 16 MB: fewer checkpoints, each of which syncs twice


class Owner(Protocol):
    """Whoever waits for entries to be on disk, for example a connection that owes acknowledgements."""

    def committed(self, count: int, /) -> None:
        """`count` more of the messages it submitted are on disk, in the order it submitted them."""
        ...

    def failed(self, error: StoreFailed) -> None:
        """A commit with messages of it failed; they are not on disk."""
        ...


class Log(LogReader):
    """See the module's own words. Made by `Log.create`; every method is for the event loop's thread."""

    def __init__(
        self,
        path: Path,
        reader: aiosqlite.Connection,
        db: sqlite3.Connection,
        settings: StorageSettings,
        dedupe_window_ms: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        super().__init__(path, reader)
        self._settings = settings
        self._dedupe_window_ms = dedupe_window_ms
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._thread = CommitThread(db, self._loop)
        self._db = db
        self._streams: OrderedDict[tuple[str, str, str], Stream] = OrderedDict()
        self._interned_metadata: dict[str, int] = {}
        self._entries: list[Entry] = []
        self._owners: list[Owner | None] = []  # one for each entry; None where another entry of its message follows
        self._moves: dict[str, int] = {}
        self._moved: dict[str, int] = {}
        """Every cursor's newest move, on disk or not."""
        self._freezes: list[tuple[Attempt, asyncio.Future[None]]] = []
        self._committing = False
        self._left_over = False
        """Whether a commit was too small for all that had waited long enough."""
        self._closing = False
        self._due: asyncio.Handle | None = None
        self._flush_due: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._grown: asyncio.Future[None] = self._loop.create_future()
        self._gateway_boot = 0
        self.uuid = ""
        self.last_row = 0
        self.stored = 0
        """Readings stored since the log was opened."""
        self.duplicates = 0
        """Readings that came again since the log was opened."""
        self.failure: StoreFailed | None = None
        """The newest commit's error; None while commits succeed."""

    @classmethod
    @asynccontextmanager
    async def create(
        cls,
        path: Path,
        settings: StorageSettings,
        *,
        dedupe_window_ms: int = 60_000,
        clock: Clock,
        metrics: Metrics,
    ) -> AsyncIterator[Self]:
        """Open the log for writing, or create it; leaving the context commits what is pending and closes it.

        Raises SchemaTooNew or StoreFailed.
        """
        db = await asyncio.to_thread(_connect, path, settings)
        try:
            async with connect_reader(path) as reader:
                self = cls(path, reader, db, settings, dedupe_window_ms, clock, metrics)
                try:
                    self._prepare()
                except sqlite3.Error as error:
                    raise _cannot_open(path, error) from error
                self._thread.start()
                try:
                    yield self
                finally:
                    await self._drain()
                    await asyncio.to_thread(self._thread.close)
        finally:
            db.close()

    def _prepare(self) -> None:
        """Read where the log stands, and note this start."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('log_uuid', ?)", (uuid.uuid4().hex,))
        (self.uuid,) = self._db.execute("SELECT value FROM meta WHERE key = 'log_uuid'").fetchone()
        boot = self._db.execute(
            "INSERT INTO gateway_boots (started_at_ms) VALUES (?)", (self._clock.now_ms(),)
        ).lastrowid
        assert boot is not None
        self._gateway_boot = boot
        (self.last_row,) = self._db.execute("SELECT coalesce(max(id), 0) FROM device_telemetry_history").fetchone()

    # Appending

    def stream(self, organization_id: str, device_id: str, boot_id: str) -> Stream:
        """Return the stream of this boot of this device, the same object while it is in use."""
        key = (organization_id, device_id, boot_id)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(*key)
            if len(self._streams) > _STREAMS_IN_MEMORY:
                self._streams.popitem(last=False)
        return stream

    def submit(self, entry: Entry, owner: Owner | None) -> None:
        """Take an entry into the next commit; its owner hears when it is on disk.

        A message that makes several entries submits all but the last with None, so that it is acknowledged once.
        """
        self._entries.append(entry)
        self._owners.append(owner)
        if not self._committing and self._due is None:
            self._schedule()

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store the entries of one message; returns when they are on disk. Raises StoreFailed."""
        if not entries:
            return
        waiter = _Waiter(self._loop)
        for entry in entries[:-1]:
            self.submit(entry, None)
        self.submit(entries[-1], waiter)
        await waiter.future

    @property
    def waiting(self) -> int:
        """Entries that wait for the next commit."""
        return len(self._entries)

    def _schedule(self) -> None:
        """Commit what waits: at once, or (to write less often) together with what comes within the delay."""
        delay_ms = self._settings.commit_max_delay_ms
        self._idle.clear()
        if delay_ms and not self._closing:
            self._due = self._loop.call_later(delay_ms / 1000, self._commit)
        else:
            self._due = self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Hand over everything that waits as one transaction."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if len(self._interned_metadata) > _METADATA_IN_MEMORY:
            self._interned_metadata.clear()
        size = self._next_size()
        append = Append(
            self._gateway_boot,
            self._dedupe_window_ms,
            self._interned_metadata,
            self._entries[:size],
            self._moves,
            [attempt for attempt, _ in self._freezes],
        )
        owners, frozen = self._owners[:size], [future for _, future in self._freezes]
        self._entries, self._owners = self._entries[size:], self._owners[size:]
        self._moves, self._freezes = {}, []
        self._left_over = bool(self._entries)
        self._committing = True
        self._idle.clear()
        self._thread.commit(append, lambda error: self._committed(append, owners, frozen, error))

    def _next_size(self) -> int:
        """How many entries the next commit takes: never only a part of a message, which is stored whole or not."""
        size = self._settings.max_commit_readings
        while size < len(self._owners) and self._owners[size - 1] is None:
            size += 1
        return size

    def _committed(
        self,
        append: Append,
        owners: list[Owner | None],
        frozen: list[asyncio.Future[None]],
        error: Exception | None,
    ) -> None:
        self._committing = False
        if error is None:
            self.failure = None
            self._count(append)
            for owner, count in Counter(owners).items():
                if owner is not None:
                    self._tell(partial(owner.committed, count))
            for future in frozen:
                if not future.done():
                    future.set_result(None)
            if append.inserted:
                self.last_row = append.last_row
                self._grown.set_result(None)
                self._grown = self._loop.create_future()
        else:
            self._refuse(append, owners, frozen, error)
        if self._left_over:
            self._commit()
        elif self._entries or self._freezes:
            self._schedule()
        else:
            self._idle.set()

    @staticmethod
    def _tell(hear: Callable[[], None]) -> None:
        """Tell an owner; a defect of its own stops nobody else."""
        try:
            hear()
        except Exception:
            logger.exception("whoever waited for a commit failed, by a fault of ours")

    def _count(self, append: Append) -> None:
        self.stored += append.inserted
        self.duplicates += append.duplicates
        self._metrics.ingested.inc(append.inserted)
        self._metrics.duplicates.inc(append.duplicates)
        now = self._clock.monotonic_ms()
        for received, times in append.received.items():
            self._metrics.latency.observe((now - received) / 1000, times)

    def _refuse(
        self,
        append: Append,
        owners: list[Owner | None],
        frozen: list[asyncio.Future[None]],
        error: Exception,
    ) -> None:
        failure = StoreFailed(
            f"The log could not be written: {error}.",
            hint=f"Look at the disk that holds {self._path}. Nothing of this was acknowledged.",
        )
        if self.failure is None:
            logger.error("commit failed: %s", error, extra={"path": str(self._path)})
        self.failure = failure
        self._metrics.errors.labels("store").inc(len(append.entries))
        for name, row in append.moves.items():  # a move is not lost: it rides along with a later commit
            if name in self._moved:  # else it was dropped meanwhile
                self.move_cursor(name, self._moves.get(name, row))
        for owner in filter(None, set(owners)):
            self._tell(partial(owner.failed, failure))
        for future in frozen:
            if not future.done():
                future.set_exception(failure)

    async def _drain(self) -> None:
        """Commit what is pending, as closing must."""
        self._closing = True
        while self._committing or self._entries or self._freezes or self._moves:
            if not self._committing:
                self._commit()
            await self._idle.wait()
            if self.failure is not None:
                for owner in filter(None, set(self._owners)):
                    self._tell(partial(owner.failed, self.failure))
                break

    # Reading

    async def wait_beyond(self, row: int) -> None:
        """Return when there is a committed row beyond `row`."""
        while self.last_row <= row:
            await asyncio.shield(self._grown)

    # Cursors

    async def open_cursor(self, name: str, *, start: str) -> Cursor:
        """Return the cursor of that name; a new one starts `now` or at the `oldest` stored row."""
        for cursor in await self.cursors():
            if cursor.name == name:
                return self._up_to_date(cursor)
        position = 0 if start == "oldest" else self.last_row
        await self._execute("INSERT OR IGNORE INTO cursors (name, position) VALUES (?, ?)", (name, position))
        return Cursor(name, position, None)

    def _up_to_date(self, stored: Cursor) -> Cursor:
        """Add the move that may not be on disk yet: a reader that is restarted goes on where it was."""
        position = max(stored.position, self._moved.get(stored.name, 0))
        attempt = stored.attempt
        if attempt is not None and attempt.last_row <= position:
            attempt = None
        return Cursor(stored.name, position, attempt)

    async def drop_cursor(self, name: str) -> None:
        """Give up a reader's place; should it come back, it starts anew."""
        self._moves.pop(name, None)
        self._moved.pop(name, None)
        await self._execute("DELETE FROM cursors WHERE name = ?", (name,))

    async def _execute(self, sql: str, parameters: tuple[str | int, ...]) -> None:
        done = self._loop.create_future()

        def settle(error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(StoreFailed(f"The log could not be written: {error}."))

        self._thread.commit(_Statement(sql, parameters), settle)
        await done

    async def freeze(self, attempt: Attempt) -> None:
        """Put an attempt on disk; returns when it is there. Raises StoreFailed."""
        future = self._loop.create_future()
        self._freezes.append((attempt, future))
        if not self._committing and self._due is None:
            self._schedule()
        await future

    def move_cursor(self, name: str, row: int) -> None:
        """Let the cursor pass `row`; the move rides along with the next commit, or goes alone within a second."""
        self._moves[name] = self._moved[name] = row
        if self._flush_due is None:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)

    def _flush_moves(self) -> None:
        self._flush_due = None
        if self._moves and not self._committing and self._due is None:
            self._commit()
        elif self._moves:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)


class _Waiter:
    """One awaited message."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()

    def committed(self, _: int) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def failed(self, error: StoreFailed) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, frozen=True)
class _Statement:
    sql: str
    parameters: tuple[str | int, ...]

    def write(self, db: sqlite3.Connection) -> None:
        db.execute(self.sql, self.parameters)

    def rolled_back(self) -> None:
        """Nothing is kept in memory."""


def _connect(path: Path, settings: StorageSettings) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    except sqlite3.Error as error:
        raise _cannot_open(path, error) from error
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {settings.synchronous}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        migrate(db, LOG_MIGRATIONS, path)
    except sqlite3.Error as error:
        db.close()
        raise _cannot_open(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def _cannot_open(path: Path, error: sqlite3.Error) -> StoreFailed:
    return StoreFailed(f"{path} cannot be opened: {error}.", hint="Look at its owner, its rights and the disk.")
