"""Keeps the store within its bounds, and says so when it cannot.

- after every commit it is known how much room is left; the log grows beyond its bounds by one batch at most
- rows that every active reader has passed make room first; then `drop_oldest` loses the oldest readings and counts
  them per destination, or `reject` lets nothing more in until there is room
- retention takes delivered readings that are older than asked, and only by a clock that is synchronised
- a disk that others have filled is left again with the ballast's help; when it has room again, all goes on by itself
- while a damaged log is exchanged nothing is done to it; one that was salvaged is removed before anything else leaves
- while a damaged log is salvaged: nothing newer is lost before its readings (salvage.py says what becomes of them)
- freed pages go back to the file system little by little, while nothing else waits
"""

import errno
import logging
import sqlite3
from collections.abc import Callable

from gateway.clock import Clock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFull
from gateway.model.selection import Selection
from gateway.storage.commit_thread import CommitThread, Done, Transaction
from gateway.storage.dead_letter_cap import DeadLetterCap
from gateway.storage.quarantine_cap import TrimQuarantine
from gateway.storage.reclaim import NO_LIMIT, Loss, Reclaim
from gateway.storage.repair.damage import is_damage
from gateway.storage.space import HIGH_WATER_BYTES, LOW_WATER_BYTES, Pages, Space
from gateway.storage.unused_metadata import DropUnusedMetadata

logger = logging.getLogger(__name__)

_SQLITE_FULL = 13
_NO_PAGES = Pages(4096, 0, 0)
_ROWS_PER_STEP = 2_000
_ROWS_PER_STEP_AT_MOST = 20_000
_LARGEST_SHARE = 2  # of a payload, that it takes of the file: one of a little more than half a page has it for itself
_LARGEST_ROW_BYTES = 200  # what a row takes besides, with its place in the index
_DAY_MS = 86_400_000
_SHRINK_FROM_BYTES = 16_000_000
_SHRINK = "PRAGMA incremental_vacuum(500)"
_START_WAL_ANEW = "PRAGMA wal_checkpoint(RESTART)"


class Bounds:
    """See the module's own words. For the event loop's thread; the work is done by the log's writing thread."""

    def __init__(
        self,
        settings: StorageSettings,
        space: Space,
        writer: Callable[[], CommitThread | None],
        damaged: Callable[[str], None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._space = space
        self._writer = writer
        self._damaged = damaged
        self._clock = clock
        self._metrics = metrics
        self._pages = _NO_PAGES
        self._unseen_bytes = 0
        """What commits have added at most that did not say how the file is used."""
        self._looks = True
        """Whether the next commit says how the file is used."""
        self._enough_for = 0
        """How much the log may hold before a commit looks at the disk again: half of what there was room for at the
        last look, as others take from it too. To look takes as long as a commit of ten readings does; `tick` does it
        each second."""
        self._making_room = False
        self._retaining = False
        self._quarantine_exceeds = True  # perhaps: the cap may have been lowered
        self._dead_letters_exceed = True  # perhaps: the cap may have been lowered
        self._metadata_due_ms = 0
        self.interned_metadata: dict[str, int] = {}
        """The rows of texts that are known in memory; shared with whoever writes readings."""
        self.dead_letters = DeadLetterCap(settings.dead_letters_max_bytes, clock, metrics)
        self.readers: dict[str, int] = {}
        """The active readers, with the newest position that is known of each."""
        self.selections: dict[str, Selection] = {}
        """What those want that do not want everything."""
        self.salvaged: set[str] = set()
        """Damaged logs of which the log itself says that all that is readable has been copied."""
        self.lose_until: Callable[[], int] = lambda: NO_LIMIT
        """Up to where readings may be lost now."""
        self.lent_bytes = 0
        """What a salvage has written for readers that wait, without room: neither held against the rest nor lost."""
        self.knows_readers = False
        """Whether all active readers are known: whoever calls `tick` has named them before. Until then nothing leaves,
        as in a command that has the log to itself: what a reader needs would be taken for delivered."""
        self.full: StoreFull | None = None
        """Why nothing more is taken in; None while it is."""
        self.on_full: list[Callable[[], None]] = []

    def committed(self, pages: Pages | None, rows: int, payload_bytes: int = 0) -> None:
        """Hear how the file is used after a commit of so many rows; None when that commit has not looked."""
        if pages is None:
            self._unseen_bytes += bytes_at_most(rows, payload_bytes)
            return
        self._see(pages)
        if self._used_bytes < self._enough_for and self.full is None:
            return
        room = self._room_bytes()
        if room < LOW_WATER_BYTES:
            self._make_room(rows)
        elif self.full is not None and room >= HIGH_WATER_BYTES:
            self._has_room()

    def must_see_pages(self, unheard_bytes: int = 0) -> bool:
        """Whether the next commit is to say how the file is used: each second, and before the room is used up.

        It takes as long as to write a few readings. Asked by the writing thread, too, which may have committed so much
        of which nothing was heard here.
        """
        return self._looks or self.full is not None or self._used_bytes + unheard_bytes >= self._enough_for

    def _see(self, pages: Pages) -> None:
        self._pages, self._unseen_bytes, self._looks = pages, 0, False

    @property
    def _used_bytes(self) -> int:
        """What rows and indexes take at most."""
        return self._pages.live_bytes + self._unseen_bytes

    def drop_wrecks(self) -> bool:
        """Remove damaged logs that were salvaged; False while the log is exchanged, as nothing is known then."""
        if self._writer() is None:
            return False
        self._space.drop_wrecks(self.salvaged)
        return True

    def failed(self, error: Exception) -> None:
        """Hear of a failed commit: a full disk is left again."""
        if _is_disk_full(error) or _is_disk_full(error.__cause__):
            self._leave_full_disk()
            self._make_room(0)

    def tick(self) -> None:
        """Do what is due; called about once a second."""
        self.knows_readers = True
        if self._writer() is None:
            return
        self._looks = True
        if self._room_bytes() < LOW_WATER_BYTES or self.full is not None:
            self._make_room(0)
            return
        self._space.keep_ballast()
        if self._settings.retention_days and self._clock.is_synced() and not self._retaining:
            self._retain()
        if self._quarantine_exceeds:
            self._trim_quarantine()
        if self._dead_letters_exceed:
            self._trim_dead_letters()
        if self._clock.monotonic_ms() >= self._metadata_due_ms:
            self._drop_unused_metadata()
        if self._pages.free_bytes > max(_SHRINK_FROM_BYTES, self._pages.live_bytes // 4):
            self._execute(_SHRINK)

    def suspend(self) -> None:
        """Hear that the log is damaged: what is under way is the last that is done to it."""
        self._forget_pages()

    def resume(self) -> None:
        """Go on with a fresh log, of which no commit has told anything yet."""
        self._forget_pages()
        self._making_room = self._retaining = False
        self.lent_bytes = 0

    def _forget_pages(self) -> None:
        self._see(_NO_PAGES)
        self._enough_for = 0

    def has_plenty(self, beyond: int) -> bool:
        """Whether there is so much room that somebody who can wait may use so many bytes of it."""
        return self._space.room_bytes(self._pages) - self._unseen_bytes >= HIGH_WATER_BYTES + beyond

    @property
    def must_lose(self) -> bool:
        """Whether the oldest readings have to be lost now, and none that may be is in the log itself."""
        return self.full is not None and self._settings.overflow == "drop_oldest"

    def _room_bytes(self) -> int:
        room = self._space.room_bytes(self._pages) - self._unseen_bytes + self.lent_bytes
        self._enough_for = self._used_bytes + (room - HIGH_WATER_BYTES) // 2
        return room

    def delivered(self, rows: int) -> Reclaim:
        """Return a step that lets delivered rows leave, for somebody else to commit."""
        return Reclaim(self.readers, rows, may_lose=False, now_ms=self._clock.now_ms())

    def _commit(self, transaction: Transaction, done: Done) -> None:
        writer = self._writer()
        if writer is not None:
            writer.commit(transaction, lambda error: self._settle(done, error))

    def _settle(self, done: Done, error: Exception | None) -> None:
        if error is not None and is_damage(error):
            self._damaged(str(error))
        done(error)

    def _execute(self, sql: str) -> None:
        writer = self._writer()
        if writer is not None:
            writer.execute(sql, lambda error: self._damaged(str(error)) if is_damage(error) else None)

    def _leave_full_disk(self) -> bool:
        """Make it possible to write again; False when there was nothing left to give."""
        given = self._space.drop_ballast()
        self._execute(_START_WAL_ANEW)  # what it takes already is used again
        return given

    def _make_room(self, rows: int) -> None:
        """Let rows leave, step by step, until there is room; `rows` were stored by the last commit."""
        if not self._making_room and self.knows_readers and self._writer() is not None:
            self._making_room = True
            self.drop_wrecks()
            self._reclaim(min(_ROWS_PER_STEP + 2 * rows, _ROWS_PER_STEP_AT_MOST), may_lose=False)

    def _reclaim(self, rows: int, *, may_lose: bool) -> None:
        if may_lose and self._space.drop_wrecks(self.salvaged):  # a salvage has just ended: first what costs nobody
            may_lose = False
        step = Reclaim(
            self.readers,
            rows,
            may_lose=may_lose,
            now_ms=self._clock.now_ms(),
            lose_until=self.lose_until(),
            selections=self.selections,
        )
        self._commit(step, lambda error: self._reclaimed(step, error))

    def _reclaimed(self, step: Reclaim, error: Exception | None) -> None:
        """Go on until there is room, nothing may leave any more, or the disk fails."""
        if step.pages is not None:
            self._see(step.pages)
        self.note_losses(step.losses)
        if self._writer() is None:
            self._making_room = False
        elif error is None and self._room_bytes() >= HIGH_WATER_BYTES:
            self._making_room = False
            self._has_room()
        elif error is None and step.deleted:
            self._reclaim(step.rows, may_lose=step.may_lose)
        elif error is None and not step.may_lose and self._settings.overflow == "drop_oldest" and not self.lent_bytes:
            self._reclaim(step.rows, may_lose=True)
        elif error is not None and _is_disk_full(error) and self._leave_full_disk():
            self._reclaim(step.rows, may_lose=step.may_lose)
        else:
            self._making_room = False
            self._has_no_room()

    def _has_room(self) -> None:
        if self.full is not None:
            logger.warning("the store has room again: readings are taken in")
            self.full = None

    def _has_no_room(self) -> None:
        if self.full is not None:
            return
        self.full = StoreFull(
            "The store is full: no reading is taken in until there is room.",
            hint="Free some disk space, raise storage.max_bytes, or repair the destinations that are behind.",
        )
        logger.error("%s", self.full.message, extra={"disk_free_bytes": self._space.disk_free_bytes()})
        for hear in self.on_full:
            hear()

    def note_losses(self, losses: list[Loss]) -> None:
        """Say what destinations will never get."""
        for loss in losses:
            self._metrics.events_dropped.labels(loss.destination, "overflow").inc(loss.readings)
            logger.warning(
                "readings lost for want of room",
                extra={
                    "destination": loss.destination,
                    "readings": loss.readings,
                    "first_row": loss.first_row,
                    "last_row": loss.last_row,
                },
            )

    def _retain(self) -> None:
        self._retaining = True
        before = self._clock.now_ms() - round(self._settings.retention_days * _DAY_MS)
        step = Reclaim(
            self.readers, _ROWS_PER_STEP, may_lose=False, now_ms=self._clock.now_ms(), received_before_ms=before
        )

        def done(error: Exception | None) -> None:
            self._retaining = False
            if error is None and step.pages is not None:
                self._see(step.pages)
                if step.deleted == step.rows:
                    self._retain()  # more may be old enough

        self._commit(step, done)

    def _trim_quarantine(self) -> None:
        """After a start; later each commit that adds some keeps the cap itself."""
        self._quarantine_exceeds = False
        step = TrimQuarantine(self._settings.quarantine_max_bytes)

        def done(error: Exception | None) -> None:
            self._quarantine_exceeds = error is not None
            self._metrics.events_dropped.labels("quarantine", "overflow").inc(step.deleted)

        self._commit(step, done)

    def _trim_dead_letters(self) -> None:
        """After a start; later each commit that adds some keeps the cap itself."""
        self._dead_letters_exceed = False
        step = self.dead_letters.trim()

        def done(error: Exception | None) -> None:
            if error is not None or step.losses:
                self._dead_letters_exceed = True  # perhaps not the last of it
            self.dead_letters.report(step)

        self._commit(step, done)

    def _drop_unused_metadata(self) -> None:
        """After a start, and once a day."""
        self._metadata_due_ms = self._clock.monotonic_ms() + _DAY_MS
        step = DropUnusedMetadata(self.interned_metadata)

        def done(error: Exception | None) -> None:
            if error is None and step.pages is not None:
                self._see(step.pages)
            if not step.is_done:
                self._metadata_due_ms = self._clock.monotonic_ms()

        self._commit(step, done)


def bytes_at_most(rows: int, payload_bytes: int) -> int:
    """Return what readings with so much payload add to the file at most."""
    return _LARGEST_SHARE * payload_bytes + _LARGEST_ROW_BYTES * rows


def _is_disk_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == _SQLITE_FULL
