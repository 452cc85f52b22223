"""One attempt: the bytes of a batch, within the rate limit, counted and measured."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import uuid4

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Forwards,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.health import Health
from cloud_sync.rate_limit import RateLimit
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.reading import StoredReading

logger = logging.getLogger(__name__)

OUTCOME_LABELS: dict[type[Outcome], str] = {
    Ok: "ok",
    RetryAfter: "retry_after",
    NotConnected: "not_connected",
    AuthFailed: "auth_failed",
    WrongAddress: "wrong_address",
    Gone: "gone",
    TooLarge: "too_large",
    Rejected: "rejected",
}


IsThere = Callable[[], Awaitable[bool]]


class ReadingsErased(Exception):
    """A batch holds readings that are not stored any more: make another."""


def new_batch_id() -> str:
    """Return an id that no batch has had."""
    return f"msg_{uuid4().hex}"


def may_have_arrived(outcome: Outcome) -> bool:
    """Whether the other side may have taken the batch, whatever it answered."""
    match outcome:
        case AuthFailed() | WrongAddress():
            return False
        case NotConnected(sent=sent):
            return sent
        case _:
            return True


@dataclass(slots=True, frozen=True)
class Encoded:
    """A batch with the bytes that are sent."""

    batch: Batch
    body: bytes
    body_sha256: str
    refused: Rejected | None = None
    """Set when there are no such bytes: it is not sent, and split as if the destination had refused it."""
    last_row: int = 0
    """Up to here the log is dealt with when the batch is: rows behind its last reading may have been left out."""

    @property
    def rows(self) -> list[int]:
        """The rows of its readings."""
        return [reading.row for reading in self.batch.readings]

    @property
    def received_at_ms(self) -> int:
        """When its first reading was received."""
        return self.batch.readings[0].received_at_ms


class Sender:
    """Makes and sends batches for one destination; one at a time."""

    def __init__(
        self,
        name: str,
        integration: Forwards,
        rate: RateLimit,
        clock: Clock,
        metrics: Metrics,
        *,
        gateway_id: str,
        log_uuid: str,
        health: Health,
    ) -> None:
        self._health = health
        self._name = name
        self._integration = integration
        self._rate = rate
        self._clock = clock
        self._gateway_id = gateway_id
        self._log_uuid = log_uuid
        self._deliveries = metrics.delivery
        self._latency = metrics.delivery_latency.labels(name)

    async def encode(self, batch_id: str, readings: Sequence[StoredReading], last_row: int = 0) -> Encoded:
        """Write the body, off the event loop."""
        batch = Batch(batch_id, readings, self._gateway_id, self._log_uuid)
        return await asyncio.to_thread(self._encode, batch, last_row)

    def _encode(self, batch: Batch, last_row: int) -> Encoded:
        body, refused = b"", _defects(batch.readings)
        if refused is None:
            try:
                body = self._integration.encode(batch)
            except Exception as error:  # whatever it is, one record must not hold up the others
                logger.exception("an integration failed, by a fault of ours", extra={"destination": self._name})
                refused = Rejected(f"it cannot be written for this destination: {error}")
        return Encoded(batch, body, sha256(body).hexdigest(), refused, last_row)

    async def send(self, encoded: Encoded, is_there: IsThere) -> Outcome:
        """Try once, as soon as the rate limit allows. Raises ReadingsErased, if they are not there any more by then."""
        await self._rate.ready()
        if not await is_there():
            raise ReadingsErased
        if encoded.refused is not None:
            return encoded.refused
        await self._rate.take()
        started_ms = self._clock.monotonic_ms()
        outcome = await self._integration.send(encoded.batch, encoded.body)
        seconds = (self._clock.monotonic_ms() - started_ms) / 1000
        self._latency.observe(seconds)
        self._health.tried(outcome, seconds, len(encoded.rows))
        self._deliveries.labels(self._name, OUTCOME_LABELS[type(outcome)]).inc()
        return outcome


def _defects(readings: Sequence[StoredReading]) -> Rejected | None:
    """Name the readings that cannot be read any more."""
    found = [reading for reading in readings if reading.defect]
    return Rejected(found[0].defect, [reading.row for reading in found]) if found else None
