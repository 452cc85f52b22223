"""What is told beside readings, such as to a Home Assistant at the broker, before them and on the same connection.

Where a broker ends the connection at that, three times in a row, it is left out from then on: readings go all the same.
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

    async def tell(self, connection: Connection, limit: asyncio.Timeout) -> None:
        """Tell what is due beside readings. Raises Failed, also when the broker allows nothing of it.

        One message that it does not take is left out: it must not hold up readings.
        """
        beside = self._beside
        is_new = connection is not self._told_on
        words = f"we ask to hear {', '.join(beside.filters)}"
        if is_new and beside.filters and not self._dispensable.is_left_out(words):
            with self._dispensable.trying(words):
                await connection.subscribe(beside.filters, qos=0)
        heard = await connection.received(_HEARD_AT_MOST) if connection.has_received else []
        words = "something is told beside readings"
        if not self._dispensable.is_left_out(words):
            with self._dispensable.trying(words):
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
