"""One MQTT connection at the front door: its socket.

It frames packets and hands them on, in turns with other clients, and closes once, for a reason. While something holds a
client's packets up (hold) its socket is not read, and its silence is ours. How a client comes in is in login, what it
publishes in publishing, what else it asks for in requests. It does not decide who gets a message (delivery), what is
remembered of a client (sessions), or which connection is one too many (door).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from gateway.access import Credential
from gateway.broker import packets
from gateway.broker.hold import Hold
from gateway.broker.keepalive import Keepalive
from gateway.broker.login import log_in
from gateway.broker.packets import BeyondLimit, Connect, MalformedPacket, PacketType, UnsupportedProtocol
from gateway.broker.publishing import Publishing
from gateway.broker.requests import Requests
from gateway.broker.sessions import Session
from gateway.broker.turn_writer import TurnWriter
from gateway.certificates.authority import ClientIdentity
from gateway.model.errors import StoreFailed
from gateway.rate_limit import TokenBucket

if TYPE_CHECKING:
    from gateway.broker.door import Door

logger = logging.getLogger(__name__)

TURN_S = 0.005
"""How long the packets of one client may keep all others waiting; a single packet may take longer."""
_DISK_PAUSE_S = 0.05
_LEAST_PAUSE_S = 0.02  # of a client that is too fast: it gets some packets at a time, not one
_LAST_WORD_S = 1.0  # for what is on its way to a client that is closed
_LAST_PACKETS_S = 2.0  # for what has come from a client that is gone
_ACKS_IN_SOCKET = 2  # what we answer may exceed what a subscriber's socket may hold, by this factor


class Connection(asyncio.Protocol):
    """See the module's own words."""

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._loop = loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._writer: TurnWriter
        self._rest = b""
        self._connect: Connect | None = None
        self._held: set[Hold] = set()
        """Why nothing of what is there is handled, and nothing read."""
        rate = door.settings.max_packets_per_second
        self._rate = TokenBucket(loop.time, per_minute=60 * rate, burst=rate, tick_s=1)
        self._connecting: asyncio.Task[None] | None = None
        self._connect_clock: asyncio.TimerHandle | None = None
        self._keepalive = Keepalive(self)
        self.last_heard = 0.0
        """When something came last, by the loop's clock, or when it was read again."""
        self._publishing: Publishing | None = None
        self._take_other: Callable[[int, bytes], None] = self._start_connect
        """Takes in a packet that is no PUBLISH: before the login only CONNECT."""
        self._session: Session | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._lost_by = ""
        """How it lost its socket; some packets may still have to be handled."""
        self._given_up = False
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
        self._writer = TurnWriter(self._loop, self._transport, self._look_at_answers)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if name else "unknown"
        self._transport.set_write_buffer_limits(high=self._door.settings.max_subscriber_buffer_bytes)
        if not self._door.admit(self):
            self.end("too_many_connections")
            return
        self._connect_clock = self._loop.call_later(self._door.settings.connect_timeout_s, self.end, "connect_timeout")

    def data_received(self, data: bytes) -> None:
        """Take in bytes, and handle the whole packets among them, unless something holds them up."""
        if self._ended:
            return
        self.last_heard = self._loop.time()
        self._rest = self._rest + data if self._rest else data
        if not self._held:
            self._take_turn()
        if self._rest:
            self._door.buffers.grew(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """End, but not before what its client has sent is handled, if that is soon: the last may be a goodbye."""
        self._lost_by = "connection_lost" if exc is None else "connection_error"
        if self._ended:
            self._clean_up()
        elif not self._held or Hold.LOGIN in self._held:
            self.end(self._lost_by)
        else:
            self._loop.call_later(_LAST_PACKETS_S, self.end, self._lost_by)

    def _clean_up(self) -> None:
        self._door.forget(self)
        self._rest = b""
        self.stop_clock()
        self._keepalive.stop()
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
        self.end("slow_subscriber")
        self._transport.abort()

    @property
    def held_bytes(self) -> int:
        """What it holds in memory: what is not handled yet, and what its client has not read."""
        return 0 if self._given_up else len(self._rest) + self._writer.size + self._transport.get_write_buffer_size()

    def give_up(self) -> None:
        """Let go of what it holds, now; it ends when nobody is in the middle of something."""
        self._loop.call_soon(self.end, "buffers_full", f"held {self.held_bytes} bytes")
        self._given_up = True
        self._rest = b""
        self._transport.abort()

    @property
    def is_stuck(self) -> bool:
        """Whether so much waits in the socket that nothing should be added."""
        return self._stuck is not None

    def _take_turn(self) -> None:
        """Handle what is there, as far as its client may send so much."""
        data, allowed = self._rest, self._rate.tokens
        if not data:
            return
        if allowed < 1:
            self._slow_down()
            return
        if self.credential is None and data[0] >> 4 != PacketType.CONNECT:  # for example HTTP: no need to wait for more
            self.end("malformed", "the first packet is not CONNECT")
            return
        try:
            handled = self._handle_packets(data, allowed)
        except MalformedPacket as error:
            self.end("malformed", str(error))
            return
        except BeyondLimit as error:
            self.end(error.reason, str(error))
            return
        self._rate.take(handled)
        if handled >= allowed:
            self._slow_down()

    def _handle_packets(self, data: bytes, at_most: int) -> int:
        """Handle whole packets until there is none, something holds the rest up, or others have their turn."""
        position, size, handled, published = 0, len(data), 0, 0
        publishing, held, limit = self._publishing, self._held, self._door.settings.max_packet_bytes
        is_behind = self._door.is_behind
        ends = time.monotonic() + TURN_S  # the loop's own time stands still while a callback runs
        while size - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if length >= 0x80:
                length, start = packets.remaining_length(data, position + 1)
                if length < 0:
                    break
            if length > limit:
                raise BeyondLimit("packet_too_big", f"{length} bytes")
            end = start + length
            if end > size:
                break
            if first >> 4 == PacketType.PUBLISH and publishing is not None:
                if is_behind:
                    self._wait_for_disk()
                    break
                publishing.take(first, data, start, end)
                published += 1
            else:
                self._take_other(first, data[start:end])
            position = end
            handled += 1
            if held or self._ended or handled >= at_most:
                break
            if time.monotonic() >= ends:
                self._give_turn()
                break
        self._rest = b"" if self._ended else data[position:]
        self._door.received += published
        return handled

    @property
    def is_held(self) -> bool:
        """Whether something holds its packets up, so that it is not read."""
        return bool(self._held)

    def _slow_down(self) -> None:
        self.hold(Hold.RATE)
        self._loop.call_later(max(self._rate.wait_s(), _LEAST_PAUSE_S), self.let_go, Hold.RATE)

    def _wait_for_disk(self) -> None:
        self.hold(Hold.DISK)
        self._loop.call_later(_DISK_PAUSE_S, self.let_go, Hold.DISK)

    def hold(self, why: Hold) -> None:
        """Handle no more packets and read no more, until this reason and every other is gone."""
        if why in self._held:
            return
        if not self._held and not self._ended:
            self._transport.pause_reading()
        self._held.add(why)
        if why.is_counted:
            self._door.paused(self, why.value)

    def let_go(self, why: Hold) -> None:
        """One reason is gone. If it was the last its client has its turn soon: whoever calls has others to serve."""
        if why in self._held:
            self._give_turn()
            self._held.discard(why)

    def _give_turn(self) -> None:
        if Hold.TURN not in self._held:
            self.hold(Hold.TURN)
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._held.discard(Hold.TURN)
        if self._held or self._ended:
            return
        self.last_heard = self._loop.time()  # its silence was ours
        self._take_turn()
        if self._held or self._ended:
            return
        if self._lost_by:
            self.end(self._lost_by)
        else:
            self._transport.resume_reading()

    # What is answered

    def failed(self, error: StoreFailed) -> None:
        """Something could not be stored: acknowledge nothing more, and let the client send it again elsewhen."""
        if self._publishing is not None:
            self._publishing.withhold()
        self.end("store_failed", error.message)

    def answer(self, answer: bytes, error: StoreFailed | None) -> None:
        """Answer what had to be on disk first."""
        if error is None:
            self.send(answer)
        else:
            self.failed(error)

    def handed_on(self) -> asyncio.Future[None] | None:
        """Return what is done when all that its client has published by now is handed on; None if nothing waits."""
        return None if self._publishing is None else self._publishing.handed_on()

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

    def _start_connect(self, first: int, body: bytes) -> None:
        try:
            connect = packets.decode_connect(first & 0x0F, body)
        except UnsupportedProtocol as error:
            self.refuse(error.answer, "unsupported_protocol")
            return
        is_nameless = not connect.client_id and not connect.clean_session  # nothing to keep a session by
        if is_nameless or len(connect.client_id) > packets.LONGEST_CLIENT_ID:
            self.refuse(packets.CONNACK_BAD_CLIENT_ID, "bad_client_id")
            return
        self.hold(Hold.LOGIN)
        self._connecting = self._loop.create_task(log_in(self._door, self, connect), name=f"connect {self.peer}")
        self._connecting.add_done_callback(self._logged_in)

    def accepted(self, connect: Connect, credential: Credential, session: Session) -> None:
        """Hear that its client is in."""
        self._connect = connect
        self._session = session
        self._publishing = publishing = Publishing(self._door, self, credential, session)
        requests = Requests(self._door.settings, self._door.delivery, self, credential, session, publishing)
        self._take_other = requests.take
        self.stop_clock()
        self._keepalive.start(connect.keepalive_s, self._transport.get_extra_info("socket"))

    def stop_clock(self) -> None:
        """Hear that CONNECT has come, and is not waited for any more."""
        if self._connect_clock is not None:
            self._connect_clock.cancel()

    def _logged_in(self, task: asyncio.Task[None]) -> None:
        """Go on with what has arrived since CONNECT."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("login failed by a fault of ours", exc_info=error)
            self.end("internal_error")
        self.let_go(Hold.LOGIN)

    def say_goodbye(self) -> None:
        """Hear that its client goes, and leaves no will."""
        self._connect = None
        self.end("disconnect")

    def refuse(self, answer: bytes, reason: str, detail: str = "") -> None:
        """Answer with a last packet, and close."""
        self.send(answer)
        self.end(reason, detail)

    @property
    def identity(self) -> ClientIdentity | None:
        """Whom its client's certificate names; None when it has shown none."""
        shown: ClientIdentity | None = self._transport.get_extra_info("client_identity")
        return shown

    @property
    def is_over_tls(self) -> bool:
        """Whether it came in through one of our own ports with TLS."""
        return self._transport.get_extra_info("ssl_object") is not None

    @property
    def has_ended(self) -> bool:
        """Whether it is closed for good, whatever its socket says."""
        return self._ended

    @property
    def is_open(self) -> bool:
        """Whether its client can still be told anything."""
        return not self._ended and not self._transport.is_closing()

    def end(self, reason: str, detail: str = "") -> None:
        """Close once, say why, and leave the will unless the client said goodbye."""
        if self._ended:
            return
        self._ended = True
        try:
            self._close(reason, detail)
        finally:
            if self._lost_by:
                self._clean_up()

    def _close(self, reason: str, detail: str) -> None:
        self._door.closed(self, reason, detail)
        if self._session is not None:
            self._door.delivery.sessions.leave(self._session, self)
        self._writer.flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # a last word is on its way; a peer that does not read gets none
            self._loop.call_later(_LAST_WORD_S, self._transport.abort)
        if self._publishing is not None:
            self._publishing.leave(None if self._connect is None else self._connect.will)
            self._door.left(self.local_id, self._publishing)

    def send(self, data: bytes) -> None:
        """Send packets, with all others of this turn of the event loop."""
        if data and not self._transport.is_closing():
            self._writer.write(data)
            self._door.buffers.grew(len(data))

    def _look_at_answers(self) -> None:
        """Close whoever asks for answers and does not read them."""
        if self._stuck is None:
            return
        if self._transport.get_write_buffer_size() > _ACKS_IN_SOCKET * self._door.settings.max_subscriber_buffer_bytes:
            self._loop.call_soon(self._give_up_subscriber)  # whoever sends is in the middle of something
