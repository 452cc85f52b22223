"""Batches of one destination: each is on disk before its first byte leaves, so that a retry can be the very same.

- a batch that was under way is made again after a restart, byte for byte, or not at all: then its readings go out anew
- one that surely has not arrived is given up when the log learns what time it was: its times would be wrong
- one whose readings have been erased does not leave
"""

import json
import logging

from cloud_sync.contract import Outcome
from cloud_sync.sender import Encoded, Sender, may_have_arrived, new_batch_id
from gateway.clock import Clock
from gateway.model.selection import Selection
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.log_reader import Page


class OutdatedTimes(Exception):
    """A batch has wrong times and has not arrived: it is made again, from the same place and with a new id."""


class FrozenBatches:
    """See the module's own words. One batch is under way at a time."""

    def __init__(
        self, destination: str, selection: Selection, log: Log, sender: Sender, clock: Clock, logger: logging.Logger
    ) -> None:
        self._destination = destination
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
        batch = await self._sender.encode(new_batch_id(), page.readings, page.last_row)
        attempt = Attempt(
            destination=self._destination,
            batch_id=batch.batch.id,
            after_row=after,
            last_row=page.last_row,
            readings=page.rows,
            body_sha256=batch.body_sha256,
            created_at_ms=self._clock.now_ms(),
            epochs=json.dumps({one.gateway_boot: one.epoch_ms for one in page.readings if one.epoch_ms is not None}),
        )
        return batch if await self._log.freeze(attempt) else None

    async def thaw(self, attempt: Attempt) -> Encoded | None:
        """Make the batch that was under way when the gateway stopped; None when it cannot be the same."""
        self._may_have_arrived = True
        page = await self._log.select(
            attempt.after_row,
            until=attempt.last_row,
            selection=self._selection,
            limit=attempt.readings,
            look_at=attempt.readings,
            epochs={int(boot): epoch for boot, epoch in json.loads(attempt.epochs).items()},
        )
        if page.readings:
            batch = await self._sender.encode(attempt.batch_id, page.readings, attempt.last_row)
            if batch.body_sha256 == attempt.body_sha256:
                return batch
        self._logger.warning(
            "a batch cannot be made again as it was; its readings go out under a new id",
            extra={"batch_id": attempt.batch_id},
        )
        return None

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
