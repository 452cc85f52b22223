"""Delivers the log to one destination, in order and at least once; repeats are known by their id.

Promises
- The cursor moves only on the destination's own acknowledgement; whatever fails, it keeps its place.
- One batch is in flight. It is frozen on disk before its first byte leaves, so a retry is the same batch with
  the same id and bytes, also after a restart. A batch that cannot be made again (readings were erased, or a
  new release writes them differently) is replaced by a new one with a new id.
- Forwarders share nothing: a dead or hanging destination delays no other.

A batch that is too large is halved, down to one reading. A batch that is rejected, or one reading that is too
large, stands: the state is `error` with the reason, and the same batch is tried again after the backoff.
"""

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol
from uuid import uuid4

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from cloud_sync.backoff import Backoff
from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Gone,
    IntegrationConfig,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.rate_limit import RateLimit
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.reading import StoredReading
from gateway.model.status import DestinationStatus
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log

_OUTCOME_LABELS: dict[type[Outcome], str] = {
    Ok: "ok",
    RetryAfter: "retry_after",
    NotConnected: "not_connected",
    AuthFailed: "auth_failed",
    WrongAddress: "wrong_address",
    Gone: "gone",
    TooLarge: "too_large",
    Rejected: "rejected",
}


class Destination(Forwards, Protocol):
    """An integration that delivers readings, while it is entered."""

    @property
    def config(self) -> IntegrationConfig:
        """Its settings."""
        ...

    async def __aenter__(self) -> object:
        """Open what is needed to talk to the other side."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        ...


@dataclass(slots=True, frozen=True)
class _Frozen:
    """A batch on its way, with the bytes that are sent."""

    batch: Batch
    body: bytes
    body_sha256: str

    @property
    def last_row(self) -> int:
        return self.batch.readings[-1].row

    @property
    def received_at_ms(self) -> int:
        return self.batch.readings[0].received_at_ms


class Forwarder:
    """The engine behind one destination; every destination runs its own, in its own task."""

    def __init__(
        self,
        integration: Destination,
        log: Log,
        clock: Clock,
        metrics: Metrics,
        gateway_id: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        config = integration.config
        # A logger of its own: equal warnings are counted by logger, and two destinations may fail at once.
        self._logger = logging.getLogger(f"{__name__}.{config.name}")
        self._integration = integration
        self._config = config
        self._log = log
        self._clock = clock
        self._gateway_id = gateway_id
        self._sleep = sleep
        self._backoff = Backoff(random)
        self._rate = RateLimit(
            clock, sleep, per_minute=config.rate_limit_per_minute, min_interval_s=config.min_interval_s
        )
        self._deliveries = metrics.delivery
        self._latency = metrics.delivery_latency.labels(config.name)
        metrics.buffer_oldest.labels(config.name).set_function(self._oldest_seconds)

        self._position = 0
        self._batch_readings = config.batch_max_readings
        self._oldest_ms: int | None = None
        self._state = "idle"
        self._delivered = 0
        self._failures = 0
        self._failing_since_ms = 0
        self._last_error = ""

    async def run(self) -> None:
        """Deliver until cancelled. What the other side does never ends it; a defect of ours does."""
        async with self._integration:
            cursor = await self._log.open_cursor(self._config.name, start=self._config.start)
            self._position = cursor.position
            batch = await self._thaw(cursor.attempt) if cursor.attempt else None
            while True:
                await self._deliver(batch or await self._next_batch())
                batch = None

    async def status(self) -> DestinationStatus:
        """Count what is still to be delivered, and say how it goes."""
        undelivered, oldest_ms = await self._log.count_after(self._position)
        return DestinationStatus(
            name=self._config.name,
            type=self._config.type,
            state=self._state,
            position=self._position,
            undelivered=undelivered,
            oldest_seconds=self._seconds_since(oldest_ms),
            delivered=self._delivered,
            failures=self._failures,
            last_error=self._last_error,
        )

    async def _next_batch(self) -> _Frozen:
        """Wait for readings and for the rate limit, then freeze what there is."""
        while True:
            if self._log.last_row <= self._position:
                self._state, self._oldest_ms = "idle", None
            await self._log.wait_beyond(self._position)
            if self._rate.delay_s() > 0:
                first = await self._log.read(self._position, limit=1, max_bytes=self._config.batch_max_bytes)
                self._oldest_ms = first[0].received_at_ms if first else None
                await self._rate.ready()
            until = self._log.last_row
            readings = await self._log.read(
                self._position,
                until=until,
                limit=self._batch_readings,
                max_bytes=self._config.batch_max_bytes,
            )
            if readings:
                return await self._freeze(readings)
            self._pass(until)  # what was there has been erased

    async def _freeze(self, readings: list[StoredReading]) -> _Frozen:
        frozen = await self._encode(f"msg_{uuid4().hex}", readings)
        attempt = Attempt(
            destination=self._config.name,
            batch_id=frozen.batch.id,
            after_row=self._position,
            last_row=frozen.last_row,
            readings=len(readings),
            body_sha256=frozen.body_sha256,
            created_at_ms=self._clock.now_ms(),
        )
        await self._log.freeze(attempt)
        return frozen

    async def _thaw(self, attempt: Attempt) -> _Frozen | None:
        """Make the batch that was under way when the gateway stopped; None when it cannot be the same."""
        readings = await self._log.read(
            attempt.after_row, until=attempt.last_row, limit=attempt.readings, max_bytes=sys.maxsize
        )
        if len(readings) == attempt.readings:
            frozen = await self._encode(attempt.batch_id, readings)
            if frozen.body_sha256 == attempt.body_sha256:
                return frozen
        self._logger.warning(
            "a batch cannot be made again as it was; its readings go out under a new id",
            extra={"batch_id": attempt.batch_id},
        )
        return None

    async def _encode(self, batch_id: str, readings: list[StoredReading]) -> _Frozen:
        batch = Batch(batch_id, readings, self._gateway_id, self._log.uuid)

        def encode() -> _Frozen:
            body = self._integration.encode(batch)
            return _Frozen(batch, body, sha256(body).hexdigest())

        return await asyncio.to_thread(encode)

    async def _deliver(self, frozen: _Frozen) -> None:
        """Send until it is acknowledged, or until it is clear that this batch is too large."""
        self._oldest_ms = frozen.received_at_ms

        def is_unsettled(outcome: Outcome) -> bool:
            return not isinstance(outcome, Ok) and not self._can_be_halved(outcome, frozen)

        retrying = AsyncRetrying(
            retry=retry_if_result(is_unsettled),
            wait=self._backoff,
            sleep=self._sleep,
            before_sleep=self._note_failure,
        )
        outcome: Outcome = await retrying(self._attempt, frozen)
        size = len(frozen.batch.readings)
        if isinstance(outcome, TooLarge):
            self._batch_readings = size // 2
            self._logger.debug("a batch is halved: %s", outcome.reason, extra={"readings": size})
            return
        self._batch_readings += 1 + self._batch_readings // 32  # after it was halved, feel the way back up
        self._batch_readings = min(self._batch_readings, self._config.batch_max_readings)
        self._delivered += size
        self._pass(frozen.last_row)
        if self._failures:
            await self._note_recovery()

    async def _attempt(self, frozen: _Frozen) -> Outcome:
        await self._rate.take()
        if not self._failures:
            self._state = "sending"
        started_ms = self._clock.monotonic_ms()
        outcome = await self._integration.send(frozen.batch, frozen.body)
        self._latency.observe((self._clock.monotonic_ms() - started_ms) / 1000)
        self._deliveries.labels(self._config.name, _OUTCOME_LABELS[type(outcome)]).inc()
        if isinstance(outcome, Gone):
            self._failed(outcome, next_attempt_s=None)
            await asyncio.get_running_loop().create_future()  # for ever: it asked us not to come back
        return outcome

    @staticmethod
    def _can_be_halved(outcome: Outcome, frozen: _Frozen) -> bool:
        return isinstance(outcome, TooLarge) and len(frozen.batch.readings) > 1

    def _pass(self, row: int) -> None:
        self._log.move_cursor(self._config.name, row)
        self._position = row

    def _note_failure(self, retry_state: RetryCallState) -> None:
        assert retry_state.outcome is not None
        self._failed(retry_state.outcome.result(), next_attempt_s=round(retry_state.upcoming_sleep, 1))

    def _failed(self, outcome: Outcome, *, next_attempt_s: float | None) -> None:
        """Remember a failure, and log it unless it only goes on; without a next attempt it is for good."""
        assert not isinstance(outcome, Ok)
        before = self._state
        self._state = "retrying" if isinstance(outcome, NotConnected | RetryAfter) else "error"
        if not self._failures:
            self._failing_since_ms = self._clock.monotonic_ms()
        self._failures += 1
        self._last_error = outcome.reason
        self._logger.log(
            logging.DEBUG if self._state == before else logging.WARNING,
            "delivery failed: %s",
            outcome.reason,
            extra={"outcome": _OUTCOME_LABELS[type(outcome)], "next_attempt_s": next_attempt_s},
        )

    async def _note_recovery(self) -> None:
        down_s = (self._clock.monotonic_ms() - self._failing_since_ms) / 1000
        waiting, _ = await self._log.count_after(self._position)
        self._logger.info("delivery works again", extra={"down_s": round(down_s, 1), "undelivered": waiting})
        self._failures = 0
        self._last_error = ""

    def _oldest_seconds(self) -> float:
        return self._seconds_since(self._oldest_ms)

    def _seconds_since(self, unix_ms: int | None) -> float:
        return 0.0 if unix_ms is None else max(0.0, (self._clock.now_ms() - unix_ms) / 1000)
