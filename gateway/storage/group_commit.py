"""The appending half of the log: what waits is committed together, and everybody hears of it in order.

- rows that arrive while a commit runs form the next one, in the order they came; it begins when that one ends
- a message is stored whole or not, and its owner hears once
- what a damaged log did not take is put in front of what waits, and goes into the fresh one
- a cursor's move rides along with the next commit, or goes alone within a second
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, Stream
from gateway.storage.append import Append
from gateway.storage.bounds import Bounds, bytes_at_most
from gateway.storage.commit_thread import Following
from gateway.storage.cursors import Attempt
from gateway.storage.log_files import LogFiles
from gateway.storage.quarantine_cap import TrimQuarantine
from gateway.storage.repair.damage import is_damage, store_failed
from gateway.storage.waiting import Batch, Entry, Owner, Waiting

logger = logging.getLogger(__name__)

_STREAMS_IN_MEMORY = 20_000
_METADATA_IN_MEMORY = 10_000
_MOVE_FLUSH_S = 1.0  # a cursor move that no commit takes along is written by itself after this long


class GroupCommit(ABC):
    """See the module's own words. The half of `Log` that writes.

    Every method is for the event loop's thread, but for `_following` and what it calls.
    """

    _path: Path

    def __init__(
        self,
        files: LogFiles,
        bounds: Bounds,
        settings: StorageSettings,
        dedupe_window_ms: int,
        clock: Clock,
        metrics: Metrics,
        *,
        repairs: bool,
    ) -> None:
        self._files = files
        self._repairs = repairs
        self.bounds = bounds
        self._settings = settings
        self._dedupe_window_ms = dedupe_window_ms
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._streams: OrderedDict[tuple[str, str, str], Stream] = OrderedDict()
        self._interned_metadata = bounds.interned_metadata
        self.erasures = 0
        """Grows when readings are erased: what somebody has read before may be gone."""
        self.erased_streams: set[int] = set()
        """Rows that streams had before they were erased; whoever still knows one looks again."""
        self._waiting = Waiting(settings.max_commit_readings)
        self._committing = False
        self._begun_bytes = 0
        """What all batches take at most that have been begun."""
        self._ended_bytes = 0
        """The same of those whose end the event loop has heard of."""
        self._closing = False
        self._halted = False
        self._quiet = asyncio.Event()
        """Set while the log is halted and no commit runs."""
        self._due: asyncio.Handle | None = None
        self._flush_due: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._gateway_boot = 0
        self.commits = 0
        """Commits that have ended, well or not."""
        self.stored = 0
        """Readings stored since the log was opened."""
        self.duplicates = 0
        """Readings that came again since the log was opened."""
        self._irreplaceable: StoreFailed | None = None
        """Why a damaged log could not be replaced yet: until it is, nothing is kept waiting."""
        self.failure: StoreFailed | None = None
        """The newest commit's error; None while commits succeed."""

    @abstractmethod
    def _grew(self, last_row: int) -> None:
        """Hear that new readings are on disk."""

    @abstractmethod
    def _damaged(self, words: str) -> None:
        """Hear that the log is damaged; it calls `_halt` when that is news."""

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

    @property
    def waiting_bytes(self) -> int:
        """Payload of what waits for the next commit; the one under way has a bound of its own."""
        return self._waiting.size_bytes

    def submit(self, entry: Entry, owner: Owner | None) -> None:
        """Take an entry into the next commit; its owner hears when it is on disk.

        A message that makes several entries submits all but the last with None, so that it is acknowledged once.
        """
        refusal = self.bounds.full or self._irreplaceable
        if refusal is not None:
            if owner is not None:
                owner.failed(refusal)
            return
        self._waiting.add(entry, owner)
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
        return len(self._waiting)

    async def freeze(self, attempt: Attempt) -> bool:
        """Put an attempt on disk; returns when it is there. Raises StoreFailed.

        False when rows of it are not there any more, for want of room or since a damaged log is being salvaged: read
        again.
        """
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.freeze((attempt, future))
        if not self._committing and self._due is None:
            self._schedule()
        return await future

    def move_cursor(self, name: str, row: int) -> None:
        """Let the cursor pass `row`; the move rides along with the next commit, or goes alone within a second."""
        self.bounds.readers[name] = row
        self._waiting.move(name, row)
        if self._flush_due is None:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)

    def _flush_moves(self) -> None:
        self._flush_due = None
        moves = self._waiting.moves
        if moves and not self._committing and self._due is None:
            self._commit()
        elif moves:
            self._flush_due = self._loop.call_later(_MOVE_FLUSH_S, self._flush_moves)

    # One commit after another

    def _schedule(self) -> None:
        """Commit what waits: at once, or (to write less often) together with what comes within the delay."""
        delay_ms = self._settings.commit_max_delay_ms
        self._idle.clear()
        if delay_ms and not self._closing:
            self._due = self._loop.call_later(delay_ms / 1000, self._commit)
        else:
            self._due = self._loop.call_soon(self._commit)

    def hurry(self) -> None:
        """Commit what waits for company now, as somebody waits for it."""
        if self._due is not None and self._settings.commit_max_delay_ms:
            self._commit()
        elif self._committing:
            self._waiting.hurry()

    def _commit(self) -> None:
        """Have what waits written as one transaction, and then, as long as somebody waits, the next."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        self._committing = True
        self._idle.clear()
        self._files.writer.commit_on(self._transaction_of(self._waiting.take()), self._following)

    def _following(self) -> Following | None:
        """Return the next transaction, to the writing thread that has just ended one; in that thread.

        With few boards a commit takes no longer than it would wait here for the event loop to hand it over. Not where
        company is to be waited for, and not before the event loop has seen that there is room, or that the log is
        damaged.
        """
        unheard_bytes = self._begun_bytes - self._ended_bytes
        if self._halted or self._settings.commit_max_delay_ms or self.bounds.must_see_pages(unheard_bytes):
            return None
        batch = self._waiting.take_complete()
        return None if batch is None else self._transaction_of(batch)

    def _transaction_of(self, batch: Batch) -> Following:
        """Return what writes a batch, and who hears of it. For either thread, while no batch is being written."""
        if len(self._interned_metadata) > _METADATA_IN_MEMORY:
            self._interned_metadata.clear()
        self._begun_bytes += bytes_at_most(len(batch.entries), batch.size_bytes)
        append = Append(
            self._gateway_boot,
            self._dedupe_window_ms,
            self._interned_metadata,
            self.erased_streams,
            batch.entries,
            batch.moves,
            [attempt for attempt, _ in batch.freezes],
            TrimQuarantine(self._settings.quarantine_max_bytes),
            sees_pages=self.bounds.must_see_pages(),
        )
        return append, partial(self._committed, append, batch)

    def _committed(self, append: Append, batch: Batch, error: Exception | None, goes_on: bool) -> None:
        """Hear how a transaction has ended, and whether the writing thread goes on with the next by itself."""
        self._committing = goes_on
        self.commits += 1
        if error is None:
            if append.entries:  # that a cursor could be moved does not prove that a reading can be stored
                self.failure = None
            self._count(append)
            self.bounds.committed(append.pages, len(append.entries), batch.size_bytes)
        elif is_damage(error) and self._repairs:
            moves = {name: self.bounds.readers[name] for name in append.moves if name in self.bounds.readers}
            self._waiting.put_back(batch, moves)
            self._damaged(str(error))
        else:
            self._refuse(batch, error)
        self._ended_bytes += bytes_at_most(len(batch.entries), batch.size_bytes)
        self._go_on()
        if error is None:  # told last: meanwhile the disk works on what came after
            self._tell_all(append, batch)

    def _tell_all(self, append: Append, batch: Batch) -> None:
        """Tell everybody that a batch is on disk."""
        for owner, count in Counter(batch.owners).items():
            if owner is not None:
                self._tell(partial(owner.committed, count))
        for attempt, future in batch.freezes:
            if not future.done():
                future.set_result(attempt.batch_id in append.frozen)
        if append.inserted:
            self._grew(append.last_row)

    def _go_on(self) -> None:
        """Commit what waits, unless a damaged log has to be exchanged first."""
        if self._committing:
            return
        if self._halted:
            self._committing = True  # so that nothing begins a commit
            self._quiet.set()
        elif self._waiting and (self._waiting.is_due or not self._settings.commit_max_delay_ms):
            self._commit()
        elif self._waiting:
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
        if append.trim.deleted:
            self._metrics.events_dropped.labels("quarantine", "overflow").inc(append.trim.deleted)
        now = self._clock.monotonic_ms()
        for received, times in append.received.items():
            self._metrics.latency.observe((now - received) / 1000, times)

    def _refuse(self, batch: Batch, error: Exception) -> None:
        failure = store_failed(self._path, "The log could not be written", error)
        if self.failure is None:
            logger.error("commit failed: %s", error, extra={"path": str(self._path)})
        self.failure = failure
        self._metrics.errors.labels("store").inc(len(batch.entries))
        for name in batch.moves:  # a move is not lost: it rides along with a later commit
            if name in self.bounds.readers:  # else it was dropped meanwhile
                self.move_cursor(name, self.bounds.readers[name])
        self._fail(batch, failure)
        self.bounds.failed(error)

    def _fail(self, batch: Batch, failure: StoreFailed) -> None:
        """Tell everybody that a batch is not on disk."""
        for owner in filter(None, set(batch.owners)):
            self._tell(partial(owner.failed, failure))
        for _, future in batch.freezes:
            if not future.done():
                future.set_exception(failure)

    async def _drain(self) -> None:
        """Commit what is pending, as closing must."""
        self._closing = True
        while self._committing or self._waiting or self._waiting.moves:
            if not self._committing:
                self._commit()
            await self._idle.wait()
            if self.failure is not None:
                while self._waiting:
                    self._fail(self._waiting.take(), self.failure)
                break
            if self._halted:  # the damaged log could not be exchanged
                break

    # Damage: no commit begins while the log is exchanged

    def _halt(self) -> None:
        self._halted = True
        self._quiet.clear()
        self.bounds.suspend()
        if not self._committing:
            if self._due is not None:
                self._due.cancel()
                self._due = None
            self._idle.clear()
            self._go_on()

    def _refuse_all(self, error: Exception) -> None:
        """Refuse what waits and what comes: there is no log that could take it."""
        self._irreplaceable = store_failed(self._path, "The damaged log could not be replaced yet", error)
        while self._waiting:
            self._refuse(self._waiting.take(), error)
        self.bounds.failed(error)
        self._idle.set()

    def _resume(self, gateway_boot: int) -> None:
        """Go on with a fresh log: it has other numbers."""
        self._gateway_boot = gateway_boot
        for stream in [*self._streams.values(), *(e.stream for e in self._waiting.entries if type(e) is NewReading)]:
            stream.row = None
        self.erased_streams.clear()
        self._interned_metadata.clear()
        self._halted = self._committing = False
        self._irreplaceable = None
        self.bounds.resume()
        self._go_on()


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
