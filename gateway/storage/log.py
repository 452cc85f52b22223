"""The append-only log of readings, with one named cursor per reader.

Invariants
- an id is never reused and only grows
- `append` returns, and an owner hears `committed`, after the commit is on disk (synchronous=FULL: after the sync)
- (organisation, device, boot_id, seq) is stored once, however often it is sent; the repeat counts as committed
- rows that arrive while a commit runs form the next one, in the order they came
- a cursor's move rides along with the next commit; a frozen attempt is on disk before `freeze` returns
- a cursor that passes provisional rejections confirms them, in the same commit
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
from itertools import accumulate
from pathlib import Path
from typing import Protocol, Self

import aiosqlite

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import CLOCK_STEP_MS, NewQuarantine, NewReading, Stream
from gateway.storage.append import Append
from gateway.storage.bounds import Bounds
from gateway.storage.commit_thread import CommitThread, Progress, Transaction
from gateway.storage.cursors import Attempt, Cursor
from gateway.storage.dead_letters import FORGET_PROVISIONAL, DeadLetters, Statement
from gateway.storage.log_reader import LogReader, connect_reader
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate
from gateway.storage.space import WAL_BYTES, WAL_PAGES, Space

logger = logging.getLogger(__name__)

Entry = NewReading | NewQuarantine

_STREAMS_IN_MEMORY = 20_000
_METADATA_IN_MEMORY = 10_000
_MOVE_FLUSH_S = 1.0  # a cursor move that no commit takes along is written by itself after this long
_COMMIT_BYTES = 8_000_000  # payload in one commit at most: the write-ahead log must hold it


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
        self.dead_letters: DeadLetters = DeadLetters(reader, self._execute)
        self._db = db
        self.bounds = Bounds(settings, Space(settings, path.parent), self._thread, clock, metrics)
        self._streams: OrderedDict[tuple[str, str, str], Stream] = OrderedDict()
        self._interned_metadata: dict[str, int] = {}
        self.erasures = 0
        """Grows when readings are erased: what somebody has read before may be gone."""
        self.erased_streams: set[int] = set()
        """Rows that streams had before they were erased; whoever still knows one looks again."""
        self._entries: list[Entry] = []
        self._bytes = 0
        """Payload of the entries."""
        self._owners: list[Owner | None] = []  # one for each entry; None where another entry of its message follows
        self._moves: dict[str, int] = {}
        self._freezes: list[tuple[Attempt, asyncio.Future[bool]]] = []
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
        self._epoch_ms: int | None = None
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
        now = self._clock.now_ms()
        boot = self._db.execute("INSERT INTO gateway_boots (started_at_ms) VALUES (?)", (now,)).lastrowid
        assert boot is not None
        self._gateway_boot = boot
        (self.last_row,) = self._db.execute("SELECT coalesce(max(id), 0) FROM device_telemetry_history").fetchone()
        # Boots whose last reading has left; only now, as nobody holds a stream in memory yet.
        self._db.execute(
            "DELETE FROM streams WHERE NOT EXISTS (SELECT 1 FROM device_telemetry_history WHERE stream = streams.id)"
        )

    # Appending

    def stream(self, organization_id: str, device_id: str, boot_id: str) -> Stream:
        """Return the stream of this boot of this device, the same object while it is in use."""
        key = (organization_id, device_id, boot_id)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(*key)
            if len(self._streams) > _STREAMS_IN_MEMORY:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(key)
        return stream

    def submit(self, entry: Entry, owner: Owner | None) -> None:
        """Take an entry into the next commit; its owner hears when it is on disk.

        A message that makes several entries submits all but the last with None, so that it is acknowledged once.
        """
        if self.bounds.full is not None:
            if owner is not None:
                owner.failed(self.bounds.full)
            return
        self._entries.append(entry)
        self._owners.append(owner)
        self._bytes += len(entry.payload)
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
            self.erased_streams,
            self._entries[:size],
            self._moves,
            [attempt for attempt, _ in self._freezes],
        )
        owners, frozen = self._owners[:size], self._freezes
        self._entries, self._owners = self._entries[size:], self._owners[size:]
        self._bytes = sum(len(entry.payload) for entry in self._entries)
        self._moves, self._freezes = {}, []
        self._left_over = bool(self._entries)
        self._committing = True
        self._idle.clear()
        self._thread.commit(append, lambda error: self._committed(append, owners, frozen, error))

    def _next_size(self) -> int:
        """How many entries the next commit takes: never only a part of a message, which is stored whole or not."""
        size = self._settings.max_commit_readings
        if self._bytes > _COMMIT_BYTES:
            sizes = accumulate(len(entry.payload) for entry in self._entries[:size])
            size = next((index + 1 for index, total in enumerate(sizes) if total > _COMMIT_BYTES), size)
        while size < len(self._owners) and self._owners[size - 1] is None:
            size += 1
        return size

    def _committed(
        self,
        append: Append,
        owners: list[Owner | None],
        frozen: list[tuple[Attempt, asyncio.Future[bool]]],
        error: Exception | None,
    ) -> None:
        self._committing = False
        if error is None:
            if append.entries:  # that a cursor could be moved does not prove that a reading can be stored
                self.failure = None
            self._count(append)
            assert append.pages is not None
            quarantined = any(type(entry) is NewQuarantine for entry in append.entries)
            self.bounds.committed(append.pages, len(append.entries), quarantined=quarantined)
            for owner, count in Counter(owners).items():
                if owner is not None:
                    self._tell(partial(owner.committed, count))
            for attempt, future in frozen:
                if not future.done():
                    future.set_result(attempt.batch_id in append.frozen)
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
        frozen: list[tuple[Attempt, asyncio.Future[bool]]],
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
            if name in self.bounds.readers:  # else it was dropped meanwhile
                self.move_cursor(name, self._moves.get(name, row))
        for owner in filter(None, set(owners)):
            self._tell(partial(owner.failed, failure))
        for _, future in frozen:
            if not future.done():
                future.set_exception(failure)
        self.bounds.failed(error)

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

    # The clock

    async def learn_clock(self) -> None:
        """Note what a synchronised clock says, so that times taken before it was set can be corrected on reading."""
        if not self._clock.is_synced():
            return
        epoch_ms = self._clock.now_ms() - self._clock.monotonic_ms()
        if self._epoch_ms is None or abs(epoch_ms - self._epoch_ms) >= CLOCK_STEP_MS:
            learned = [(epoch_ms, self._gateway_boot)]
            await self._execute(("UPDATE gateway_boots SET epoch_ms = ? WHERE id = ?", learned))
            self._epoch_ms = epoch_ms

    # Cursors

    async def open_cursor(self, name: str, *, start: str) -> Cursor:
        """Return the cursor of that name; a new one starts `now` or at the `oldest` stored row."""
        for cursor in await self.cursors():
            if cursor.name == name:
                return self._up_to_date(cursor)
        position = 0 if start == "oldest" else self.last_row
        await self._execute(("INSERT OR IGNORE INTO cursors (name, position) VALUES (?, ?)", [(name, position)]))
        return Cursor(name, position, None)

    def _up_to_date(self, stored: Cursor) -> Cursor:
        """Add the move that may not be on disk yet: a reader that is restarted goes on where it was."""
        position = max(stored.position, self.bounds.readers.get(stored.name, 0))
        attempt = stored.attempt
        if attempt is not None and attempt.last_row <= position:
            attempt = None
        return Cursor(stored.name, position, attempt)

    async def drop_cursor(self, name: str) -> None:
        """Give up a reader's place; should it come back, it starts anew. Its dead letters stay."""
        self._moves.pop(name, None)
        self.bounds.readers.pop(name, None)
        await self._execute(("DELETE FROM cursors WHERE name = ?", [(name,)]), (FORGET_PROVISIONAL, [(name,)]))

    async def _execute(self, *statements: Statement) -> None:
        """Carry out statements as one transaction; returns when it is on disk. Raises StoreFailed."""
        await self.transact(_Statements(statements))

    async def transact(self, transaction: Transaction) -> None:
        """Carry out a transaction between two commits; returns when it is on disk. Raises StoreFailed."""
        done = self._loop.create_future()
        self._thread.commit(transaction, lambda error: _settle(done, error))
        await done

    async def outside_transaction(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Let the writing thread do what no transaction can hold; returns after it. Raises StoreFailed."""
        done = self._loop.create_future()
        self._thread.call(work, lambda error: _settle(done, error))
        await done

    async def copy_to(self, path: Path, progress: Progress) -> None:
        """Copy the log as it is at the end of the copying; commits go on meanwhile. Raises StoreFailed."""
        done = self._loop.create_future()
        self._thread.copy(path, progress, lambda error: _settle(done, error))
        await done

    async def freeze(self, attempt: Attempt) -> bool:
        """Put an attempt on disk; returns when it is there. Raises StoreFailed.

        False when rows of it have left for want of room since they were read: read again.
        """
        future: asyncio.Future[bool] = self._loop.create_future()
        self._freezes.append((attempt, future))
        if not self._committing and self._due is None:
            self._schedule()
        return await future

    def move_cursor(self, name: str, row: int) -> None:
        """Let the cursor pass `row`; the move rides along with the next commit, or goes alone within a second."""
        self._moves[name] = self.bounds.readers[name] = row
        if self._flush_due is None:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)

    def _flush_moves(self) -> None:
        self._flush_due = None
        if self._moves and not self._committing and self._due is None:
            self._commit()
        elif self._moves:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(StoreFailed(f"The log could not be written: {error}."))


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
class _Statements:
    statements: Sequence[Statement]

    def write(self, db: sqlite3.Connection) -> None:
        for sql, parameters in self.statements:
            db.executemany(sql, parameters)

    def rolled_back(self) -> None:
        """Nothing is kept in memory."""


def _connect(path: Path, settings: StorageSettings) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    except sqlite3.Error as error:
        raise _cannot_open(path, error) from error
    try:
        db.execute("PRAGMA auto_vacuum = incremental")  # for a new file: freed pages can be given back
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA secure_delete = fast")  # what leaves is overwritten where that costs no write
        db.execute(f"PRAGMA synchronous = {settings.synchronous}")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
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
