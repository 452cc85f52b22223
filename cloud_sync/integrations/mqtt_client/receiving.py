"""Receiving from somebody else's broker: one connection, with a session that outlives it.

- the client id stays the same and the session is kept, so the broker keeps what is published while we are away, as far
  as it does so, and sends again what we have not acknowledged
- at QoS 1, so each message is acknowledged, in order, when the inbox says so. What devices publish at QoS 0 comes at
  QoS 0: the broker neither keeps it for us nor sends it again
- what is retained comes with a new subscription; a kept one is not made anew, or all of it would come with each break
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from cloud_sync.contract import AuthFailed, Inbox, Incoming, NotConnected, Ok, Outcome
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.packets import Message
from cloud_sync.integrations.mqtt_client.reasons import Failed

_AT_ONCE = 100  # while these are read, nobody else is served: some milliseconds
_REPLIES_ON_THEIR_WAY = 100


class Receiving:
    """See the module's own words; one for as long as an integration is entered."""

    def __init__(self, broker: Broker, topics: Sequence[str], egress: Egress, *, timeout_s: float) -> None:
        """`broker` says the client id, and that the session is kept."""
        self._broker = broker
        self._topics = topics
        self._egress = egress
        self._timeout_s = timeout_s
        self._granted: str | None = None
        """What was to be mended when the session was told what we hear; None while it has not been."""

    async def receive(self, inbox: Inbox) -> Outcome:
        """Connect once, hand in what comes, and return why that has ended."""
        opening = open_connection(self._broker, self._egress, timeout_s=self._timeout_s, window=_REPLIES_ON_THEIR_WAY)
        try:
            async with aclosing(await opening) as connection:
                return await self._receive_by(connection, inbox)
        except Failed as error:
            return _outcome(error)

    async def _receive_by(self, connection: Connection, inbox: Inbox) -> Outcome:
        try:
            refused = await self._subscribed(connection)
            if refused is not None:
                return refused
            inbox.opened(_Line(connection, self._timeout_s), self._granted or "")
            while True:
                messages = await connection.received(_AT_ONCE)
                await inbox.take([_incoming(one) for one in messages])
        except asyncio.CancelledError:
            await inbox.settled()
            raise

    async def _subscribed(self, connection: Connection) -> Outcome | None:
        """Let the session know what we hear; return why that is nothing."""
        if connection.session_present and self._granted == "":
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await connection.subscribe(self._topics)
        except TimeoutError:
            return NotConnected("it does not answer what we want to hear")
        refused = [topic for topic, answer in zip(self._topics, answers, strict=True) if answer.is_refusal]
        words = f"it does not let us hear {', '.join(refused)}. Correct `topics`, or our rights there."
        if len(refused) == len(self._topics):
            return AuthFailed(words)
        self._granted = words if refused else ""
        return None


class _Line:
    """What messages came by."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def acknowledge(self, messages: Sequence[Incoming]) -> bool:
        try:
            await self._connection.acknowledge([one.source for one in messages if isinstance(one.source, Message)])
        except Failed:
            return False
        return True

    async def reply(self, topic: str, payload: bytes) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await (await self._connection.publish(topic, payload))
        except ValueError:  # nobody can be told there: the topic is too long
            return True
        except (Failed, TimeoutError):
            return False
        return True  # also when the broker says no: what it forbids once, it forbids always


def _incoming(message: Message) -> Incoming:
    maybe_repeated = message.is_repeated or message.retain
    return Incoming(message.topic, message.payload, maybe_repeated, message.cut_bytes, message)


def _outcome(error: Failed) -> Outcome:
    """Return what has happened, with what to do next: it is for whoever must mend it."""
    assert not isinstance(error.outcome, Ok)
    return replace(error.outcome, reason=f"{error.reason}. {error.hint}")
