"""One MQTT connection at the front door.

It frames packets, checks them, and answers every inbound PUBLISH itself (acknowledgements). It does not decide who may
come in (access), what a reading is (ingest), who gets a message (delivery), what is remembered of a client (sessions),
or which connection is one too many (door).
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from gateway.access import Credential, Device
from gateway.broker import packets
from gateway.broker.acknowledgements import Acknowledgements
from gateway.broker.packets import Connect, MalformedPacket, Message, PacketType, UnsupportedProtocol
from gateway.broker.sessions import Session
from gateway.broker.sys_topics import SYS
from gateway.model.errors import StoreFailed

if TYPE_CHECKING:
    from gateway.broker.door import Door

logger = logging.getLogger(__name__)

_TOPICS_CACHED = 100
_LAST_WORD_S = 1.0
_UNRELEASED_AT_MOST = 1_000  # QoS 2 messages of one client that it has not released
_ACKS_IN_SOCKET = 2  # what we answer may exceed what a subscriber's socket may hold, by this factor
_KEEPALIVE_FACTOR = 1.5  # MQTT 3.1.1, 3.1.2.10


class _Topic(NamedTuple):
    """What a topic is to a client."""

    name: str
    local: str
    """Its name behind the door."""
    telemetry_of: Device | None
    """Whose reading a message on it is; None when it is none."""


class Connection(asyncio.Protocol):
    """See the module's own words."""

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._rest = b""
        self._connect: Connect | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_heard = 0.0
        self._topics: dict[bytes, _Topic] = {}
        self._owed = Acknowledgements(self._hand_on, self._send_kept, self.failed)
        self._taking: set[bytes] = set()
        """Packet ids of QoS 2 messages that are not answered yet."""
        self._paused = False
        self._session: Session | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._ended = False
        self.credential: Credential | None = None
        self.client_id = ""
        self.peer = "unknown"
        self.lost = self._loop.create_future()
        """Done when the socket is closed."""

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if name else "unknown"
        self._transport.set_write_buffer_limits(high=self._door.settings.max_subscriber_buffer_bytes)
        if not self._door.admit(self):
            self._end("too_many_connections")
            return
        self._timer = self._loop.call_later(self._door.settings.connect_timeout_s, self._end, "connect_timeout")

    def data_received(self, data: bytes) -> None:
        """Take in bytes; handles every whole packet among them."""
        if self._ended:
            return
        self._last_heard = self._loop.time()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._connecting is not None:  # the login is being checked: nothing after CONNECT is looked at
            self._rest = data
            return
        try:
            self._handle_packets(data)
        except MalformedPacket as error:
            self._end("malformed", str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything; a client that did not say goodbye leaves its will."""
        try:
            self._end("connection_lost" if exc is None else "connection_error")
        finally:
            self._door.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._stuck is not None:
            self._stuck.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """The client reads slower than it is sent to: it gets nothing more, and not much time."""
        if self._stuck is None and not self._ended:
            patience_s = self._door.settings.subscriber_timeout_s
            self._stuck = self._loop.call_later(patience_s, self._give_up_subscriber)

    def resume_writing(self) -> None:
        """The client has read most of what it was sent."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        if self._session is not None and not self._ended:
            self._door.delivery.go_on(self._session)

    def _give_up_subscriber(self) -> None:
        self._end("slow_subscriber")
        self._transport.abort()

    @property
    def is_stuck(self) -> bool:
        """Whether so much waits in the socket that nothing should be added."""
        return self._stuck is not None

    def _handle_packets(self, data: bytes) -> None:
        position, size, published = 0, len(data), 0
        if self.credential is None and data[0] >> 4 != PacketType.CONNECT:  # for example HTTP: no need to wait for more
            raise MalformedPacket("the first packet is not CONNECT")
        limit = self._door.settings.max_packet_bytes
        while size - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if length >= 0x80:
                length, start = packets.remaining_length(data, position + 1)
                if length < 0:
                    break
            if length > limit:
                self._end("packet_too_big", f"{length} bytes")
                return
            end = start + length
            if end > size:
                break
            if first >> 4 == PacketType.PUBLISH and self.credential is not None:
                self._publish(first, data, start, end)
                published += 1
            else:
                self._other_packet(first, data[start:end])
            position = end
            if self._ended:
                return
            if self._connecting is not None:
                break
        self._rest = data[position:]
        self._door.received += published

    # Publishing

    def _publish(self, first: int, data: bytes, start: int, end: int) -> None:
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
        assert self.credential is not None
        self.credential.statistics.messages_in += 1
        if known.telemetry_of is not None:
            if retain or self._door.delivery.wants(known.local):
                self._owed.owe_after_commit(ack, Message(known.local, payload, qos, retain), received)
            else:
                self._owed.owe_after_commit(ack, None, received)
            self._door.ingest.take(
                known.telemetry_of, payload, self, source=known.name, maybe_repeated=bool(first & 0x08)
            )
        else:
            self._owe_in_turn(ack, Message(known.local, payload, qos, retain), received)
        if len(self._owed) >= self._door.settings.max_inflight and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _owe_in_turn(self, ack: bytes, message: Message | None, received: bytes | None = None) -> None:
        self._owed.owe_in_turn(ack, message, received)
        self.send(self._owed.due())

    def _is_new(self, packet_id: bytes) -> bool:
        """Whether a QoS 2 message is seen for the first time; it then waits for its release."""
        assert self._session is not None
        known = self._session.received
        if packet_id in known or packet_id in self._taking:
            return False
        if len(known) + len(self._taking) >= _UNRELEASED_AT_MOST:
            raise MalformedPacket(f"more than {_UNRELEASED_AT_MOST} messages of QoS 2 without a release")
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
        """Hand a message on to its subscribers; by a QoS 2 packet id it is known from then on."""
        session, taking = self._session, self._taking
        assert session is not None
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

    def _send_kept(self, acks: bytes) -> None:
        self.send(acks)
        self._read_on()

    def _classify(self, name: bytes) -> _Topic | None:
        """Return what a topic is to this client; closes the connection if it is not the client's."""
        assert self.credential is not None
        topic = packets.check_topic(name)
        if topic.startswith("$") or not self._door.may_publish(self.credential, topic):
            self._end("foreign_topic", topic[:200])
            return None
        if len(self._topics) >= _TOPICS_CACHED:
            self._topics.clear()
        telemetry_of = self._door.telemetry_of(self.credential, topic)
        known = _Topic(topic, self.namespace + topic, telemetry_of)
        if telemetry_of is None or telemetry_of.is_known:
            self._topics[name] = known
        return known

    def committed(self, count: int) -> None:
        """`count` more telemetry messages are on disk: acknowledge them, in one write."""
        if not self._owed:  # withheld when a commit failed
            return
        self.send(self._owed.due(count))
        self._read_on()

    def _read_on(self) -> None:
        """Read again when enough has been acknowledged."""
        if self._paused and len(self._owed) <= self._door.settings.max_inflight // 2 and not self._ended:
            self._paused = False
            self._last_heard = self._loop.time()  # its silence was ours
            self._transport.resume_reading()

    def failed(self, error: StoreFailed) -> None:
        """Something could not be stored: acknowledge nothing more, and let the client send it again elsewhen."""
        self._owed.withhold()
        self._end("store_failed", error.message)

    # Everything but PUBLISH

    def _other_packet(self, first: int, body: bytes) -> None:
        kind, flags = first >> 4, first & 0x0F
        if self.credential is None:
            self._start_connect(flags, body)
        elif kind == PacketType.PINGREQ and not flags and not body:
            self.send(packets.PINGRESP)
        elif kind == PacketType.PUBREL and flags == 0x02:
            self._released(packets.packet_id(body))
        elif kind == PacketType.DISCONNECT and not flags and not body:
            self._connect = None  # a goodbye: no will
            self._end("disconnect")
        elif kind == PacketType.SUBSCRIBE:
            self._subscribe(*packets.decode_subscribe(first, body))
        elif kind == PacketType.UNSUBSCRIBE:
            self._unsubscribe(*packets.decode_subscribe(first, body))
        elif kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP) and not flags:
            self._acknowledged(kind, int.from_bytes(packets.packet_id(body), "big"))
        else:
            raise MalformedPacket(f"unexpected packet type {kind} with flags {flags}")

    def _released(self, packet_id: bytes) -> None:
        assert self._session is not None
        self._taking.discard(packet_id)
        self._door.delivery.release(
            self._session, packet_id, lambda error: self._answer(packets.PUBCOMP + packet_id, error)
        )

    def _subscribe(self, packet_id: bytes, asked: list[tuple[str, int]]) -> None:
        assert self._session is not None
        self._door.delivery.subscribe(
            self._session,
            [(self._local_filter(name), qos) for name, qos in asked],
            lambda codes: self.send(packets.encode_suback(packet_id, codes)),
            lambda error: self._answer(b"", error),
        )

    def _unsubscribe(self, packet_id: bytes, asked: list[tuple[str, int]]) -> None:
        assert self._session is not None
        names = [self._local_filter(name) for name, _ in asked]
        self._door.delivery.unsubscribe(
            self._session, names, lambda error: self._answer(packets.UNSUBACK + packet_id, error)
        )

    def _acknowledged(self, kind: int, packet_id: int) -> None:
        session = self._session
        if session is None or session.outbox is None:
            return
        if kind == PacketType.PUBACK:
            session.outbox.acknowledged(packet_id)
        elif kind == PacketType.PUBREC:
            session.outbox.received(packet_id)
        else:
            session.outbox.completed(packet_id)
        if session.replay is not None:
            self._door.delivery.go_on(session)

    def _answer(self, answer: bytes, error: StoreFailed | None) -> None:
        """Answer what had to be on disk first."""
        if error is None:
            self.send(answer)
        else:
            self.failed(error)

    def _local_filter(self, name: str) -> str:
        """Return what a topic filter is behind the door."""
        return name if name.startswith(SYS) else self.namespace + name

    @property
    def namespace(self) -> str:
        """What the door puts before every topic."""
        assert self.credential is not None
        return self.credential.namespace

    @property
    def local_id(self) -> str:
        """The client id behind the door: nobody can take over one that is not theirs."""
        assert self.credential is not None
        return f"{self.credential.username}|{self.client_id}"

    # Coming and going

    def _start_connect(self, flags: int, body: bytes) -> None:
        try:
            connect = packets.decode_connect(flags, body)
        except UnsupportedProtocol as error:
            self._refuse(error.answer, "unsupported_protocol")
            return
        is_nameless = not connect.client_id and not connect.clean_session  # nothing to keep a session by
        if is_nameless or len(connect.client_id) > packets.LONGEST_CLIENT_ID:
            self._refuse(packets.CONNACK_BAD_CLIENT_ID, "bad_client_id")
            return
        self._transport.pause_reading()
        self._connecting = self._loop.create_task(self._log_in(connect), name=f"connect {self.peer}")
        self._connecting.add_done_callback(self._logged_in)

    async def _log_in(self, connect: Connect) -> None:
        """Authenticate, end an older connection of the same client, and let it in."""
        credential = self._door.authenticate(connect.username, connect.password)
        if self._ended:
            return
        if credential is None:
            await self._refuse_later(connect.username)
            return
        if connect.will is not None and not self._door.may_publish(credential, connect.will.topic):
            self._refuse(packets.CONNACK_NOT_AUTHORIZED, "foreign_will", connect.will.topic[:200])
            return
        if self._door.ingest.is_full:
            self._refuse(packets.CONNACK_UNAVAILABLE, "store_full")
            return
        self.client_id = connect.client_id or self._door.new_client_id()
        self.credential = credential
        await self._door.take_over(self)
        try:
            await self._door.delivery.sessions.clear_way(self.local_id, clean=connect.clean_session)
        except StoreFailed as error:
            self._refuse(packets.CONNACK_UNAVAILABLE, "store_failed", error.message)
        if self._ended or self._transport.is_closing():
            self._door.leave(self)
            return
        self._connect = connect
        self._door.came_in(credential)
        if self._timer is not None:
            self._timer.cancel()
        self._watch(connect.keepalive_s)
        self._session, is_present = self._door.delivery.sessions.open(
            self.local_id, self.namespace, clean=connect.clean_session, link=self
        )
        self.send(packets.CONNACK_SESSION_PRESENT if is_present else packets.CONNACK_ACCEPTED)
        self._door.delivery.resume(self._session, self)

    async def _refuse_later(self, username: str | None) -> None:
        """Answer a login that is not right, the later the more often such a one has failed."""
        known = self._door.is_known(username)  # a name that is nobody's may be a password
        with self._door.login_delay.failed(self.peer.rpartition(":")[0], known or None) as delay_s:
            self._door.delayed(delay_s)
            if self._timer is not None:
                self._timer.cancel()
            await asyncio.wait([self.lost], timeout=delay_s)
        if not self._ended:
            told = f"{known or 'an unknown username'}, answered after {delay_s:g} s"
            self._refuse(packets.CONNACK_NOT_AUTHORIZED, "not_authorized", told)

    def _logged_in(self, task: asyncio.Task[None]) -> None:
        """Go on with what has arrived since CONNECT."""
        self._connecting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("login failed by a fault of ours", exc_info=error)
            self._end("internal_error")
        if not self._ended:
            self._transport.resume_reading()
            held, self._rest = self._rest, b""
            self.data_received(held)

    def _watch(self, keepalive_s: int) -> None:
        """Notice a dead peer: by MQTT's keepalive, or by TCP's where the client asked for none."""
        if keepalive_s:
            self._timer = self._loop.call_later(
                keepalive_s * _KEEPALIVE_FACTOR, self._check_alive, keepalive_s * _KEEPALIVE_FACTOR
            )
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _check_alive(self, patience_s: float) -> None:
        left = self._last_heard + patience_s - self._loop.time()
        if left <= 0 and not self._paused:  # while we do not read, its silence is ours
            self._end("keepalive")
        else:
            self._timer = self._loop.call_later(left if left > 0 else 1.0, self._check_alive, patience_s)

    def _refuse(self, answer: bytes, reason: str, detail: str = "") -> None:
        self.send(answer)
        self._end(reason, detail)

    def end(self, reason: str, detail: str = "") -> None:
        """Close the connection for a reason outside it: taken over, revoked, stopping, not MQTT's transport."""
        self._end(reason, detail)

    def _end(self, reason: str, detail: str = "") -> None:
        """Close once, say why, and publish the will unless the client said goodbye."""
        if self._ended:
            return
        self._ended = True
        self._door.closed(self, reason, detail)
        if self._session is not None:
            self._door.delivery.sessions.leave(self._session, self)
        self._transport.close()
        if self._transport.get_write_buffer_size():  # a last word is on its way; a peer that does not read gets none
            self._loop.call_later(_LAST_WORD_S, self._transport.abort)
        if self._connect is not None and self._connect.will is not None and reason != "stopping":
            self._door.publish_will(self, self._connect.will)

    def send(self, data: bytes) -> None:
        """Send packets; whoever asks for answers and does not read them is closed."""
        if not data or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._stuck is None:
            return
        if self._transport.get_write_buffer_size() > _ACKS_IN_SOCKET * self._door.settings.max_subscriber_buffer_bytes:
            self._give_up_subscriber()


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
