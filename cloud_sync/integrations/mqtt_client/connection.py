"""One connection to somebody else's broker, by MQTT 3.1.1 or 5, as long as it lasts.

- It goes only where egress allows. When it ends, whatever waits on it ends with `Failed`, which says why and what that
  is for the engines; whoever holds it opens another, after a wait that is theirs to choose.
- What is published at QoS 1 is answered one by one; no more is on its way than our window, and than the broker wants.
- What comes is acknowledged when its taker says so, and to the broker in the order that it came in (MQTT-4.6.0-2).
  Before that it keeps the message; on a session that is not clean it sends it again after a break.
- While too much waits to be taken nothing is read, so a fast broker is slowed down and memory stays flat; while an
  answer is waited for, which stands behind it, some times as much may wait.

Not a library's client: aiomqtt drops the reason codes of PUBACKs, acknowledges by itself, throws away what waits too
long and, as paho does, resolves the broker's name itself and reads packets of any size.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from cloud_sync.contract import NotConnected, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import DIRECT, Line
from cloud_sync.integrations.mqtt_client import packets
from cloud_sync.integrations.mqtt_client.arrivals import Arrivals
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Answer, Connack, Kind, Level, Login, Message
from cloud_sync.integrations.mqtt_client.properties import Malformed, Properties, Property, Value
from cloud_sync.integrations.mqtt_client.reasons import Failed, refused_login, told_to_go
from cloud_sync.integrations.mqtt_client.transport import Stream, failed, open_stream

_LONGEST_PACKET = 1_048_576
_BEFORE_AN_ANSWER = 8
"""So many times as much may wait while an answer is waited for: then that is late, and whoever waits gives up."""
_PACKET_IDS = 65_535
_SILENCE = 1.5
"""Of the keepalive: after so long without a word the broker is gone."""
_GOODBYE_S = 1.0
_NO_BROKER_HINT = "Is it a broker, and are `protocol`, `port` and `use_tls` right? See its log."
_CERTIFICATE_HINT = "It may want a client certificate: see `client_cert` and `client_key`, and its log."


@dataclass(slots=True, frozen=True)
class Broker:
    """Where it is, and who we are there."""

    host: str
    port: int
    uses_tls: bool
    websocket_path: str | None
    """None for MQTT by TCP."""
    login: Login
    level: Level = MQTT_311
    line: Line = DIRECT


async def open_connection(
    broker: Broker, egress: Egress, *, timeout_s: float, window: int = 20, longest: int = _LONGEST_PACKET
) -> "Connection":
    """Connect and log in. Raises Failed, and ValueError for a login that MQTT cannot carry.

    `window` messages are on their way at most; of what comes no packet with more than `longest` bytes is kept.
    """
    try:
        async with asyncio.timeout(timeout_s):
            stream = await open_stream(
                broker.host,
                broker.port,
                egress,
                uses_tls=broker.uses_tls,
                websocket_path=broker.websocket_path,
                line=broker.line,
            )
            connection = Connection(broker, stream, window, longest)
            try:
                await connection.log_in()
            except BaseException:
                await connection.aclose()
                raise
    except TimeoutError:
        raise failed(TimeoutError(), broker.host, broker.port) from None
    return connection


class Connection:
    """See the module's own words. Ends by `aclose()`; `contextlib.aclosing` suits."""

    def __init__(self, broker: Broker, stream: Stream, window: int, longest: int) -> None:
        """`open_connection` makes it."""
        self._broker = broker
        self._level = broker.level
        self._stream = stream
        self._window = window
        self._longest = longest
        self._framer = packets.Framer(longest)
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[Connack] = self._loop.create_future()
        self._publishes: dict[int, asyncio.Future[Answer]] = {}
        self._subscriptions: dict[int, asyncio.Future[list[Answer]]] = {}
        self._last_id = 0
        self._arrivals = Arrivals()
        self._changed = asyncio.Event()
        """Set when anything has happened that somebody may wait for; whoever waits clears it first."""
        self._taken = asyncio.Event()
        self._ended: Failed | None = None
        self._since_s = self._sent_s = self._heard_s = self._loop.time()
        self._tasks: list[asyncio.Task[None]] = []
        self.session_present = False
        """Whether the broker has kept our session."""
        self.largest_packet: int | None = None
        """What the broker takes at most, in bytes of a packet, if it says so."""
        self.properties = Properties()
        """What else a broker of MQTT 5 has said when it let us in."""

    @property
    def ended(self) -> Failed | None:
        """Why it has ended, if it has."""
        return self._ended

    async def log_in(self) -> None:
        """Say who we are. Raises Failed."""
        login = self._broker.login
        self._tasks.append(asyncio.create_task(self._read()))
        await self._write(packets.connect(self._level, login, longest=self._longest))
        connack = await self._connack
        if connack.answer.code:
            self._end(failure := refused_login(self._level, self._shown(connack.answer)))
            raise failure
        self.properties = said = connack.properties
        self.session_present = connack.session_present
        self._window = min(self._window, said.number(Property.RECEIVE_MAXIMUM, _PACKET_IDS)) or 1
        self.largest_packet = said.number(Property.MAXIMUM_PACKET_BYTES, 0) or None
        theirs_s = said.number(Property.SERVER_KEEP_ALIVE_S, 0)  # 0: it does not look; but we want to know
        if keepalive_s := min(filter(None, (theirs_s, login.keepalive_s)), default=0):
            self._tasks.append(asyncio.create_task(self._keep_alive(keepalive_s)))

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Sequence[tuple[Property, Value]] = (),
    ) -> asyncio.Future[Answer]:
        """Send at QoS 1 as soon as the window has room; what is returned ends with the PUBACK.

        Raises Failed, as the future does, and ValueError for what MQTT cannot carry.
        """
        while len(self._publishes) >= self._window:
            await self._change()
        self._check()
        packet_id = self._next_id()
        packet = packets.publish(self._level, topic, payload, packet_id, retain=retain, properties=properties)
        future = self._publishes[packet_id] = self._loop.create_future()
        self._taken.set()  # an answer is waited for now: it is read
        await self._write(packet)
        return future

    def size_of(self, topic: str, payload: bytes, properties: Sequence[tuple[Property, Value]] = ()) -> int:
        """Return how many bytes a message would have on the wire; see `largest_packet`."""
        return len(packets.publish(self._level, topic, payload, 1, properties=properties))

    async def publish_unanswered(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 0. Raises Failed."""
        self._check()
        await self._write(packets.publish(self._level, topic, payload, 0, retain=retain))

    async def subscribe(self, filters: Sequence[str], *, qos: int = 1) -> list[Answer]:
        """Ask for what these filters match, at QoS 0 or 1; return what the broker says to each. Raises Failed."""
        self._check()
        packet_id = self._next_id()
        future = self._subscriptions[packet_id] = self._loop.create_future()
        self._taken.set()
        await self._write(packets.subscribe(self._level, packet_id, filters, qos))
        answers: list[Answer] = await future
        if len(answers) != len(filters):
            self._end(self._failure(Malformed("a SUBACK for another number of filters")))
            self._check()
        return answers

    @property
    def has_received(self) -> bool:
        """Whether something has come that nobody has taken."""
        return bool(self._arrivals)

    async def received(self, at_most: int) -> list[Message]:
        """Return what has come since, at least one message, in order. Raises Failed once all is taken."""
        while not self._arrivals:
            await self._change()
        taken = self._arrivals.take(at_most)
        self._taken.set()
        return taken

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that these are kept. Raises Failed. What came by another connection is left out."""
        if ready := self._arrivals.acknowledged(messages):
            self._check()
            await self._write(b"".join(map(packets.puback, ready)))

    async def gone(self, *, lasted_s: float | None = None) -> None:
        """Return when it has ended, or lasted so long."""
        with suppress(Failed, TimeoutError):
            async with asyncio.timeout_at(None if lasted_s is None else self._since_s + lasted_s):
                while True:
                    await self._change()

    async def aclose(self) -> None:
        """Say goodbye, so that no will is published, and end; also when whoever does it is cancelled meanwhile."""
        try:
            if self._ended is None and self._connack.done():
                with suppress(OSError, aiohttp.ClientError):  # then it is gone anyhow
                    async with asyncio.timeout(_GOODBYE_S):  # CancelledError, in a task that is being cancelled (3.11)
                        await self._stream.write(packets.DISCONNECT)
        finally:
            self._end(Failed(NotConnected("the connection was closed here")))
            for task in self._tasks:
                task.cancel()
            try:
                await asyncio.gather(*self._tasks, return_exceptions=True)
            finally:
                await self._stream.close()

    # What comes

    async def _read(self) -> None:
        try:
            while True:
                content = await self._stream.read()
                self._heard_s = self._loop.time()
                for first, body, cut_bytes in self._framer.feed(content):
                    self._take(first, body, cut_bytes)
                self._changed.set()
                while self._is_full:
                    self._taken.clear()
                    await self._taken.wait()
                    self._heard_s = self._loop.time()  # the silence was ours
        except (Malformed, Failed, OSError, aiohttp.ClientError) as error:
            self._end(self._failure(error))

    @property
    def _is_full(self) -> bool:
        return self._arrivals.is_full(_BEFORE_AN_ANSWER if self._publishes or self._subscriptions else 1)

    def _take(self, first: int, body: bytes, cut_bytes: int) -> None:
        kind = first >> 4
        if not self._connack.done():
            if kind != Kind.CONNACK:
                raise Malformed("another packet before the answer to CONNECT")
            self._connack.set_result(packets.read_connack(self._level, body))
            return
        match kind:
            case Kind.PUBLISH:
                self._arrivals.keep(packets.read_publish(self._level, first, body, cut_bytes))
            case Kind.PUBACK:
                packet_id, answer = packets.read_puback(self._level, body)
                _answer(self._publishes, packet_id, self._shown(answer))
            case Kind.SUBACK:
                packet_id, answers = packets.read_suback(self._level, body)
                _answer(self._subscriptions, packet_id, [self._shown(one) for one in answers])
            case Kind.PINGRESP:
                pass
            case Kind.DISCONNECT if self._level == MQTT_5:
                raise told_to_go(self._shown(packets.read_disconnect(body)))
            case _:
                raise Malformed(f"a packet of kind {kind}")

    def _shown(self, answer: Answer) -> Answer:
        """Return what it says without our password, should it repeat that."""
        password = self._broker.login.password
        if password and password in answer.reason:
            return replace(answer, reason="it repeats a secret, and is withheld")
        return answer

    # What goes

    async def _write(self, packet: bytes) -> None:
        self._sent_s = self._loop.time()
        try:
            await self._stream.write(packet)
        except (OSError, aiohttp.ClientError) as error:
            # What the broker has said before it went is worth more than that it is gone.
            await asyncio.wait(self._tasks[:1], timeout=_GOODBYE_S)
            self._end(self._failure(error))
        self._check()

    async def _keep_alive(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s / 4)
            now_s = self._loop.time()
            if self._is_full:
                self._heard_s = now_s
            if now_s - self._heard_s > _SILENCE * interval_s:
                self._end(Failed(NotConnected(f"it has not answered for {now_s - self._heard_s:.0f} s")))
                return
            if now_s - min(self._sent_s, self._heard_s) >= interval_s / 2:
                try:
                    async with asyncio.timeout(interval_s):
                        await self._write(packets.PINGREQ)
                except Failed:
                    return
                except TimeoutError as error:
                    self._end(self._failure(error))
                    return

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % _PACKET_IDS + 1
            if self._last_id not in self._publishes and self._last_id not in self._subscriptions:
                return self._last_id

    # Waiting and ending

    async def _change(self) -> None:
        self._check()
        self._changed.clear()
        await self._changed.wait()

    def _check(self) -> None:
        if self._ended is not None:
            raise _copy(self._ended)

    def _failure(self, error: Exception) -> Failed:
        if isinstance(error, Failed):
            return error
        if isinstance(error, Malformed):
            words = f"what it says is no MQTT: {error}"
            return Failed(NotConnected(words) if self._connack.done() else WrongAddress(words), _NO_BROKER_HINT)
        if isinstance(error, ConnectionResetError) and not self._connack.done():
            # What TLS 1.3 says about our certificate comes after its handshake, and a reset may be faster.
            hint = _CERTIFICATE_HINT if self._broker.uses_tls else _NO_BROKER_HINT
            return Failed(NotConnected("it ends the connection when MQTT is spoken to it"), hint)
        found = failed(error, self._broker.host, self._broker.port)
        return Failed(found.outcome, found.hint, blames_packet=isinstance(error, ConnectionError))

    def _end(self, failure: Failed) -> None:
        if self._ended is not None:
            return
        self._ended = failure
        waits: list[asyncio.Future[Any]] = [self._connack, *self._publishes.values(), *self._subscriptions.values()]
        for future in waits:
            if not future.done():
                future.set_exception(_copy(failure))
                future.exception()  # whoever has given up waiting needs no complaint
        self._changed.set()
        self._taken.set()


def _copy(failure: Failed) -> Failed:
    """Return one to raise: an exception that is raised twice keeps the frames of both."""
    return Failed(failure.outcome, failure.hint, blames_packet=failure.blames_packet)


def _answer(waits: dict[int, Any], packet_id: int, answer: Any) -> None:  # noqa: ANN401 - of the one kind or the other
    """Hand an answer to whoever waits for it. Raises Malformed."""
    future = waits.pop(packet_id, None)
    if future is None:
        raise Malformed(f"an answer to the packet {packet_id}, which is not on its way")
    if not future.done():
        future.set_result(answer)
