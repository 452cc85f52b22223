"""The appending half of the log: what waits is committed together, and everybody hears of it in order.

- rows that arrive while a commit runs form the next one, in the order they came
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
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewQuarantine, NewReading, Stream
from gateway.storage.append import Append
from gateway.storage.bounds import Bounds
from gateway.storage.cursors import Attempt
from gateway.storage.log_files import LogFiles
from gateway.storage.quarantine_cap import TrimQuarantine
from gateway.storage.repair.damage import is_damage, store_failed

logger = logging.getLogger(__name__)

Entry = NewReading | NewQuarantine
Freeze = tuple[Attempt, "asyncio.Future[bool]"]

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


class GroupCommit(ABC):
    """See the module's own words. The half of `Log` that writes; every method is for the event loop's thread."""

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
        self._entries: list[Entry] = []
        self._bytes = 0
        """Payload of the entries."""
        self._owners: list[Owner | None] = []  # one for each entry; None where another entry of its message follows
        self._moves: dict[str, int] = {}
        self._freezes: list[Freeze] = []
        self._committing = False
        self._left_over = False
        """Whether a commit was too small for all that had waited long enough."""
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
        """What waits for the next commit; the one under way has a bound of its own."""
        return self._bytes

    def submit(self, entry: Entry, owner: Owner | None) -> None:
        """Take an entry into the next commit; its owner hears when it is on disk.

        A message that makes several entries submits all but the last with None, so that it is acknowledged once.
        """
        refusal = self.bounds.full or self._irreplaceable
        if refusal is not None:
            if owner is not None:
                owner.failed(refusal)
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

    async def freeze(self, attempt: Attempt) -> bool:
        """Put an attempt on disk; returns when it is there. Raises StoreFailed.

        False when rows of it are not there any more, for want of room or since a damaged log is being salvaged: read
        again.
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

    def _commit(self) -> None:
        """Hand over what waits as one transaction."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if len(self._interned_metadata) > _METADATA_IN_MEMORY:
            self._interned_metadata.clear()
        append, owners, frozen = self._next_append()
        self._committing = True
        self._idle.clear()
        self._files.writer.commit(append, lambda error: self._committed(append, owners, frozen, error))

    def _next_append(self) -> tuple[Append, list[Owner | None], list[Freeze]]:
        """Take what waits, as one transaction."""
        size = self._next_size()
        append = Append(
            self._gateway_boot,
            self._dedupe_window_ms,
            self._interned_metadata,
            self.erased_streams,
            self._entries[:size],
            self._moves,
            [attempt for attempt, _ in self._freezes],
            TrimQuarantine(self._settings.quarantine_max_bytes),
        )
        owners, frozen = self._owners[:size], self._freezes
        self._entries, self._owners = self._entries[size:], self._owners[size:]
        self._bytes = _payload_bytes(self._entries)
        self._moves, self._freezes = {}, []
        self._left_over = bool(self._entries)
        return append, owners, frozen

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
        self, append: Append, owners: list[Owner | None], frozen: list[Freeze], error: Exception | None
    ) -> None:
        self._committing = False
        self.commits += 1
        if error is None:
            if append.entries:  # that a cursor could be moved does not prove that a reading can be stored
                self.failure = None
            self._count(append)
            assert append.pages is not None
            self.bounds.committed(append.pages, len(append.entries))
            for owner, count in Counter(owners).items():
                if owner is not None:
                    self._tell(partial(owner.committed, count))
            for attempt, future in frozen:
                if not future.done():
                    future.set_result(attempt.batch_id in append.frozen)
            if append.inserted:
                self._grew(append.last_row)
        elif is_damage(error) and self._repairs:
            self._take_back(append, owners, frozen)
            self._damaged(str(error))
        else:
            self._refuse(append, owners, frozen, error)
        self._go_on()

    def _go_on(self) -> None:
        """Commit what waits, unless a damaged log has to be exchanged first."""
        if self._halted:
            self._committing = True  # so that nothing begins a commit
            self._quiet.set()
        elif self._left_over:
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
        if append.trim.deleted:
            self._metrics.events_dropped.labels("quarantine", "overflow").inc(append.trim.deleted)
        now = self._clock.monotonic_ms()
        for received, times in append.received.items():
            self._metrics.latency.observe((now - received) / 1000, times)

    def _refuse(self, append: Append, owners: list[Owner | None], frozen: list[Freeze], error: Exception) -> None:
        failure = store_failed(self._path, "The log could not be written", error)
        if self.failure is None:
            logger.error("commit failed: %s", error, extra={"path": str(self._path)})
        self.failure = failure
        self._metrics.errors.labels("store").inc(len(append.entries))
        for name in append.moves:  # a move is not lost: it rides along with a later commit
            if name in self.bounds.readers:  # else it was dropped meanwhile
                self.move_cursor(name, self.bounds.readers[name])
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

    def _take_back(self, append: Append, owners: list[Owner | None], frozen: list[Freeze]) -> None:
        """Put what a damaged log did not take in front of what waits for the next commit."""
        self._entries = append.entries + self._entries
        self._owners = owners + self._owners
        self._bytes = _payload_bytes(self._entries)
        self._moves |= {name: self.bounds.readers[name] for name in append.moves if name in self.bounds.readers}
        self._freezes = frozen + self._freezes

    def _refuse_all(self, error: Exception) -> None:
        """Refuse what waits and what comes: there is no log that could take it."""
        self._irreplaceable = store_failed(self._path, "The damaged log could not be replaced yet", error)
        while self._entries or self._freezes:
            self._refuse(*self._next_append(), error)
        self.bounds.failed(error)
        self._idle.set()

    def _resume(self, gateway_boot: int) -> None:
        """Go on with a fresh log: it has other numbers."""
        self._gateway_boot = gateway_boot
        for stream in [*self._streams.values(), *(e.stream for e in self._entries if type(e) is NewReading)]:
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


def _payload_bytes(entries: list[Entry]) -> int:
    return sum(len(entry.payload) for entry in entries)
