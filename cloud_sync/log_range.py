"""One stretch of the log that a destination is still to get, in order: whatever comes, or a backlog with an end.

A destination has one that is open, and, when it catches up newest first, perhaps a backlog that newer readings have
overtaken. Each has its own cursor on disk, its own frozen attempt, and its own search for a culprit.
"""

from dataclasses import replace

from cloud_sync.changes import Changes
from cloud_sync.frozen_batches import FrozenBatches
from cloud_sync.sender import Encoded
from cloud_sync.splitting import Splitting
from gateway.model.reading import StoredReading
from gateway.model.selection import Selection
from gateway.storage.cursors import Cursor
from gateway.storage.log import Log
from gateway.storage.log_reader import Page


class LogRange:
    """See the module's own words; for the forwarder's task."""

    def __init__(
        self, cursor: Cursor, log: Log, selection: Selection, changes: Changes | None, batches: FrozenBatches
    ) -> None:
        self.cursor = cursor.name
        self.position = cursor.position
        """What is acknowledged, left out, or a dead letter."""
        self.reach = cursor.position
        """And what was refused provisionally."""
        self.until = cursor.until
        """The end of a backlog; None when there is none."""
        self.changes = changes
        """What it knows of each sensor; None when every reading is wanted."""
        self.parts = Splitting()
        self.batches = batches
        self.oldest_ms: int | None = None
        """When the oldest of what is to be delivered was received, as far as that is known."""
        self._log = log
        self._selection = selection

    @property
    def end(self) -> int:
        """The last row of it that there is now."""
        return self._log.last_row if self.until is None else min(self.until, self._log.last_row)

    @property
    def has_more(self) -> bool:
        """Whether there are rows that have had no answer."""
        return self.end > self.reach

    @property
    def is_read(self) -> bool:
        """Whether nothing can come any more that has had no answer."""
        return self.until is not None and self.reach >= self.until

    async def thaw(self, cursor: Cursor) -> Encoded | None:
        """Make the batch that was under way; None when there is none, or it cannot be the same."""
        return await self.batches.thaw(cursor.attempt) if cursor.attempt else None

    async def select(self, *, limit: int, max_bytes: int, until: int | None = None) -> Page:
        """Read what is wanted of what comes next."""
        page = await self._log.select(
            self.reach,
            until=max(self.end if until is None else until, self.reach),  # while a salvage runs, the end is behind
            selection=self._selection,
            limit=limit,
            max_bytes=max_bytes,
        )
        return page if self.changes is None else replace(page, readings=self.changes.choose(page.readings))

    def pass_over(self, row: int) -> None:
        """Move the cursor: everything up to that row is dealt with."""
        if row > self.position:
            self._log.move_cursor(self.cursor, row)
        self.position = self.reach = row

    def withdraw(self) -> None:
        """Begin again at the cursor: the rejections behind it were not the readings' fault."""
        self.reach = self.position
        self.parts.clear()

    def note_oldest(self, reading: StoredReading) -> None:
        """Hear what is the first of what is to be delivered, but for what was refused provisionally."""
        if self.reach == self.position:
            self.oldest_ms = reading.received_at_ms
