"""What a client publishes: what each message is, that it is the client's to send, and when it is answered.

Every inbound PUBLISH is answered here and nowhere else, in the order they came (acknowledgements). What a dead
connection has left here is handed on all the same; then comes its will. It does not: frame packets (connection), decide
what a reading is (ingest), or who gets a message (delivery).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from gateway.access import Credential, Device, Routed
from gateway.broker import packets
from gateway.broker.acknowledgements import Acknowledgements
from gateway.broker.hold import Hold
from gateway.broker.names import too_long
from gateway.broker.packets import BeyondLimit, MalformedPacket, Message
from gateway.broker.sessions import Session
from gateway.model.errors import StoreFailed

if TYPE_CHECKING:
    from gateway.broker.connection import Connection
    from gateway.broker.door import Door

_REPLY_QOS = 1  # a hub that does not hear it stops
_TOPICS_CACHED = 100
_UNRELEASED_AT_MOST = 1_000  # QoS 2 messages of one client that it has not released


class _Topic(NamedTuple):
    """What a topic is to a client."""

    name: str
    local: str
    """Its name behind the door."""
    telemetry_of: Device | None
    """These as in its Publication."""
    routed: Routed | None
    is_unheard: bool


class Publishing:
    """See the module's own words. It lasts from a client's login until its connection has ended and owes nothing."""

    def __init__(self, door: "Door", connection: "Connection", credential: Credential, session: Session) -> None:
        self._door = door
        self._connection = connection
        self.credential = credential
        self._session = session
        self._max_inflight = door.settings.max_inflight
        self._topics: dict[bytes, _Topic] = {}
        self._owed = Acknowledgements(self._hand_on, self._send_kept, connection.failed)
        self._taking: set[bytes] = set()
        """Packet ids of QoS 2 messages that are not answered yet."""
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended and nothing of it is still to be handed on, its will neither."""

    def take(self, first: int, data: bytes, start: int, end: int) -> None:
        """Take in the PUBLISH whose body is data[start:end]."""
        after_topic = start + 2 + (data[start] << 8 | data[start + 1]) if end - start >= 2 else end + 1
        qos = first >> 1 & 3
        body = after_topic + 2 if qos else after_topic
        if body > end:
            raise MalformedPacket("PUBLISH ends too early")
        name = data[start + 2 : after_topic]
        known = self._topics.get(name) or self._classify(name)
        if known is None:
            return
        ack = _acknowledgement(first, data[after_topic:body])
        received = None
        if qos == 2:
            received = data[after_topic:body]
            if not self._is_new(received):
                self._owe_in_turn(ack, None)
                return
        payload = data[body:end]
        retain = bool(first & 0x01)
        self.credential.statistics.messages_in += 1
        if known.telemetry_of is not None:
            if retain or self._door.delivery.wants(known.local):
                self._owed.owe_after_commit(ack, Message(known.local, payload, qos, retain), received)
            else:
                self._owed.owe_after_commit(ack, None, received)
            self._door.ingest.take(
                known.telemetry_of, payload, self, source=known.name, maybe_repeated=bool(first & 0x08)
            )
        elif known.routed is not None:
            message = Message(known.local, payload, qos, retain)
            self._take_routed(known.name, known.routed, message, ack, received, maybe_repeated=bool(first & 0x08))
        else:
            heard = None if known.is_unheard else Message(known.local, payload, qos, retain)
            self._owe_in_turn(ack, heard, received)
        if len(self._owed) >= self._max_inflight:
            self._connection.hold(Hold.INFLIGHT)

    def _take_routed(
        self, topic: str, routed: Routed, message: Message, ack: bytes, received: bytes | None, *, maybe_repeated: bool
    ) -> None:
        """Take in a message that a parser reads."""
        is_wanted = message.retain or self._door.delivery.wants(message.topic)
        self._owed.owe_after_commit(ack, message if is_wanted else None, received)
        if (reply := routed.parser.reply(topic)) is not None:
            # In its turn is after the report, which waits for its commit.
            local = self.credential.namespace + reply.topic
            self._owed.owe_in_turn(b"", Message(local, reply.payload, _REPLY_QOS, retain=False))
        self._door.ingest.take_routed(routed, message.payload, self, source=topic, maybe_repeated=maybe_repeated)

    def _owe_in_turn(self, ack: bytes, message: Message | None, received: bytes | None = None) -> None:
        self._owed.owe_in_turn(ack, message, received)
        self._connection.send(self._owed.due())

    def _is_new(self, packet_id: bytes) -> bool:
        """Whether a QoS 2 message is seen for the first time; it then waits for its release."""
        known = self._session.received
        if packet_id in known or packet_id in self._taking:
            return False
        if len(known) + len(self._taking) >= _UNRELEASED_AT_MOST:
            raise BeyondLimit("too_many_unreleased", f"more than {_UNRELEASED_AT_MOST} messages of QoS 2")
        self._taking.add(packet_id)
        return True

    def _hand_on(
        self,
        message: Message | None,
        received: bytes | None,
        done: Callable[[StoreFailed | None], None],
        *,
        in_turn: bool,
    ) -> bool:
        """Hand a message on to its subscribers; what a device says to a command is on disk before that."""

        def noted(error: StoreFailed | None) -> None:
            if error is not None or self._pass_on(message, received, done, in_turn=in_turn):
                done(error)

        if message is not None and self._door.take_answer(self.credential, message, noted):
            return False
        return self._pass_on(message, received, done, in_turn=in_turn)

    def _pass_on(
        self,
        message: Message | None,
        received: bytes | None,
        done: Callable[[StoreFailed | None], None],
        *,
        in_turn: bool,
    ) -> bool:
        """Hand a message on to its subscribers; by a QoS 2 packet id it is known from then on."""
        session, taking = self._session, self._taking
        if received is None or received not in taking:  # its client may have released it before it was answered
            return self._door.delivery.take(message, done, in_turn=in_turn)

        def taken() -> None:
            if received in taking:
                taking.discard(received)
                session.received.add(received)

        def on_disk(error: StoreFailed | None) -> None:
            if error is None:
                taken()
            done(error)

        is_all = self._door.delivery.take(message, on_disk, received=(session, received), in_turn=in_turn)
        if is_all:
            taken()
        return is_all

    def release(self, packet_id: bytes) -> None:
        """Hear a PUBREL."""
        self._taking.discard(packet_id)
        self._door.delivery.release(
            self._session, packet_id, lambda error: self._connection.answer(packets.PUBCOMP + packet_id, error)
        )

    def _send_kept(self, acks: bytes) -> None:
        self._connection.send(acks)
        self._read_on()

    def _classify(self, name: bytes) -> _Topic | None:
        """Return what a topic is to this client; closes the connection if it is not the client's."""
        topic = packets.check_topic(name)
        found = self._door.publication(self.credential, topic)
        if found is None:
            self._connection.end("foreign_topic", topic[:200])
            return None
        if too := too_long(topic, self._door.settings):
            raise BeyondLimit("topic_too_long", too)
        if len(self._topics) >= _TOPICS_CACHED:
            self._topics.clear()
        local = self.credential.namespace + topic
        known = _Topic(topic, local, found.telemetry_of, found.routed, found.is_unheard)
        if found.is_lasting:
            self._topics[name] = known
        return known

    def committed(self, count: int) -> None:
        """`count` more telemetry messages are on disk: acknowledge them, in one write."""
        if not self._owed:  # withheld when a commit failed
            return
        self._connection.send(self._owed.due(count))
        self._read_on()

    def failed(self, error: StoreFailed) -> None:
        """Something could not be stored: the client may send it again elsewhen."""
        self._connection.failed(error)

    def withhold(self) -> None:
        """Acknowledge nothing more."""
        self._owed.withhold()

    def handed_on(self) -> asyncio.Future[None]:
        """Return what is done when all that has been published by now is handed on, or never will be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owed.after_all(lambda: _finish(future))
        return future

    def leave(self, will: Message | None) -> None:
        """Hear that the connection has ended: its will comes after all that its client has published."""
        if will is None:
            self._owed.after_all(lambda: _finish(self.settled))
        else:
            self._owed.after_all(lambda: self._publish_soon(will))

    def _publish_soon(self, will: Message) -> None:
        """Not at once: the log may be in the middle of telling who waited for a commit."""
        asyncio.get_running_loop().call_soon(self._publish_last, will)

    def _publish_last(self, will: Message) -> None:
        try:
            self._door.wills.publish(self.credential, will, lambda: _finish(self.settled))
        except BaseException:
            _finish(self.settled)  # whoever waits for it must not wait for ever
            raise

    def _read_on(self) -> None:
        """Read again when enough has been acknowledged."""
        if len(self._owed) <= self._max_inflight // 2:
            self._connection.let_go(Hold.INFLIGHT)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _acknowledgement(first: int, packet_id: bytes) -> bytes:
    """Return what a PUBLISH with this first byte is answered with."""
    qos = first >> 1 & 3
    if qos == 0:
        if first & 0x08:
            raise MalformedPacket("DUP on QoS 0")
        return b""
    if qos == 3:
        raise MalformedPacket("QoS 3")
    if packet_id == b"\0\0":
        raise MalformedPacket("packet id 0")
    return (packets.PUBACK if qos == 1 else packets.PUBREC) + packet_id
