"""Sends what subscriptions of the HTTP API have heard to their callback URLs: signed, in order, at least once.

- one task for each subscription with a callback; a dead receiver delays no other
- a batch is noted on disk before its first byte leaves: a retry has the same `webhook-id` and the same messages, also
  after a restart. One that cannot be made again, as messages have left or were erased, goes out under a new id
- only a 2xx moves the position. What fails is tried again with backoff, for ever; 410 ends it until the next start
- a batch that is refused (400, 413 and the like) is cut in halves until the culprit is alone. That one is passed over
  and counted once something else has succeeded; ten in a row without a success are the receiver's error

The body is `{"type":"mqtt.messages","gateway_id":…,"subscription_id":…,"messages":[…]}`, each as
`StoredMessage.on_the_wire` says.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic_core import to_json

from cloud_sync.backoff import LONGEST_WAIT_S, Backoff
from cloud_sync.contract import Gone, Ok, Outcome, Rejected, TooLarge
from cloud_sync.rate_limit import RateLimit
from cloud_sync.sender import OUTCOME_LABELS, new_batch_id
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.storage.mqtt_messages import Frozen, MqttMessages, StoredMessage
from gateway.storage.mqtt_subscriptions import SubscriptionRow

_MESSAGES_AT_ONCE = 100
_REQUESTS_PER_MINUTE = 100
_STORE_WAIT_S = 5.0  # until a log that could not be written is tried again
_LONE_REJECTIONS = 10
LABEL = "mqtt_callbacks"
"""All callbacks' name in metrics: there may be many, and they come and go."""


KeepRunning = Callable[[str, Callable[[], Awaitable[None]]], Coroutine[None, None, None]]
"""Runs a part, and starts it again when it has crashed: a defect that one message meets stops no other callback."""


class Post(Protocol):
    """Sends to one receiver, while it is entered."""

    async def __aenter__(self) -> object:
        """Open what is needed."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        ...

    async def send(self, message_id: str, body: bytes) -> Outcome:
        """Try once."""
        ...


@dataclass(slots=True)
class CallbackState:
    """How one callback does."""

    state: str = "idle"
    """`idle`, `sending`, `retrying` (its receiver is away), `error` (it refuses), `gone` (410)."""
    delivered: int = 0
    refused: int = 0
    """Messages that were passed over, as the receiver refused them one by one."""
    last_error: str = ""


class Callbacks:
    """Runs a callback for every subscription that has one, as they come and go."""

    def __init__(
        self,
        messages: MqttMessages,
        post: Callable[[str, str], Post],
        keep_running: KeepRunning,
        clock: Clock,
        metrics: Metrics,
        *,
        gateway_id: str,
        secret_of: Callable[[str], str],
        message_id: Callable[[int], str],
    ) -> None:
        """`post` makes what sends to a URL, signed with a secret."""
        self._messages = messages
        self._post = post
        self._keep_running = keep_running
        self._clock = clock
        self._metrics = metrics
        self._gateway_id = gateway_id
        self.secret_of = secret_of
        """Returns what signs the messages of a subscription."""
        self.message_id = message_id
        """Returns a message's id in the world."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._states: dict[str, CallbackState] = {}

    def state(self, subscription_id: str) -> CallbackState:
        """Return how a callback does."""
        return self._states.setdefault(subscription_id, CallbackState())

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                self._messages.changed.clear()
                await self._follow()
                await self._messages.changed.wait()
        finally:
            await self._end(list(self._running))

    async def _follow(self) -> None:
        rows = self._messages.subscriptions
        wanted = {name: row for name, row in rows.items() if row.callback_url}
        lost = {name: row.unreadable for name, row in rows.items() if row.unreadable}
        self._states |= {name: CallbackState("error", last_error=why) for name, why in lost.items()}
        await self._end([name for name in self._running if name not in wanted])
        for name, row in wanted.items():
            if name not in self._running:
                part = f"callback {name}"
                running = self._keep_running(part, self._callback(row).run)
                self._running[name] = asyncio.create_task(running, name=part)

    def _callback(self, row: SubscriptionRow) -> "Callback":
        def encode(messages: Sequence[StoredMessage]) -> bytes:
            return to_json(
                {
                    "type": "mqtt.messages",
                    "gateway_id": self._gateway_id,
                    "subscription_id": row.id,
                    "messages": [message.on_the_wire(self.message_id(message.id)) for message in messages],
                }
            )

        post = self._post(row.callback_url or "", self.secret_of(row.id))
        return Callback(row, self._messages, post, encode, self.state(row.id), self._clock, self._metrics)

    async def _end(self, names: Sequence[str]) -> None:
        tasks = [self._running.pop(name) for name in names]
        for name, task in zip(names, tasks, strict=True):
            task.cancel()
            self._states.pop(name, None)
        if tasks:
            await asyncio.wait(tasks)


class Callback:
    """One subscription's. Its position is in `MqttMessages`."""

    def __init__(
        self,
        row: SubscriptionRow,
        messages: MqttMessages,
        post: Post,
        encode: Callable[[Sequence[StoredMessage]], bytes],
        state: CallbackState,
        clock: Clock,
        metrics: Metrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._row = row
        self._messages = messages
        self._post = post
        self._encode = encode
        self._state = state
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(random)
        self._rate = RateLimit(clock, sleep, per_minute=_REQUESTS_PER_MINUTE)
        self._outcomes = metrics.delivery
        self._latency = metrics.delivery_latency.labels(LABEL)
        self._dropped = metrics.events_dropped.labels(LABEL, "rejected")
        # A logger of its own: equal warnings are counted by logger, and two receivers may fail at once.
        self._logger = logging.getLogger(f"{__name__}.{row.id}")
        self._reach = messages.positions[row.id].acknowledged
        """Behind the position by what was refused alone since the last success."""
        self._refused = 0
        self._size = _MESSAGES_AT_ONCE

    async def run(self) -> None:
        """Send until cancelled."""
        async with self._post:
            work = self._thaw
            while True:
                try:
                    await work()
                    work = self._next
                except StoreFailed as error:
                    self._state.state, self._state.last_error = "retrying", error.message
                    await self._sleep(_STORE_WAIT_S)

    async def _thaw(self) -> None:
        """Send again what was on its way when the gateway stopped."""
        position = self._messages.positions[self._row.id]
        batch = position.batch
        if batch is None:
            return
        refused, _ = await self._read(position.acknowledged, batch.after, _LONE_REJECTIONS)
        found, _ = await self._read(batch.after, batch.until, batch.messages)
        if len(found) == batch.messages:
            self._refused, self._reach = len(refused), batch.after
            await self._deliver(found, batch)

    async def _next(self) -> None:
        if not self._state.last_error:
            self._state.state = "idle"
        await self._messages.wait_beyond(self._reach)
        found, until = await self._read(self._reach, self._messages.newest, self._size)
        if found:
            batch = Frozen(new_batch_id(), self._reach, until, len(found))
            await self._messages.freeze(self._row.id, batch)
            await self._deliver(found, batch)
            return
        self._reach = until
        if not self._refused:
            self._messages.acknowledged(self._row.id, until)

    async def _read(self, after: int, until: int, limit: int) -> tuple[list[StoredMessage], int]:
        return await self._messages.read(self._row, after, until=until, limit=limit)

    async def _deliver(self, found: list[StoredMessage], batch: Frozen) -> None:
        """Send until the receiver has said what becomes of it."""
        body = await asyncio.to_thread(self._encode, found)
        erasures = self._messages.erasures
        failures = 0
        while True:
            await self._rate.take()
            if erasures != self._messages.erasures:  # some of it may not be there any more: look again
                return
            outcome = await self._attempt(batch.id, body, failures)
            if isinstance(outcome, Ok):
                self._succeeded(batch)
                return
            if isinstance(outcome, Rejected | TooLarge):
                await self._was_refused(found, outcome)
                return
            if isinstance(outcome, Gone):
                self._state.state, self._state.last_error = "gone", outcome.reason
                await asyncio.get_running_loop().create_future()
            failures += 1
            self._state.state, self._state.last_error = "retrying", outcome.reason
            wait_s = self._backoff.seconds(outcome, failures)
            self._logger.log(
                logging.WARNING if failures == 1 else logging.DEBUG,
                "callback failed: %s",
                outcome.reason,
                extra={"next_attempt_s": round(wait_s, 1)},
            )
            await self._sleep(wait_s)

    async def _attempt(self, batch_id: str, body: bytes, failures: int) -> Outcome:
        if not failures and not self._refused:
            self._state.state = "sending"
        started_ms = self._clock.monotonic_ms()
        outcome = await self._post.send(batch_id, body)
        self._latency.observe((self._clock.monotonic_ms() - started_ms) / 1000)
        self._outcomes.labels(LABEL, OUTCOME_LABELS[type(outcome)]).inc()
        return outcome

    def _succeeded(self, batch: Frozen) -> None:
        if self._refused:
            self._dropped.inc(self._refused)
            self._state.refused += self._refused
        self._state.state, self._state.last_error = "idle", ""
        self._state.delivered += batch.messages
        self._refused = 0
        self._size = min(self._size * 2, _MESSAGES_AT_ONCE)
        self._reach = batch.until
        self._messages.acknowledged(self._row.id, batch.until)

    async def _was_refused(self, found: list[StoredMessage], outcome: Rejected | TooLarge) -> None:
        """Halve what goes out next; pass over a message that is refused alone, unless everything is."""
        self._state.state, self._state.last_error = "error", outcome.reason
        if len(found) > 1:
            self._size = len(found) // 2
            return
        self._refused += 1
        if self._refused < _LONE_REJECTIONS:
            self._reach = found[0].id
            self._logger.warning("a message was refused: %s", outcome.reason, extra={"message_id": found[0].id})
            return
        self._logger.warning("every message is refused, all are tried again: %s", outcome.reason)
        self._refused = 0
        self._reach = self._messages.positions[self._row.id].acknowledged
        await self._sleep(LONGEST_WAIT_S)
