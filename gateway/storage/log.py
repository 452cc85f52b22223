"""The append-only log of readings, with one named cursor per reader.

Invariants
- an id is never reused and only grows
- `append` returns, and an owner hears `committed`, after the commit is on disk (synchronous=FULL: after the sync)
- (organisation, device, boot_id, seq) is stored once, however often it is sent; the repeat counts as committed
- rows that arrive while a commit runs form the next one, in the order they came
- a cursor's move rides along with the next commit; a frozen attempt is on disk before `freeze` returns
- a cursor that passes provisional rejections confirms them, in the same commit
- stored rows are never rewritten
- a log that turns out damaged is exchanged for a fresh one while it is in use; whoever reads or writes waits for that

How commits are made is in group_commit.py, where readers stand in log_cursors.py, what damage leads to in repair/.
It does not: decide what a valid reading is (parsers, ingest), or drop anything (bounds).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import CLOCK_STEP_MS, StoredReading
from gateway.model.selection import Selection
from gateway.storage.bounds import Bounds
from gateway.storage.commit_thread import CommitThread, Done, Progress, Statement, Statements, Transaction
from gateway.storage.dead_letters import DeadLetters
from gateway.storage.disk import own
from gateway.storage.group_commit import GroupCommit
from gateway.storage.log_cursors import LogCursors
from gateway.storage.log_files import LogFiles, LogStart
from gateway.storage.log_reader import NEWEST, ROWS_LOOKED_AT, LogReader, Page
from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate
from gateway.storage.reclaim import NO_LIMIT
from gateway.storage.repair.care import Care, Tell
from gateway.storage.repair.damage import is_damage, store_failed
from gateway.storage.repair.exchange import Known
from gateway.storage.repair.salvage import Chunk, SalvageState, Shortage, is_copying, visible_row
from gateway.storage.space import WAL_BYTES, WAL_PAGES, Space
from gateway.storage.waiting import Entry, Owner

__all__ = ["Entry", "Log", "Owner"]

_STATEMENTS = (
    256  # kept prepared: one for each number of rows that are inserted at once (see append.py), and the others
)
BUSY_TIMEOUT_S = 10.0  # another program may hold a lock for a moment

_DELIVERED_AT_ONCE = 2_000
_EXCHANGE_S = 30.0  # how long a reader waits for a fresh log

_LEARN = """UPDATE gateway_boots SET epoch_ms = ?
    WHERE id = ? OR machine_boot = (SELECT machine_boot FROM gateway_boots WHERE id = ?)"""
_RECEIVED_BY = """UPDATE gateway_boots SET received_by_ms = ?
    WHERE id < ? AND epoch_ms IS NULL AND received_by_ms IS NULL"""


class Log(LogCursors):
    """See the module's own words. Made by `Log.create`; every method is for the event loop's thread."""

    def __init__(
        self,
        path: Path,
        files: LogFiles,
        start: LogStart,
        settings: StorageSettings,
        dedupe_window_ms: int,
        clock: Clock,
        metrics: Metrics,
        tell: Tell | None,
    ) -> None:
        LogReader.__init__(self, path, files.readers)
        self.salvages: list[SalvageState] = []
        space = Space(settings, path.parent, lambda: {salvage.file for salvage in self.salvages})
        bounds = Bounds(settings, space, self._writer, self._damaged, clock, metrics)
        bounds.lose_until = self._lose_until
        GroupCommit.__init__(self, files, bounds, settings, dedupe_window_ms, clock, metrics, repairs=tell is not None)
        LogCursors.__init__(self)
        self.dead_letters: DeadLetters = DeadLetters(self.fetch, self._execute, self.transact, bounds.dead_letters)
        self._grown: asyncio.Future[None] = self._loop.create_future()
        self._epoch_ms: int | None = None
        self._learning = asyncio.Lock()
        self._boots: list[int] = []
        """Of this process: one more after each exchange."""
        self._exchanges = 0
        self._awaited: list[tuple[int, int]] = []
        """Rows (after, last) that readers wait for as a whole."""
        self._sound = asyncio.Event()
        self._sound.set()
        self.care = Care(self, path, tell or _untold)
        self.clock_learned = 0
        """Grows when stored times are corrected: what somebody has read before is not what it reads now."""
        self._has_learned = asyncio.Event()
        self.uuid = ""
        self.last_row = 0
        """Up to here readers see the log; while a salvage runs, not the newest row."""
        self._begin(start)
        self._gateway_boot = start.gateway_boot

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
        tell: Tell | None = None,
    ) -> AsyncIterator[Self]:
        """Open the log for writing, or create it; leaving the context commits what is pending and closes it.

        With `tell` a damaged log is replaced and salvaged, and it hears of that (see `Care`): for the one gateway of
        this data directory. Raises SchemaTooNew or StoreFailed.
        """
        files = LogFiles(path, partial(_connect, settings=settings), clock, repairs=tell is not None)
        start = await files.open()
        self = cls(path, files, start, settings, dedupe_window_ms, clock, metrics, tell)
        looking_after = asyncio.create_task(self.care.run(), name="log care") if self._repairs else None
        try:
            yield self
        finally:
            await self._drain()
            self.care.stop()
            if looking_after is not None:
                await looking_after
            await files.close()

    def _begin(self, start: LogStart) -> None:
        self.uuid = start.uuid
        self.salvages = start.salvages
        self.bounds.salvaged = start.salvaged
        self._boots.append(start.gateway_boot)
        self._epoch_ms = None
        self._newest = start.newest_row
        self._cursors_lost = start.cursors_lost
        self._show()

    def _show(self) -> None:
        """Let readers see what they may."""
        self.last_row = visible_row(self.salvages, self._newest)
        self._grown.set_result(None)
        self._grown = self._loop.create_future()

    def _grew(self, last_row: int) -> None:
        self._newest = max(self._newest, last_row)
        self._show()

    # Damage: what `Care` needs, see there

    def _damaged(self, words: str) -> None:
        if self._repairs:
            self.care.report(words)

    def _writer(self) -> CommitThread | None:
        """Return who writes the log; None while there is none."""
        return None if self._halted else self._files.writer

    def halt(self) -> None:
        """Begin no commit any more: the log is damaged."""
        self._sound.clear()
        self._halt()

    async def exchange(self, reason: str) -> None:
        """Go on with a fresh log. When that fails, what waits is refused; then this may be tried again."""
        await self._quiet.wait()
        positions = {name: row for name, row in self.bounds.readers.items() if name in self._opened}
        try:
            known = Known(self.uuid, self._newest, positions, self._ends, all_cursors=self._all_cursors_opened)
            start = await self._files.replace(reason, known)
        except Exception as error:
            self._refuse_all(error)
            raise
        self._readers = self._files.readers
        self._exchanges += 1
        self._begin(start)
        self._sound.set()
        self._resume(start.gateway_boot)

    async def salvage(self, chunk: Chunk) -> bool:
        """Write a chunk and let readers see it; when there is no room, only what must be: see salvage.py.

        False when some of it has to wait. A salvage is never the reason that a reading is lost.
        """
        chunk.shortage = None
        if not await self._has_room(chunk.size_bytes):
            if not self.bounds.knows_readers:
                return False
            chunk.shortage = Shortage(
                dict(self.bounds.readers),
                self.bounds.selections,
                self.last_row,
                [*self._awaited],
                self.bounds.must_lose,
                self._clock.now_ms(),
            )
        await self.transact(chunk)
        chunk.done()
        if chunk.is_last:
            self.bounds.salvaged.add(chunk.salvage.file)
        assert chunk.pages is not None
        if chunk.shortage is None or not is_copying(self.salvages):
            self.bounds.lent_bytes = 0
        elif chunk.readers_waited:  # what they were lent before has left
            self.bounds.lent_bytes = chunk.written_bytes
        else:
            self.bounds.lent_bytes += chunk.written_bytes
        self.bounds.note_losses(chunk.losses)
        self._metrics.events_dropped.labels("quarantine", "overflow").inc(chunk.quarantine_lost)
        self.bounds.committed(chunk.pages, chunk.rescued)
        self._grew(chunk.last_row)
        return not chunk.rows

    async def _has_room(self, size_bytes: int) -> bool:
        """Whether there is plenty of room for so much of a salvage; delivered readings leave for it."""
        while not self.bounds.has_plenty(size_bytes):
            if not self.bounds.knows_readers:
                return False
            step = self.bounds.delivered(_DELIVERED_AT_ONCE)
            await self.transact(step)
            if not step.deleted:
                return False
            assert step.pages is not None
            self.bounds.committed(step.pages, 0)
        return True

    @property
    def has_plenty(self) -> bool:
        """Whether there is so much room that somebody who can wait may use some."""
        return self.bounds.has_plenty(0)

    def _lose_until(self) -> int:
        """Return up to where readings may be lost: none that came after a damage before its salvage has ended.

        Those that are still to be salvaged are older; and at its end the damaged log leaves, and gives its room back.
        """
        return min(self.last_row, self.salvages[-1].floor) if self.salvages else NO_LIMIT

    async def _until_sound(self) -> None:
        try:
            async with asyncio.timeout(_EXCHANGE_S):
                while not self._sound.is_set():
                    await self._sound.wait()
        except TimeoutError:
            raise StoreFailed(
                "The log is damaged and could not be replaced yet.", hint=f"Look at the disk that holds {self._path}."
            ) from None

    # Reading

    async def fetch(self, sql: str, parameters: Iterable[object] = (), *, page: bool = False) -> Iterable[sqlite3.Row]:
        """Ask the log; one that turns out to be damaged is exchanged, and the fresh one asked."""
        while True:
            await self._until_sound()
            readers = self._readers
            try:
                return await readers.fetch(sql, parameters, page=page)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                if not self._repairs:
                    raise store_failed(self._path, "The log cannot be read", error) from error
                if readers is self._readers:
                    self._damaged(str(error))

    async def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = NEWEST,
        epochs: Mapping[int, int] | None = None,
    ) -> list[StoredReading]:
        """As `LogReader.read`, when a salvage has brought back what it can up to `until`: none of it is missed."""
        while True:
            exchanges, last = self._exchanges, self.last_row if until is None else until
            await self._until_salvaged(after, last)
            readings = await super().read(after, until=last, limit=limit, max_bytes=max_bytes, epochs=epochs)
            if exchanges == self._exchanges:
                return readings

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
        """As `LogReader.select`, when a salvage has brought back what it can up to `until`."""
        while True:
            exchanges = self._exchanges
            await self._until_salvaged(after, until)
            page = await super().select(
                after,
                until=until,
                selection=selection,
                limit=limit,
                max_bytes=max_bytes,
                epochs=epochs,
                look_at=look_at,
            )
            if exchanges == self._exchanges:
                return page

    async def _until_salvaged(self, after: int, last: int) -> None:
        self._awaited.append((after, last))
        try:
            while is_copying(self.salvages) and self.last_row < last:
                await asyncio.shield(self._grown)
        finally:
            self._awaited.remove((after, last))

    async def wait_beyond(self, row: int) -> None:
        """Return when there is a committed row beyond `row`."""
        while self.last_row <= row:
            await asyncio.shield(self._grown)

    def waited_ms(self, reading: StoredReading, monotonic_ms: int) -> int | None:
        """Return how long the reading has been here; None when it came before this start of the gateway."""
        return monotonic_ms - reading.monotonic_ms if reading.gateway_boot in self._boots else None

    # The clock

    async def learn_clock(self) -> None:
        """Note what a synchronised clock says, so that times taken before it was set can be corrected on reading.

        Costs nothing while there is nothing new; whoever calls it meanwhile waits.
        """
        async with self._learning:
            await self._learn_clock()

    async def _learn_clock(self) -> None:
        now_ms = self._clock.now_ms()
        epoch_ms = now_ms - self._clock.monotonic_ms()
        if not self._clock.is_synced():  # asked last: should the clock be set meanwhile, it says no
            return
        if self._epoch_ms is None or abs(epoch_ms - self._epoch_ms) >= CLOCK_STEP_MS:
            exchanges = self._exchanges
            learned = [(epoch_ms, boot, boot) for boot in self._boots]
            await self._execute((_LEARN, learned), (_RECEIVED_BY, [(now_ms, self._gateway_boot)]))
            if exchanges == self._exchanges:
                self._epoch_ms = epoch_ms
            self.clock_learned += 1
            self._has_learned.set()
            self._has_learned = asyncio.Event()

    async def wait_clock_learned(self, seen: int) -> None:
        """Return when `clock_learned` has grown beyond that."""
        while self.clock_learned <= seen:
            await self._has_learned.wait()

    # What others have the writing thread do

    async def _execute(self, *statements: Statement) -> None:
        """Carry out statements as one transaction; returns when it is on disk. Raises StoreFailed."""
        await self.transact(Statements(statements))

    async def transact(self, transaction: Transaction) -> None:
        """Carry out a transaction between two commits; returns when it is on disk. Raises StoreFailed."""
        await self._ask_writer(lambda writer, done: writer.commit(transaction, done))

    async def outside_transaction(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Let the writing thread do what no transaction can hold; returns after it. Raises StoreFailed."""
        await self._ask_writer(lambda writer, done: writer.call(work, done))

    async def copy_to(self, path: Path, progress: Progress) -> None:
        """Copy the log as it is at the end of the copying; commits go on meanwhile. Raises StoreFailed."""
        await self._ask_writer(lambda writer, done: writer.copy(path, progress, done))

    async def _ask_writer(self, ask: Callable[[CommitThread, Done], None]) -> None:
        await self._until_sound()
        asked = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if asked.done():
                return
            if error is None:
                asked.set_result(None)
            else:
                asked.set_exception(error)

        ask(self._files.writer, done)
        try:
            await asked
        except Exception as error:
            if is_damage(error):
                self._damaged(str(error))
            raise store_failed(self._path, "The log could not be written", error) from error


def _untold(_: str) -> None:
    """Nobody hears: a log that is not repaired is left as it is."""


def _connect(path: Path, settings: StorageSettings) -> sqlite3.Connection:
    own(path)
    try:
        db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=_STATEMENTS
        )
    except sqlite3.Error as error:
        raise store_failed(path, "The log cannot be opened", error) from error
    try:
        db.execute("PRAGMA auto_vacuum = incremental")  # for a new file: freed pages can be given back
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA secure_delete = fast")  # what leaves is overwritten where that costs no write
        db.execute(f"PRAGMA synchronous = {settings.synchronous}")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        migrate(db, LOG_MIGRATIONS, path)
        # For what SQLite keeps to undo a statement with several rows: on disk, each page would be written twice. Only
        # now, as a migration may sort a whole log.
        db.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error as error:
        db.close()
        raise store_failed(path, "The log cannot be opened", error) from error
    except BaseException:
        db.close()
        raise
    return db
