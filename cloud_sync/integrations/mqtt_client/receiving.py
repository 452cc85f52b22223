"""Receiving from somebody else's broker: one connection, with a session that outlives it.

- the client id stays the same and the session is kept, so the broker keeps what is published while we are away, as far
  as it does so, and sends again what we have not acknowledged
- at QoS 1, so each message is acknowledged, in order, when the inbox says so. What devices publish at QoS 0 comes at
  QoS 0: the broker neither keeps it for us nor sends it again
- what is retained comes with a new subscription; a kept one is not made anew, or all of it would come with each break
- a broker may end the connection at a reply that it does not allow. Its message would come again for ever, and nothing
  behind it: when that has happened three times in a row, such replies are left out, and its owner is told
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
from cloud_sync.integrations.mqtt_client.suspect import Suspect

_AT_ONCE = 100  # while these are read, nobody else is served: some milliseconds
_REPLIES_ON_THEIR_WAY = 100
_LEFT_OUT_AT_MOST = 1_000


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
        self._replies = _Replies()

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
            line = _Line(connection, self._timeout_s, self._replies)
            inbox.opened(line, self._granted or self._replies.problem)
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


class _Replies:
    """At which replies connections have ended: one of them is sent alone, so that it is known to be the reason."""

    def __init__(self) -> None:
        self.problem = ""
        """What is to be mended."""
        self.alone = asyncio.Lock()
        self.suspect = Suspect[str]()
        self._left_out: dict[str, None] = {}

    def leaves_out(self, topic: str) -> bool:
        return topic in self._left_out

    def ended_at(self, topic: str) -> None:
        if self.suspect.ended_at(topic):
            self._left_out[topic] = None
            if len(self._left_out) > _LEFT_OUT_AT_MOST:
                del self._left_out[next(iter(self._left_out))]
            self.problem = (
                f"it ends the connection when we reply to {topic}: nobody is replied to there. Allow it there"
            )


class _Line:
    """What messages came by."""

    def __init__(self, connection: Connection, timeout_s: float, replies: _Replies) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._replies = replies
        self._has_ended = False

    async def acknowledge(self, messages: Sequence[Incoming]) -> bool:
        try:
            await self._connection.acknowledge([one.source for one in messages if isinstance(one.source, Message)])
        except Failed:
            return False
        return True

    async def reply(self, topic: str, payload: bytes) -> bool:
        if self._replies.leaves_out(topic):
            return True
        if self._replies.suspect.key is None:
            return await self._reply(topic, payload)
        async with self._replies.alone:
            return await self._reply(topic, payload)

    async def _reply(self, topic: str, payload: bytes) -> bool:
        if self._has_ended:
            return False
        try:
            async with asyncio.timeout(self._timeout_s):
                await (await self._connection.publish(topic, payload))
        except ValueError:  # nobody can be told there: the topic is too long
            return True
        except Failed as error:
            is_first, self._has_ended = not self._has_ended, True
            if is_first and (error.blames_packet or isinstance(error.outcome, AuthFailed)):
                self._replies.ended_at(topic)
            return False
        except TimeoutError:
            return False
        self._replies.suspect.answered(topic)
        return True  # also when the broker says no: what it forbids once, it forbids always


def _incoming(message: Message) -> Incoming:
    maybe_repeated = message.is_repeated or message.retain
    return Incoming(message.topic, message.payload, maybe_repeated, message.cut_bytes, message)


def _outcome(error: Failed) -> Outcome:
    """Return what has happened, with what to do next: it is for whoever must mend it."""
    assert not isinstance(error.outcome, Ok)
    return replace(error.outcome, reason=f"{error.reason}. {error.hint}")
