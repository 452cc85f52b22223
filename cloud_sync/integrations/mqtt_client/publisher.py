"""Publishes batches of messages to a broker, at QoS 1: to the engine each is one request.

- In order, a window of them at once. The batch is done when the broker has acknowledged every message.
- When that fails in the middle, the retry goes on behind what was acknowledged; what was on its way is sent again. A
  message that was refused for a while takes those behind it along, so that the newest of a topic comes last.
- A message that is refused for good is named, and the engine cuts it out. It holds up what has to come behind
  its readings, nothing else (RefusedParts).
- A broker of MQTT 3.1.1 can only end the connection where it will not have a message. So one at which the connection
  has ended is sent alone; when that has happened three times in a row, it is refused. From the second time on it waits
  until the connection has held for a while: one that ends by itself, as where another client has our id, ends before.
- What is to be told beside readings (beside) is told before them, by the same connection (kept_connection).
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cloud_sync.contract import AuthFailed, NotConnected, Ok, Outcome, Rejected, TooLarge
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt_client.beside import Beside, Telling
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection
from cloud_sync.integrations.mqtt_client.kept_connection import KeptConnection, Status
from cloud_sync.integrations.mqtt_client.packets import Answer
from cloud_sync.integrations.mqtt_client.properties import LONGEST_TEXT, Property, Value
from cloud_sync.integrations.mqtt_client.reasons import Failed, outcome_of_message
from cloud_sync.integrations.mqtt_client.suspect import ENDINGS, Dispensable, Suspect
from cloud_sync.payload.in_parts import Key, Part
from cloud_sync.payload.refused_parts import RefusedParts
from cloud_sync.rate_limit import RateLimit
from gateway.model.topics import is_topic_filter

Told = Sequence[tuple[Property, Value]]
_Mark = tuple[Key, tuple[int, ...]]
_Pair = tuple[Key, int]
"""A topic and a row: what a message brings there. When a batch is split, other messages bring the same."""


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
        self._rate = rate
        self._limits = limits
        self._retain = retain
        self._one_topic = one_topic
        dispensable = Dispensable()
        self._kept = KeptConnection(
            broker, egress, dispensable, timeout_s=limits.timeout_s, window=limits.window, random=random
        )
        self._telling = None if beside is None else Telling(beside, rate, dispensable, self._until_s)
        self._taken: set[_Pair] = set()
        """What the broker has, of batches that are not done."""
        self._begun: set[_Pair] = set()
        """What may have left, and was not answered."""
        self._suspect = Suspect[_Mark](endings=ENDINGS + 1)
        """At which message the connection has ended; the first time it was not alone."""

    async def send(self, parts: Sequence[Part], told: Callable[[Part], Told], status: Status | None) -> Outcome:
        """Try once. `told` returns the properties of a message, for MQTT 5."""
        attempt = _Attempt()
        try:
            attempt.connection = connection = await self._kept.connected(status)
            async with asyncio.timeout(self._limits.timeout_s) as limit:
                if self._telling is not None:
                    await self._telling.tell(connection, limit, has_readings=bool(parts))
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
            return attempt.refused.outcome(parts)
        return Ok()

    async def close(self) -> None:
        """Say that we go, and end the connection."""
        await self._kept.close()

    async def _publish(
        self, connection: Connection, part: Part, properties: Told, attempt: "_Attempt", limit: asyncio.Timeout
    ) -> None:
        if part.key in attempt.several:
            await self._collect(attempt, limit, waits=True)
        if attempt.refused.is_held_up(part):
            return
        if (fault := self._fault(connection, part, properties)) is not None:
            attempt.refused.add(part, fault)
            return
        is_suspect = _mark(part) == self._suspect.key
        await self._collect(attempt, limit, waits=is_suspect)
        limit.reschedule(None)  # that the rate is limited is no silence of the broker's
        if is_suspect:
            await self._suspect.held(connection)
        await self._rate.take()
        limit.reschedule(self._until_s())
        self._begun.update(_pairs(part))
        (topic,) = part.key
        attempt.leaving = part if connection.ended is None else None
        future = await connection.publish(topic, part.body, retain=self._retain, properties=properties)
        attempt.leaving = None
        attempt.pending.append((part, future))
        if len(part.rows) > 1:
            attempt.several.add(part.key)
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
                attempt.refused.add(part, outcome)
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
            await self._kept.drop(connection)
            suspect = attempt.pending[0][0] if attempt.pending else attempt.leaving
            if blames and suspect is not None and self._suspect.ended_at(_mark(suspect)):
                words = f"{outcome.reason}, {ENDINGS} times in a row when it was sent this alone"
                self._begun.difference_update(_pairs(suspect))
                attempt.refused.add(suspect, Rejected(words))
                return attempt.refused.outcome(parts)
            left = self._begun | self._taken
            return replace(outcome, sent=any(not left.isdisjoint(_pairs(part)) for part in parts))
        return outcome

    def _until_s(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.timeout_s


@dataclass(slots=True)
class _Attempt:
    pending: deque[tuple[Part, asyncio.Future[Answer]]] = field(default_factory=deque)
    """On their way, in order."""
    leaving: Part | None = None
    """Behind these, and not all of it has left: a connection may end in the middle of a large message."""
    refused: RefusedParts = field(default_factory=RefusedParts)
    several: set[Key] = field(default_factory=set)
    """Topics to which a message of several readings was sent."""
    connection: Connection | None = None
    """None as long as there is none to publish by."""


def _mark(part: Part) -> _Mark:
    return part.key, part.rows


def _pairs(part: Part) -> list[_Pair]:
    return [(part.key, row) for row in part.rows]
