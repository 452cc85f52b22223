"""Sends what waits for one integration: the most urgent first, one message at a time, each under an id of its own.

- a message is frozen on disk before its first byte leaves; what becomes of it is on disk before the next goes
- few go alone and the rest of a burst together (`bursts.py`)
- what fails is tried again with backoff. An attempt counts unless the other side could not be reached, or asked for
  patience; that costs none for `keep_trying_s`. After so many it has failed, and may be sent again by hand
- while the other side is away, nothing else is tried there either: it gathers
- recipients who have it are not sent it again
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cloud_sync.backoff import Backoff
from cloud_sync.bursts import Bursts
from cloud_sync.contract import (
    AuthFailed,
    Gone,
    IntegrationConfig,
    NotConnected,
    Notification,
    Notifies,
    Ok,
    Outcome,
    PartlyDelivered,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.payload.digest import digest
from cloud_sync.rate_limit import RateLimit
from cloud_sync.sender import OUTCOME_LABELS
from gateway.clock import Clock
from gateway.config import NotificationSettings
from gateway.first_of import first_of
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.storage.notification_log import NotificationLog
from gateway.storage.notification_rows import NotificationRow

_STORE_WAIT_S = 5.0
_LOOK_AGAIN_S = 60.0  # the clock may have been set meanwhile
_GRACE_S = 5.0  # after an integration's own time limit
_TOGETHER_AT_MOST = 5_000


class Health(Protocol):
    """Hears how an integration does."""

    def succeeded(self, seconds: float, items: int = 1) -> None:
        """Hear that it has taken so many, in so long."""
        ...

    def failed(self, outcome: Outcome) -> None:
        """Hear what has failed."""
        ...


@dataclass(slots=True, frozen=True)
class Notifying:
    """An integration that notifies, entered."""

    config: IntegrationConfig
    integration: Notifies
    health: Health | None = None


Find = Callable[[str], Notifying | None]
"""Returns the integration of that id, as it is now; None when it does not run."""


class Courier:
    """See the module's own words; its `run` is a task of its own."""

    def __init__(
        self,
        integration_id: str,
        find: Find,
        log: NotificationLog,
        settings: NotificationSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        gateway_id: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.id = integration_id
        self._find = find
        self._log = log
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._gateway_id = gateway_id
        self._sleep = sleep
        self._backoff = Backoff(random, settings.first_wait_s)
        self._bursts = Bursts(clock, alone=settings.alone, digest_interval_s=settings.digest_interval_s)
        self._rate: tuple[int, RateLimit] | None = None
        self._woken = asyncio.Event()
        self._renewed = asyncio.Event()
        self._failures = 0
        self._away_until_ms = 0
        self._together = _TOGETHER_AT_MOST
        # A logger of its own: equal warnings are counted by logger, and two may fail at once.
        self._logger = logging.getLogger(f"{__name__}.{integration_id}")

    def wake(self) -> None:
        """Hear that there is something to send."""
        self._woken.set()

    def renew(self) -> None:
        """Hear that it is worth a try at once: the settings are others, or somebody wants it sent again."""
        self._away_until_ms = 0
        self._renewed.set()
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._woken.clear()
            try:
                if rows := await self._next():
                    await self._deliver(rows)
            except StoreFailed as error:  # nothing is sent that could not be frozen; what is on disk still holds
                self._logger.warning("the outbox cannot be written: %s", error.message)
                await self._sleep(_STORE_WAIT_S)

    async def _next(self) -> list[NotificationRow]:
        """Return the message that goes out next, frozen; nothing after a wait, when it is time to look again."""
        await self._until_back()
        await self._rate_limit().ready()
        first = await self._log.first(self.id)
        under_way = await self._log.due_message(self.id)
        if under_way is not None and (first is None or under_way.urgency >= first.urgency):
            return await self._log.message(under_way.message_id)
        if first is None:
            await self._wait(await self._until_next_attempt())
            return []
        bursts = self._bursts
        if bursts.is_gathered:
            bursts.go_together(await self._log.newest_seq())
        if first.seq > bursts.through:
            wait_s = bursts.wait_s(first.urgency)
            if wait_s == 0:
                bursts.went_alone(first.urgency)
                return await self._log.freeze(self.id)
            if await self._log.first(self.id, through=bursts.through) is None:
                left_s = await self._until_next_attempt()
                await self._wait(wait_s if left_s is None else min(wait_s, left_s))
                return []
        return await self._log.freeze(
            self.id, through=bursts.through, max_count=self._together, max_bytes=self._batch_bytes()
        )

    async def _until_back(self) -> None:
        while (left_ms := self._away_until_ms - self._clock.monotonic_ms()) > 0:
            self._renewed.clear()
            await first_of(self._renewed.wait(), self._sleep(left_ms / 1000))

    async def _until_next_attempt(self) -> float | None:
        """Return how long until a message under way is tried again, or until it is looked at anew; None without one."""
        due_ms = await self._log.next_attempt_ms(self.id)
        return None if due_ms is None else min(max((due_ms - self._clock.now_ms()) / 1000, 0.0), _LOOK_AGAIN_S)

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._woken.wait()
        else:
            await first_of(self._woken.wait(), self._sleep(seconds))

    def _rate_limit(self) -> RateLimit:
        found = self._find(self.id)
        per_minute = 0 if found is None else found.config.rate_limit_per_minute
        if self._rate is None or self._rate[0] != per_minute:
            self._rate = per_minute, RateLimit(self._clock, self._sleep, per_minute=per_minute)
        return self._rate[1]

    def _batch_bytes(self) -> int:
        found = self._find(self.id)
        return found.config.batch_max_bytes if found is not None else 0

    # What is sent, and what becomes of it

    async def _deliver(self, rows: Sequence[NotificationRow]) -> None:
        """Try once."""
        await self._rate_limit().take()
        started_ms = self._clock.monotonic_ms()
        found = self._find(self.id)
        outcome = await self._attempt(found, self._notification(rows))
        seconds = (self._clock.monotonic_ms() - started_ms) / 1000
        self._metrics.notification_latency.labels(self.id).observe(seconds)
        self._metrics.notification_attempts.labels(self.id, _label(outcome)).inc()
        if found is not None and found.health is not None:
            if isinstance(outcome, Ok | PartlyDelivered):
                found.health.succeeded(seconds, len(rows))
            else:
                found.health.failed(outcome)
        await self._settle(rows, outcome)

    def _notification(self, rows: Sequence[NotificationRow]) -> Notification:
        message_id = rows[0].message_id or ""
        if len(rows) == 1:
            return replace(as_notification(rows[0], self._gateway_id), id=message_id)
        return digest(message_id, [as_notification(row, self._gateway_id) for row in rows])

    async def _attempt(self, found: Notifying | None, notification: Notification) -> Outcome | PartlyDelivered:
        if found is None:
            return NotConnected("the integration is not active", sent=False)
        timeout_s = found.config.timeout_s + _GRACE_S
        try:
            async with asyncio.timeout(timeout_s):
                return await found.integration.notify(notification)
        except TimeoutError:
            return NotConnected(f"no end within {timeout_s:g} s")
        except Exception:  # whatever it is, one notification must not hold up the others
            self._logger.exception("an integration failed, by a fault of ours")
            return Rejected("it cannot be sent, by a fault of the gateway; its log says more")

    async def _settle(self, rows: Sequence[NotificationRow], outcome: Outcome | PartlyDelivered) -> None:
        """Write down what has become of a message."""
        message_id, refused = rows[0].message_id or "", dict(rows[0].metadata.get("refused", {}))
        match outcome:
            case Ok():
                self._failures, self._together = 0, min(self._together * 2, _TOGETHER_AT_MOST)
                if refused:
                    await self._log.failed(message_id, _refusals(refused), left=list(refused))
                else:
                    await self._log.sent(message_id)
            case PartlyDelivered(again=again):
                self._failures = 0
                refused |= outcome.refused
                if again and rows[0].attempts + 1 < self._settings.attempts:
                    wait_s = self._backoff.seconds(RetryAfter(None, ""), rows[0].attempts + 1)
                    await self._log.retrying(
                        message_id, outcome.reason, wait_s, counts=True, left=again, refused=refused
                    )
                else:
                    await self._log.failed(message_id, outcome.reason, left=[*again, *refused], refused=refused)
            case TooLarge() if len(rows) > 1:
                self._together = len(rows) // 2
                await self._log.release(message_id)
            case Rejected() | TooLarge() | Gone():
                self._failures = 0
                await self._give_up(rows, outcome.reason)
            case _:
                await self._try_again(rows, outcome)

    async def _try_again(
        self, rows: Sequence[NotificationRow], outcome: RetryAfter | NotConnected | AuthFailed | WrongAddress
    ) -> None:
        self._failures += 1
        wait_s = self._backoff.seconds(outcome, self._failures)
        self._away_until_ms = self._clock.monotonic_ms() + round(wait_s * 1000)
        self._logger.log(
            logging.WARNING if self._failures == 1 else logging.DEBUG,
            "a notification could not be sent: %s",
            outcome.reason,
            extra={"integration": self.id, "next_attempt_s": round(wait_s, 1)},
        )
        waited_s = (self._clock.now_ms() - min(row.created_at_ms for row in rows)) / 1000
        counts = waited_s > self._settings.keep_trying_s or not _is_patient(outcome)
        if counts and rows[0].attempts + 1 >= self._settings.attempts:
            await self._give_up(rows, outcome.reason)
        else:
            left = rows[0].recipients_left
            await self._log.retrying(rows[0].message_id or "", outcome.reason, wait_s, counts=counts, left=left)

    async def _give_up(self, rows: Sequence[NotificationRow], reason: str) -> None:
        await self._log.failed(rows[0].message_id or "", reason, left=rows[0].recipients_left)
        self._logger.warning(
            "notifications have failed: %s",
            reason,
            extra={"integration": self.id, "notifications": len(rows), "first": rows[0].id},
        )


def _label(outcome: Outcome | PartlyDelivered) -> str:
    return "partly_delivered" if isinstance(outcome, PartlyDelivered) else OUTCOME_LABELS[type(outcome)]


def _is_patient(outcome: Outcome) -> bool:
    """Whether it costs no attempt: nothing has reached anybody, or it was asked to come again later."""
    return isinstance(outcome, RetryAfter) or (isinstance(outcome, NotConnected) and not outcome.sent)


def _refusals(refused: dict[str, str]) -> str:
    return "; ".join(f"{one}: {why}" for one, why in refused.items())


def as_notification(row: NotificationRow, gateway_id: str) -> Notification:
    """Return what a row says, for those who have not got it yet."""
    left = row.recipients if row.recipients_left is None else row.recipients_left
    return Notification(
        row.id,
        gateway_id,
        row.organization_id,
        row.kind,
        row.subject,
        row.message,
        row.priority,
        row.created_at_ms,
        row.data,
        tuple(left),
    )
