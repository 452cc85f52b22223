"""What is told beside readings, such as to a Home Assistant at the broker, before them and on the same connection.

- It is told until the broker has it. A message that the broker refuses, or that is larger than it takes, is left out.
- A broker of MQTT 3.1.1 can only end the connection where it will not have something. So what had no answer then is
  told one by one; when the connection has ended three times in a row at one message, that is left out from then on, and
  the rest is told. When so many were left out, all is: then it is no matter of the single message.
- After such an end readings go first, once: they do not wait while it is found out.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from cloud_sync.contract import AuthFailed, Ok, Rejected, TooLarge
from cloud_sync.integrations.mqtt_client.connection import Connection
from cloud_sync.integrations.mqtt_client.packets import Answer, Message
from cloud_sync.integrations.mqtt_client.reasons import Failed, outcome_of_message
from cloud_sync.integrations.mqtt_client.suspect import Dispensable
from cloud_sync.rate_limit import RateLimit

_logger = logging.getLogger(__name__)

_HEARD_AT_MOST = 1_000
_LEFT_OUT_AT_MOST = 10
"""Single messages; beyond that all are left out."""
_ALL = "anything is told beside readings"


class Beside(Protocol):
    """What is told beside readings."""

    @property
    def filters(self) -> Sequence[str]:
        """What is heard for it; where that is refused, nothing is."""
        ...

    def due(self, heard: Sequence[Message], *, is_new: bool) -> Sequence[tuple[str, bytes]]:
        """Return messages that are to be told now, retained: topic and payload, one for each topic.

        `heard` is what has come since; `is_new` says that nothing was told on this connection yet.
        """
        ...

    def told(self) -> None:
        """Hear that the broker has all of them."""
        ...


class Telling:
    """Tells it, whenever something is due."""

    def __init__(self, beside: Beside, rate: RateLimit, dispensable: Dispensable, until_s: Callable[[], float]) -> None:
        """`until_s`: how long an answer is waited for from now on, by the loop's clock."""
        self._beside = beside
        self._rate = rate
        self._dispensable = dispensable
        self._until_s = until_s
        self._told_on: Connection | None = None
        """Where something was told last."""
        self._messages_left_out = 0
        self._readings_first = False

    async def tell(self, connection: Connection, limit: asyncio.Timeout, *, has_readings: bool) -> None:
        """Tell what is due beside readings. Raises Failed, also when the broker allows nothing of it.

        One message that it does not take is left out: it must not hold up readings.
        """
        readings_first, self._readings_first = self._readings_first and has_readings, False
        if readings_first:
            return
        try:
            await self._tell(connection, limit)
        except Failed as error:
            self._readings_first = error.blames_packet
            raise

    async def _tell(self, connection: Connection, limit: asyncio.Timeout) -> None:
        beside = self._beside
        is_new = connection is not self._told_on
        words = f"we ask to hear {', '.join(beside.filters)}"
        if is_new and beside.filters and not self._dispensable.is_left_out(words):
            with self._dispensable.trying(words):
                await connection.subscribe(beside.filters, qos=0)
        heard = await connection.received(_HEARD_AT_MOST) if connection.has_received else []
        if not self._dispensable.is_left_out(_ALL):
            await self._tell_all(connection, beside.due(heard, is_new=is_new), limit)
        self._told_on = connection
        beside.told()

    async def _tell_all(
        self, connection: Connection, messages: Sequence[tuple[str, bytes]], limit: asyncio.Timeout
    ) -> None:
        suspect = self._dispensable.suspect
        unanswered: dict[str, asyncio.Future[Answer] | None] = {}
        is_alone = False
        """From the first on that had no answer when the connection ended: the one at fault may be behind it."""
        try:
            for topic, payload in messages:
                if self._dispensable.is_left_out(_told(topic)) or _is_too_large(connection, topic, payload):
                    continue
                is_suspect = _told(topic) == suspect.key
                is_alone = is_alone or is_suspect
                if is_suspect:
                    await self._answered(unanswered, limit)
                limit.reschedule(None)  # that we wait is no silence of the broker's
                if is_suspect:
                    await suspect.held(connection)
                await self._rate.take()
                limit.reschedule(self._until_s())
                if connection.ended is None:
                    unanswered[topic] = None
                unanswered[topic] = await connection.publish(topic, payload, retain=True)
                if is_alone:
                    await self._answered(unanswered, limit)
            await self._answered(unanswered, limit)
        except Failed as error:
            topics = [topic for topic, future in unanswered.items() if future is None or not _is_answered(future)]
            if error.blames_packet and topics:
                self._ended_at(topics[0])
            raise

    async def _answered(self, unanswered: dict[str, asyncio.Future[Answer] | None], limit: asyncio.Timeout) -> None:
        """Take all answers. Raises Failed for what a later attempt may mend."""
        for topic, future in [*unanswered.items()]:
            assert future is not None
            limit.reschedule(self._until_s())
            await asyncio.wait((future,))
            outcome = outcome_of_message(future.result())
            del unanswered[topic]
            self._dispensable.suspect.answered(_told(topic))
            match outcome:
                case Ok():
                    pass
                case AuthFailed():
                    raise Failed(AuthFailed(f"{outcome.reason}, for the topic {topic}"))
                case Rejected() | TooLarge():
                    _logger.warning("not told: %s, for the topic %s", outcome.reason, topic)
                case _:
                    raise Failed(outcome)

    def _ended_at(self, topic: str) -> None:
        if self._dispensable.suspect.ended_at(_told(topic)):
            self._messages_left_out += 1
            self._dispensable.leave_out(_told(topic) if self._messages_left_out <= _LEFT_OUT_AT_MOST else _ALL)


def _told(topic: str) -> str:
    return f"{topic} is told"


def _is_answered(future: asyncio.Future[Answer]) -> bool:
    return future.done() and future.exception() is None


def _is_too_large(connection: Connection, topic: str, payload: bytes) -> bool:
    size, most = connection.size_of(topic, payload), connection.largest_packet
    if most is None or size <= most:
        return False
    _logger.warning("not told: a message has %d bytes, and %d are the most, for the topic %s", size, most, topic)
    return True
