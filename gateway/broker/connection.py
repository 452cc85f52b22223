"""One MQTT connection at the front door.

It frames packets, checks them, and answers every inbound PUBLISH itself (acknowledgements). Subscriptions go to the
broker behind. It does not decide who may come in (access), what a reading is (ingest), or which connection is one too
many (door).
"""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, NamedTuple, cast

from gateway.access import Credential, Device
from gateway.broker import packets
from gateway.broker.acknowledgements import Acknowledgements
from gateway.broker.local import Attachment
from gateway.broker.packets import Connect, MalformedPacket, Message, PacketType, UnsupportedProtocol
from gateway.model.errors import StoreFailed

if TYPE_CHECKING:
    from gateway.broker.door import Door

logger = logging.getLogger(__name__)

_TOPICS_CACHED = 100
_LAST_WORD_S = 1.0
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
        self._owed = Acknowledgements(door.fan_out)
        self._unreleased: set[bytes] = set()
        """Packet ids of QoS 2 messages that were taken and not yet released."""
        self._paused = False
        self._attachment: Attachment | None = None
        self._ended = False
        self.credential: Credential | None = None
        self.client_id = ""
        self.peer = "unknown"
        self.lost = self._loop.create_future()
        """Done when the socket is closed and the broker behind has let go of the client."""

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if name else "unknown"
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
        if self._attachment is not None:
            self._attachment.close()
        detaching = self._loop.create_task(self._detach(), name="detach")
        self._door.keep(detaching)

    async def _detach(self) -> None:
        if self._attachment is not None:
            await self._attachment.closed()
        self.lost.set_result(None)

    def _handle_packets(self, data: bytes) -> None:
        position, size = 0, len(data)
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
            else:
                self._other_packet(first, data[start:end], data[position:end])
            position = end
            if self._ended:
                return
            if self._connecting is not None:
                break
        self._rest = data[position:]

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
        if qos == 2 and not self._is_new(data[after_topic:body]):
            self._owe_in_turn(ack, None)
            return
        payload = data[body:end]
        retain = bool(first & 0x01)
        assert self.credential is not None
        self.credential.statistics.messages_in += 1
        if known.telemetry_of is not None:
            if retain or self._door.local.wants(known.local):
                self._owed.owe_after_commit(ack, Message(known.local, payload, qos, retain))
            else:
                self._owed.owe_after_commit(ack)
            self._door.ingest.take(
                known.telemetry_of, payload, self, source=known.name, maybe_repeated=bool(first & 0x08)
            )
        else:
            self._owe_in_turn(ack, Message(known.local, payload, qos, retain))
        if len(self._owed) >= self._door.settings.max_inflight and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _owe_in_turn(self, ack: bytes, message: Message | None) -> None:
        self._owed.owe_in_turn(ack, message)
        self._send(self._owed.due())

    def _is_new(self, packet_id: bytes) -> bool:
        """Whether a QoS 2 message is seen for the first time; it then waits for its release."""
        if packet_id in self._unreleased:
            return False
        self._unreleased.add(packet_id)
        return True

    def _classify(self, name: bytes) -> _Topic | None:
        """Return what a topic is to this client; closes the connection if it is not the client's."""
        assert self.credential is not None
        topic = packets.check_topic(name)
        if not self._door.may_publish(self.credential, topic):
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
        self._send(self._owed.due(count))
        if self._paused and len(self._owed) <= self._door.settings.max_inflight // 2 and not self._ended:
            self._paused = False
            self._last_heard = self._loop.time()  # its silence was ours
            self._transport.resume_reading()

    def failed(self, error: StoreFailed) -> None:
        """Telemetry could not be stored: acknowledge nothing more, and let the client send it again elsewhen."""
        self._owed.withhold()
        self._end("store_failed", error.message)

    # Everything but PUBLISH

    def _other_packet(self, first: int, body: bytes, packet: bytes) -> None:
        kind, flags = first >> 4, first & 0x0F
        if self.credential is None:
            self._start_connect(flags, body)
        elif kind == PacketType.PINGREQ and not flags and not body:
            self._send(packets.PINGRESP)
        elif kind == PacketType.PUBREL and flags == 0x02:
            self._unreleased.discard(packets.packet_id(body))
            self._send(packets.PUBCOMP + body)
        elif kind == PacketType.DISCONNECT and not flags and not body:
            self._connect = None  # a goodbye: no will
            self._end("disconnect")
        elif kind in (PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE):
            subscription = packets.namespaced_subscription(first, body, self.namespace)
            self._attach().feed(subscription)
        elif kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP) and not flags:
            packets.packet_id(body)
            if self._attachment is not None:
                self._attachment.feed(packet)
        else:
            raise MalformedPacket(f"unexpected packet type {kind} with flags {flags}")

    def _attach(self) -> Attachment:
        if self._attachment is None:
            assert self._connect is not None
            host, _, port = self.peer.rpartition(":")
            self._attachment = self._door.local.attach(
                self.local_id,
                clean_session=self._connect.clean_session,
                peer=(host, int(port)) if port else ("unknown", 0),
                send=self._from_local,
                ended=lambda: self._end("broker_gone"),
            )
        return self._attachment

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

    def _from_local(self, packet: bytes) -> None:
        """Pass a packet of the broker behind on to the client, but for the CONNACK that it has already."""
        kind = packet[0] >> 4
        if kind == PacketType.PUBLISH:
            self._send(packets.without_namespace(packet, self.namespace))
        elif kind != PacketType.CONNACK:
            self._send(packet)

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
        if self._transport.is_closing():
            self._door.leave(self)
            return
        self._connect = connect
        self._door.came_in(credential)
        if self._timer is not None:
            self._timer.cancel()
        self._watch(connect.keepalive_s)
        has_session = self._door.local.has_session(self.local_id)
        is_resumed = has_session and not connect.clean_session
        self._send(packets.CONNACK_SESSION_PRESENT if is_resumed else packets.CONNACK_ACCEPTED)
        if has_session or not connect.clean_session:
            self._attach()  # to resume its session, to keep one, or to end one

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
        self._send(answer)
        self._end(reason, detail)

    def end(self, reason: str) -> None:
        """Close the connection for a reason outside it: taken over, revoked, stopping."""
        self._end(reason)

    def _end(self, reason: str, detail: str = "") -> None:
        """Close once, say why, and publish the will unless the client said goodbye."""
        if self._ended:
            return
        self._ended = True
        self._door.closed(self, reason, detail)
        self._transport.close()
        if self._transport.get_write_buffer_size():  # a last word is on its way; a peer that does not read gets none
            self._loop.call_later(_LAST_WORD_S, self._transport.abort)
        if self._connect is not None and self._connect.will is not None and reason != "stopping":
            self._door.publish_will(self, self._connect.will)

    def _send(self, data: bytes) -> None:
        if not data or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self._door.settings.max_subscriber_buffer_bytes:
            self._end("slow_subscriber")
            self._transport.abort()


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
