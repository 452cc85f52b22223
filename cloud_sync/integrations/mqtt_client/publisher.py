"""Publishes batches of messages to a broker, at QoS 1: to the engine each is one request.

- In order, a window of them at once. The batch is done when the broker has acknowledged every message.
- When that fails in the middle, the retry goes on behind what was acknowledged; what was on its way is sent again. A
  message that was refused for a while takes those behind it along, so that the newest of a topic comes last.
- A message that is refused for good holds up no other: it is named, and the engine cuts it out.
- A broker of MQTT 3.1.1 can only end the connection where it will not have a message. So one at which the connection
  has ended is sent alone; when that has happened three times in a row, it is refused. From the second time on it waits
  until the connection has held for a while: one that ends by itself, as where another client has our id, ends before.
- The connection is made when there is something to send, and kept.
- What is to be told beside readings, such as to a Home Assistant, is told before them, on the same connection. Where a
  broker ends the connection at that, three times in a row, it is left out from then on: readings go all the same.
- With a status topic, the broker tells who is there: we say so when we have come and when we go, and it does, retained,
  when we are gone without a word. So that it does not say for hours that we are gone, another connection is then made
  also when there is nothing to send.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from cloud_sync.backoff import Backoff
from cloud_sync.contract import AuthFailed, NotConnected, Ok, Outcome, Rejected, TooLarge
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.part_sender import named
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.packets import Answer, Message, Will
from cloud_sync.integrations.mqtt_client.properties import LONGEST_TEXT, Property, Value
from cloud_sync.integrations.mqtt_client.reasons import Failed, outcome_of_message
from cloud_sync.integrations.mqtt_client.suspect import ENDINGS, Suspect
from cloud_sync.payload.in_parts import Key, Part
from cloud_sync.rate_limit import RateLimit
from gateway.model.topics import is_topic_filter

_logger = logging.getLogger(__name__)

_LASTS_S = 60.0
"""A connection that has lasted so long was none of the failures in a row."""
_HOLDS_S = 5.0
"""So long a connection has held before a message is sent alone that may be why the last ones have ended."""
_HEARD_AT_MOST = 1_000
_GOODBYE_S = 1.0

Told = Sequence[tuple[Property, Value]]
_Mark = tuple[Key, tuple[int, ...]]
_Pair = tuple[Key, int]
"""A topic and a row: what a message brings there. When a batch is split, other messages bring the same."""


@dataclass(slots=True, frozen=True)
class Status:
    """Where the broker is told whether we are there, and in which words."""

    topic: str
    birth: bytes
    will: bytes


class Beside(Protocol):
    """What is told beside readings."""

    @property
    def filters(self) -> Sequence[str]:
        """What is heard for it; where that is refused, nothing is."""
        ...

    def due(self, heard: Sequence[Message], *, is_new: bool) -> Sequence[tuple[str, bytes]]:
        """Return messages that are to be told now, retained: topic and payload.

        `heard` is what has come since; `is_new` says that nothing was told on this connection yet.
        """
        ...

    def told(self) -> None:
        """Hear that the broker has all of them."""
        ...


@dataclass(slots=True, frozen=True)
class Limits:
    """What one destination is to be spared."""

    timeout_s: float
    """So long without any answer, and the connection is given up."""
    window: int
    max_bytes: int
    """Of a payload."""


class Publisher:
    """See the module's own words; for one destination."""

    def __init__(
        self,
        broker: Broker,
        egress: Egress,
        rate: RateLimit,
        limits: Limits,
        *,
        retain: bool,
        one_topic: bool,
        random: Callable[[], float] = random.random,
        beside: Beside | None = None,
    ) -> None:
        """`one_topic`: all messages have the same, so what is not allowed there is no message's own fault."""
        self._broker = broker
        self._egress = egress
        self._rate = rate
        self._limits = limits
        self._retain = retain
        self._one_topic = one_topic
        self._backoff = Backoff(random)
        self._beside = beside
        self._told_on: Connection | None = None
        """Where something was told beside readings last."""
        self._status: Status | None = None
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._stays: asyncio.Task[None] | None = None
        self._taken: set[_Pair] = set()
        """What the broker has, of batches that are not done."""
        self._begun: set[_Pair] = set()
        """What may have left, and was not answered."""
        self._suspect = Suspect[_Mark]()
        """At which message the connection has ended."""
        self._suspect_beside = Suspect[str]()
        """At what that is told beside messages."""
        self._left_out: set[str] = set()
        """What is told no more."""

    async def send(self, parts: Sequence[Part], told: Callable[[Part], Told], status: Status | None) -> Outcome:
        """Try once. `told` returns the properties of a message, for MQTT 5."""
        attempt = _Attempt()
        try:
            attempt.connection = connection = await self._connected(status)
            async with asyncio.timeout(self._limits.timeout_s) as limit:
                if self._beside is not None:
                    await self._tell(connection, self._beside, limit)
                for part in parts:
                    if not self._taken.issuperset(_pairs(part)):
                        await self._publish(connection, part, told(part), attempt, limit)
                await self._collect(attempt, limit, waits=True)
        except TimeoutError:
            reason = f"it has not answered for {self._limits.timeout_s:g} s"
            return await self._broken(NotConnected(reason), attempt, parts)
        except Failed as error:
            return await self._broken(error.outcome, attempt, parts)
        pairs = {pair for part in parts for pair in _pairs(part)}
        if not attempt.refused or len({row for _, row in pairs}) == 1:  # a reading alone is cut out now
            self._taken -= pairs
        if attempt.refused:
            return attempt.refused[0][1] if len(parts) == 1 else named(attempt.refused)
        return Ok()

    async def close(self) -> None:
        """Say that we go, and end the connection."""
        if self._stays is not None:
            self._stays.cancel()
            await asyncio.wait((self._stays,))
            self._stays = None
        connection, status = self._connection, self._status
        try:
            if connection is not None and connection.ended is None and status is not None:
                with suppress(Failed, TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await (await connection.publish(status.topic, status.will, retain=True))
        finally:  # the time limit ends a task that is being cancelled with CancelledError (Python 3.11)
            await self._drop(connection)

    async def _connected(self, status: Status | None) -> Connection:
        async with self._connecting:
            connection = await self._kept_or_new(status)
        if status is not None and self._stays is None:
            self._stays = asyncio.create_task(self._stay(status))
        return connection

    async def _stay(self, status: Status) -> None:
        """Come back whenever the connection has ended; the longer it has not lasted, the later."""
        loop = asyncio.get_running_loop()
        outcome: Outcome = NotConnected("it has ended")
        failures = 0
        while True:
            since_s = loop.time()
            if self._connection is not None:
                await self._connection.gone()
            failures = 1 if loop.time() - since_s > _LASTS_S else failures + 1
            await asyncio.sleep(self._backoff.seconds(outcome, failures))
            outcome = NotConnected("it has ended")
            with suppress(TimeoutError):
                try:
                    async with self._connecting:
                        await self._kept_or_new(status)
                except Failed as error:
                    outcome = error.outcome

    async def _kept_or_new(self, status: Status | None) -> Connection:
        if self._connection is not None and self._connection.ended is None:
            return self._connection
        await self._drop(self._connection)
        broker, limits = self._broker, self._limits
        if status is not None:
            broker = replace(broker, login=replace(broker.login, will=Will(status.topic, status.will)))
        connection = await open_connection(broker, self._egress, timeout_s=limits.timeout_s, window=limits.window)
        try:
            if status is not None:
                await self._say_we_are_there(connection, status)
        except BaseException:
            await connection.aclose()
            raise
        self._connection, self._status = connection, status
        return connection

    async def _say_we_are_there(self, connection: Connection, status: Status) -> None:
        words = f"we say at {status.topic} that we are there"
        if words in self._left_out:
            return
        with self._suspecting(words):
            async with asyncio.timeout(self._limits.timeout_s):
                answer = await (await connection.publish(status.topic, status.birth, retain=True))
        if answer.is_refusal:
            raise Failed(AuthFailed(f"{_reason(outcome_of_message(answer))}, for the topic {status.topic}"))

    async def _drop(self, connection: Connection | None) -> None:
        """Close it; another that has taken its place stays."""
        if connection is not None:
            await connection.aclose()
        if self._connection is connection:
            self._connection = None

    async def _tell(self, connection: Connection, beside: Beside, limit: asyncio.Timeout) -> None:
        """Tell what is due beside readings. Raises Failed, also when the broker allows nothing of it.

        One message that it does not take is left out: it must not hold up readings.
        """
        is_new = connection is not self._told_on
        words = f"we ask to hear {', '.join(beside.filters)}"
        if is_new and beside.filters and words not in self._left_out:
            with self._suspecting(words):
                await connection.subscribe(beside.filters, qos=0)
        heard = await connection.received(_HEARD_AT_MOST) if connection.has_received else []
        words = "something is told beside readings"
        if words not in self._left_out:
            with self._suspecting(words):
                await self._tell_all(connection, beside.due(heard, is_new=is_new), limit)
        self._told_on = connection
        beside.told()

    async def _tell_all(
        self, connection: Connection, messages: Sequence[tuple[str, bytes]], limit: asyncio.Timeout
    ) -> None:
        pending: list[tuple[str, asyncio.Future[Answer]]] = []
        for topic, payload in messages:
            size, most = connection.size_of(topic, payload), connection.largest_packet
            if most is not None and size > most:
                _logger.warning(
                    "not told: a message has %d bytes, and %d are the most, for the topic %s", size, most, topic
                )
                continue
            limit.reschedule(None)
            await self._rate.take()
            limit.reschedule(self._until_s())
            pending.append((topic, await connection.publish(topic, payload, retain=True)))
        for topic, future in pending:
            limit.reschedule(self._until_s())
            await asyncio.wait((future,))
            match outcome := outcome_of_message(future.result()):
                case Ok():
                    pass
                case AuthFailed():
                    raise Failed(AuthFailed(f"{outcome.reason}, for the topic {topic}"))
                case Rejected() | TooLarge():
                    _logger.warning("not told: %s, for the topic %s", outcome.reason, topic)
                case _:
                    raise Failed(outcome)

    @contextmanager
    def _suspecting(self, words: str) -> Iterator[None]:
        """Leave this out later, when connections end at it: without a word to it, nothing else says that it may not."""
        try:
            yield
        except Failed as error:
            if error.blames_packet and self._suspect_beside.ended_at(words) == ENDINGS:
                self._left_out.add(words)
                _logger.warning(
                    "the broker ends the connection when %s: until the next start that is left out. Allow it there",
                    words,
                )
            raise
        self._suspect_beside.answered(words)

    async def _publish(
        self, connection: Connection, part: Part, properties: Told, attempt: "_Attempt", limit: asyncio.Timeout
    ) -> None:
        if (fault := self._fault(connection, part, properties)) is not None:
            attempt.refused.append((part, fault))
            return
        is_suspect = _mark(part) == self._suspect.key
        await self._collect(attempt, limit, waits=is_suspect)
        limit.reschedule(None)  # that the rate is limited is no silence of the broker's
        if is_suspect and self._suspect.endings > 1:
            await connection.gone(lasted_s=_HOLDS_S)
        await self._rate.take()
        limit.reschedule(self._until_s())
        self._begun.update(_pairs(part))
        (topic,) = part.key
        future = await connection.publish(topic, part.body, retain=self._retain, properties=properties)
        attempt.pending.append((part, future))
        await self._collect(attempt, limit, waits=is_suspect)

    async def _collect(self, attempt: "_Attempt", limit: asyncio.Timeout, *, waits: bool) -> None:
        """Take the answers that have come; all, if it waits. Raises Failed for what a later attempt may mend."""
        while attempt.pending and (waits or attempt.pending[0][1].done()):
            part, future = attempt.pending[0]
            limit.reschedule(self._until_s())
            if not future.done():
                await asyncio.wait((future,))  # awaited itself, it would be cancelled when the time is over
            answer = future.result()
            attempt.pending.popleft()
            outcome = outcome_of_message(answer)
            if isinstance(outcome, AuthFailed) and not self._one_topic:
                outcome = Rejected(outcome.reason)
            self._keep(part, outcome, attempt)

    def _keep(self, part: Part, outcome: Outcome, attempt: "_Attempt") -> None:
        self._suspect.answered(_mark(part))
        self._begun.difference_update(_pairs(part))
        match outcome:
            case Ok():
                self._taken.update(_pairs(part))
            case Rejected() | TooLarge():
                attempt.refused.append((part, outcome))
            case _:
                attempt.pending.clear()  # they are sent again, behind this one
                raise Failed(outcome)

    def _fault(self, connection: Connection, part: Part, properties: Told) -> Rejected | TooLarge | None:
        (topic,) = part.key
        if not is_topic_filter(topic) or {"+", "#"} & {*topic} or len(topic.encode()) > LONGEST_TEXT:
            return Rejected(f"nothing can be published to {topic[:100]!r}", is_certain=True)
        size, most = len(part.body), self._limits.max_bytes
        if size <= most and connection.largest_packet is not None:
            size, most = connection.size_of(topic, part.body, properties), connection.largest_packet
        if size > most:
            return TooLarge(f"a message has {size:,} bytes, and {most:,} are the most")
        return None

    async def _broken(self, outcome: Outcome, attempt: "_Attempt", parts: Sequence[Part]) -> Outcome:
        connection = attempt.connection
        while attempt.pending and attempt.pending[0][1].done() and attempt.pending[0][1].exception() is None:
            part, future = attempt.pending.popleft()
            with suppress(Failed):  # what it says is said by the outcome
                self._keep(part, outcome_of_message(future.result()), attempt)
        if isinstance(outcome, NotConnected):
            blames = connection is not None and connection.ended is not None and connection.ended.blames_packet
            await self._drop(connection)
            if blames and attempt.pending and self._is_at_fault(attempt.pending[0][0]):
                words = f"{outcome.reason}, {ENDINGS} times in a row when it was sent this alone"
                self._begun.difference_update(_pairs(attempt.pending[0][0]))
                attempt.refused.append((attempt.pending[0][0], Rejected(words)))
                return attempt.refused[0][1] if len(parts) == 1 else named(attempt.refused)
            left = self._begun | self._taken
            return replace(outcome, sent=any(not left.isdisjoint(_pairs(part)) for part in parts))
        return outcome

    def _is_at_fault(self, part: Part) -> bool:
        """Whether it is time to think that the connection ends because of this message."""
        if self._suspect.ended_at(_mark(part)) <= ENDINGS:  # the first time it was not alone
            return False
        self._suspect.clear()
        return True

    def _until_s(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.timeout_s


@dataclass(slots=True)
class _Attempt:
    pending: deque[tuple[Part, asyncio.Future[Answer]]] = field(default_factory=deque)
    """On their way, in order."""
    refused: list[tuple[Part, Rejected | TooLarge]] = field(default_factory=list)
    connection: Connection | None = None
    """None as long as there is none to publish by."""


def _mark(part: Part) -> _Mark:
    return part.key, part.rows


def _pairs(part: Part) -> list[_Pair]:
    return [(part.key, row) for row in part.rows]


def _reason(outcome: Outcome) -> str:
    return "" if isinstance(outcome, Ok) else outcome.reason
