"""Batches of one destination: each is on disk before its first byte leaves, so that a retry can be the very same.

- a batch that was under way is made again after a restart, byte for byte, or not at all: then its readings go out anew
- one that surely has not arrived is given up when the log learns what time it was: its times would be wrong
- which of its readings are `historical` is frozen with it: those that had waited longer than the destination's own pace
  explains, that came before the gateway was started, or that newer ones have overtaken
- one whose readings have been erased does not leave
"""

import json
import logging

from cloud_sync.contract import Outcome
from cloud_sync.sender import Encoded, Sender, may_have_arrived, new_batch_id
from gateway.clock import Clock
from gateway.model.reading import StoredReading
from gateway.model.selection import Selection
from gateway.storage.cursors import Attempt, destination_of
from gateway.storage.log import Log
from gateway.storage.log_reader import Page

HISTORICAL_AFTER_MS = 60_000
"""A reading that has waited this long beyond the least time between two requests was kept by something."""


class OutdatedTimes(Exception):
    """A batch has wrong times and has not arrived: it is made again, from the same place and with a new id."""


class FrozenBatches:
    """See the module's own words. One batch is under way at a time."""

    def __init__(
        self,
        cursor: str,
        selection: Selection,
        log: Log,
        sender: Sender,
        clock: Clock,
        logger: logging.Logger,
        *,
        min_interval_s: float,
    ) -> None:
        self._cursor = cursor
        self._is_backlog = destination_of(cursor) != cursor
        self._patience_ms = HISTORICAL_AFTER_MS + min_interval_s * 1000
        self._selection = selection
        self._log = log
        self._sender = sender
        self._clock = clock
        self._logger = logger
        self._may_have_arrived = False
        self._clock_learned = 0
        """Of the log, as of when the batch was read."""
        self._erasures = 0
        """Of the log, as of when what is in memory was last known to be there."""

    async def begin(self) -> None:
        """Hear that readings for another batch are about to be read. Raises StoreFailed."""
        await self._log.learn_clock()  # it may have been set since somebody looked
        self._may_have_arrived, self._clock_learned = False, self._log.clock_learned

    async def freeze(self, after: int, page: Page) -> Encoded | None:
        """Freeze a batch of what follows row `after`; None when some of it has left since it was read.

        Raises StoreFailed.
        """
        historical_until = max((one.row for one in page.readings if self.is_old(one)), default=0)
        _mark(page, historical_until)
        batch = await self._sender.encode(new_batch_id(), page.readings, page.last_row)
        attempt = Attempt(
            destination=self._cursor,
            batch_id=batch.batch.id,
            after_row=after,
            last_row=page.last_row,
            readings=page.rows,
            body_sha256=batch.body_sha256,
            created_at_ms=self._clock.now_ms(),
            epochs=json.dumps({one.gateway_boot: one.epoch_ms for one in page.readings if one.epoch_ms is not None}),
            historical_until=historical_until,
            chosen=json.dumps(batch.rows) if len(batch.rows) < page.rows else None,
        )
        return batch if await self._log.freeze(attempt) else None

    def is_old(self, reading: StoredReading) -> bool:
        """Whether the reading has waited so long that it goes out from a backlog.

        By the monotonic clock: the other one may have been wrong when it came, or now.
        """
        waited_ms = self._log.waited_ms(reading, self._clock.monotonic_ms())
        return self._is_backlog or waited_ms is None or waited_ms > self._patience_ms

    async def thaw(self, attempt: Attempt) -> Encoded | None:
        """Make the batch that was under way when the gateway stopped; None when it cannot be the same."""
        self._may_have_arrived = True
        try:
            batch = await self._made_again(attempt)
        except ValueError:  # its row has been changed on the disk
            batch = None
        if batch is not None:
            return batch
        self._logger.warning(
            "a batch cannot be made again as it was; its readings go out under a new id",
            extra={"batch_id": attempt.batch_id},
        )
        return None

    async def _made_again(self, attempt: Attempt) -> Encoded | None:
        page = await self._log.select(
            attempt.after_row,
            until=attempt.last_row,
            selection=self._selection,
            limit=attempt.readings,
            look_at=attempt.readings,
            epochs={int(boot): epoch for boot, epoch in json.loads(attempt.epochs).items()},
        )
        if attempt.chosen is not None:
            chosen = frozenset(json.loads(attempt.chosen))
            page.readings[:] = [reading for reading in page.readings if reading.row in chosen]
        if not page.readings:
            return None
        _mark(page, attempt.historical_until)
        batch = await self._sender.encode(attempt.batch_id, page.readings, attempt.last_row)
        return batch if batch.body_sha256 == attempt.body_sha256 else None

    async def send(self, batch: Encoded) -> Outcome:
        """Try once. Raises OutdatedTimes, ReadingsErased and StoreFailed."""
        if not self._may_have_arrived:  # else it stays as it is, and needs no log that can be written
            await self._log.learn_clock()
            if self._clock_learned != self._log.clock_learned:
                raise OutdatedTimes
        outcome = await self._sender.send(batch, lambda: self._is_there(batch))
        self._may_have_arrived |= may_have_arrived(outcome)
        return outcome

    async def _is_there(self, batch: Encoded) -> bool:
        """Whether none of it has been erased since it was read."""
        erasures = self._log.erasures
        if erasures != self._erasures:
            if await self._log.count_of(batch.rows) != len(batch.rows):
                return False
            self._erasures = erasures
        return True


def _mark(page: Page, historical_until: int) -> None:
    for reading in page.readings:
        reading.historical = reading.row <= historical_until
