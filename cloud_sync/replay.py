"""Sends dead letters again, when somebody asked for it.

- a dead letter stays in the table until the destination has acknowledged it; a renewed rejection is noted there
- a replay's batch is frozen on disk before it is sent, like any other: a retry is the same batch, also after a restart
- it takes turns with the live batches, one batch each, so that neither waits for ever; what fails for want of a
  connection is tried again after a backoff of its own, while live readings go on

A replayed reading is `historical`. Replays know no order among the live readings, and ten rejections in a row are no
sign against the destination: these readings have been refused before.
"""

import asyncio
import logging
import sys

from cloud_sync.backoff import Backoff
from cloud_sync.contract import Gone, IntegrationConfig, Ok, Outcome, Rejected, TooLarge
from cloud_sync.sender import OUTCOME_LABELS, Encoded, Sender, new_batch_id
from cloud_sync.splitting import BatchSize, Splitting
from gateway.clock import Clock
from gateway.model.reading import StoredReading
from gateway.storage.dead_letters import DeadLetters, FrozenReplay


class Replay:
    """One destination's replays; for the forwarder's task."""

    def __init__(
        self,
        config: IntegrationConfig,
        letters: DeadLetters,
        sender: Sender,
        backoff: Backoff,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._name = config.name
        self._max_bytes = config.batch_max_bytes
        self._letters = letters
        self._sender = sender
        self._backoff = backoff
        self._clock = clock
        self._logger = logger
        self._wanted = asyncio.Event()
        self._encoded: Encoded | None = None
        self._parts = Splitting()
        self._size = BatchSize(config.batch_max_readings)
        self._failures = 0
        self._not_before_ms = 0

    def wake(self) -> None:
        """Look at the table: a replay was requested."""
        self._wanted.set()

    async def open(self) -> None:
        """Go on where the gateway stopped: make the batch that was under way, the same as it was."""
        self._encoded = None
        self._parts.clear()
        frozen = await self._letters.replay_under_way(self._name)
        if frozen is not None:
            encoded = await self._encode(frozen.batch_id, frozen.readings)
            if encoded.body_sha256 == frozen.body_sha256:
                self._encoded = encoded
            else:
                await self._letters.thaw_replay(self._name)
        self._wanted.set()

    @property
    def is_due(self) -> bool:
        """Whether a turn would do something, or has to find out."""
        return self._wanted.is_set() and self._clock.monotonic_ms() >= self._not_before_ms

    @property
    def waits_s(self) -> float:
        """How long the backoff still lasts."""
        return max(0.0, (self._not_before_ms - self._clock.monotonic_ms()) / 1000)

    async def wait_wanted(self) -> None:
        """Return when there is, or may be, something to replay."""
        await self._wanted.wait()

    async def turn(self) -> Outcome | None:
        """Send one batch once; returns the outcome, None when there is nothing to replay."""
        if self._encoded is None:
            self._encoded = await self._freeze()
        if self._encoded is None:
            self._wanted.clear()
            return None
        encoded = self._encoded
        outcome = await self._sender.send(encoded, lambda: self._is_there(encoded))
        if isinstance(outcome, Ok | TooLarge | Rejected):
            await self._settle(encoded, outcome)
            self._encoded = None
            self._failures = 0
        elif not isinstance(outcome, Gone):
            self._postpone(outcome)
        return outcome

    async def _freeze(self) -> Encoded | None:
        readings = await self._letters.requested(
            self._name,
            until=sys.maxsize if self._parts.end is None else self._parts.end,
            limit=self._size.readings,
            max_bytes=self._max_bytes,
        )
        if not readings and self._parts.end is not None:  # they were dropped meanwhile
            self._parts.clear()
            return await self._freeze()
        if not readings:
            return None
        readings = readings[: self._parts.cut([reading.row for reading in readings])]
        encoded = await self._encode(new_batch_id(), readings)
        frozen = FrozenReplay(encoded.batch.id, encoded.body_sha256, readings)
        await self._letters.freeze_replay(self._name, frozen)
        return encoded

    async def _encode(self, batch_id: str, readings: list[StoredReading]) -> Encoded:
        for reading in readings:
            reading.historical = True
        return await self._sender.encode(batch_id, readings)

    async def _is_there(self, encoded: Encoded) -> bool:
        """Whether none of it has been dropped or erased."""
        return await self._letters.count_in_replay(self._name, encoded.batch.id) == len(encoded.rows)

    async def _settle(self, encoded: Encoded, outcome: Ok | TooLarge | Rejected) -> None:
        rows, batch_id = encoded.rows, encoded.batch.id
        match outcome:
            case Ok():
                await self._letters.replayed(self._name, batch_id, rows)
                self._parts.passed(rows[-1], clean=True)
                self._size.accepted()
            case TooLarge() if len(rows) > 1:
                self._size.too_large(len(rows))
            case Rejected() if len(rows) > 1:
                self._parts.refused(rows, outcome.rows)
            case _:
                await self._letters.refused_again(self._name, batch_id, outcome.reason, self._clock.now_ms())
                self._parts.passed(rows[-1], clean=False)
                self._logger.warning("a replayed reading was refused again: %s", outcome.reason, extra={"row": rows[0]})

    def _postpone(self, outcome: Outcome) -> None:
        assert not isinstance(outcome, Ok)
        self._failures += 1
        wait_s = self._backoff.seconds(outcome, self._failures)
        self._not_before_ms = self._clock.monotonic_ms() + round(wait_s * 1000)
        self._logger.log(
            logging.DEBUG if self._failures > 1 else logging.WARNING,
            "replay failed: %s",
            outcome.reason,
            extra={"outcome": OUTCOME_LABELS[type(outcome)], "next_attempt_s": round(wait_s, 1)},
        )
