"""A broker that does as it is told: it refuses, hangs, throttles or cuts the line.

Properties are read and written by paho, whose own client it understands.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_PROPERTIES: Any = Properties  # paho says nothing of its types here


@dataclass
class Came:
    """A message."""

    topic: str
    payload: bytes
    retain: bool
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeBroker:
    """See the module's own words."""

    level: int = 5
    port: int = 0
    accepts: int = 0
    """The code of CONNACK."""
    refuses: dict[str, int] = field(default_factory=dict)
    """By topic, or `*`, the code of PUBACK; by filter, that of SUBACK."""
    judge: Callable[[bytes], int] | None = None
    """Of a payload: the code of PUBACK."""
    says: str = ""
    """The reason that goes with a refusal."""
    cuts_at: bytes | None = None
    """The connection ends when a payload with this in it comes."""
    forbids: str | None = None
    """The connection ends, without a word, when anything is done at topics that begin so."""
    late_s: float = 0.0
    """So long a PUBACK takes; what is owed is lost when the connection ends."""
    goes: int | None = None
    """Instead of an answer, a DISCONNECT with this code comes."""
    hangs: bool = False
    receive_maximum: int = 65_535
    largest_packet: int = 0
    keepalive_s: int = 0
    says_keepalive: bool = False
    """Also when that is 0."""
    lacks: tuple[str, ...] = ()
    """Of what CONNACK says: what it cannot do."""
    has_session: bool = False
    came: list[Came] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    subscribed: list[list[str]] = field(default_factory=list)
    unanswered: int = 0
    most_unanswered: int = 0
    refused: int = 0
    goodbyes: int = 0
    pings: int = 0
    wrong: list[str] = field(default_factory=list)
    """What it could not read."""
    server: asyncio.Server = field(init=False)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    something: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each message."""
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        task: Any = asyncio.current_task()
        self.serving.add(task)
        try:
            while await self._packet(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.wrong.append(repr(error))
        finally:
            self.writers.discard(writer)
            self.serving.discard(task)
            writer.close()

    async def _packet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        (first,) = await reader.readexactly(1)
        length = shift = 0
        while True:
            (digit,) = await reader.readexactly(1)
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                break
        body = await reader.readexactly(length)
        kind = first >> 4
        if kind == PacketTypes.CONNECT:
            return self._connect(body, writer)
        if kind == PacketTypes.PUBLISH:
            return await self._publish(first, body, writer)
        if kind == PacketTypes.SUBSCRIBE:
            return self._subscribe(body, writer)
        if kind == PacketTypes.PINGREQ:
            self.pings += 1
            if not self.hangs:
                writer.write(b"\xd0\0")
            return True
        assert kind == PacketTypes.DISCONNECT, kind
        self.goodbyes += 1
        return False

    def _connect(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        assert body[:6] == b"\0\4MQTT"
        level, flags, keepalive_s = struct.unpack_from("!BBH", body, 6)
        assert level == self.level, level
        at = 10
        said, at = self._properties(PacketTypes.CONNECT, body, at)
        client_id, at = _text(body, at)
        login: dict[str, Any] = {"client_id": client_id, "keepalive_s": keepalive_s, "clean": bool(flags & 2)} | said
        if flags & 4:
            _, at = self._properties(PacketTypes.WILLMESSAGE, body, at)
            login["will_retain"] = bool(flags & 0x20)
            login["will_topic"], at = _text(body, at)
            login["will"], at = _text(body, at)
        if flags & 0x80:
            login["username"], at = _text(body, at)
        if flags & 0x40:
            login["password"], at = _text(body, at)
        assert at == len(body)
        self.logins.append(login)
        properties = _PROPERTIES(PacketTypes.CONNACK)
        if self.level == 5:
            properties.ReceiveMaximum = self.receive_maximum
            if self.largest_packet:
                properties.MaximumPacketSize = self.largest_packet
            if self.keepalive_s or self.says_keepalive:
                properties.ServerKeepAlive = self.keepalive_s
            for name in self.lacks:
                setattr(properties, name, 0)
            if self.accepts and self.says:
                properties.ReasonString = f"{self.says} {login.get('password')}"
        answer = bytes([self.has_session, self.accepts]) + (properties.pack() if self.level == 5 else b"")
        writer.write(bytes([0x20, len(answer)]) + answer)
        return not self.accepts

    def _subscribe(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        _, at = self._properties(PacketTypes.SUBSCRIBE, body, 2)
        filters: list[str] = []
        while at < len(body):
            one, at = _text(body, at)
            filters.append(one)
            at += 1  # its options
        if self.forbids is not None and any(one.startswith(self.forbids) for one in filters):
            return False
        self.subscribed.append(filters)
        rest = (b"\0" if self.level == 5 else b"") + bytes(self.refuses.get(one, 1) for one in filters)
        writer.write(bytes([0x90, 2 + len(rest)]) + body[:2] + rest)
        return True

    async def _publish(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        topic, at = _text(body, 0)
        packet_id = body[at : at + 2] if first & 6 else b""
        properties, at = self._properties(PacketTypes.PUBLISH, body, at + len(packet_id))
        came = Came(topic, body[at:], bool(first & 1), properties)
        if self.cuts_at is not None and self.cuts_at in came.payload:
            return False
        if self.forbids is not None and topic.startswith(self.forbids):
            return False
        if self.goes is not None:
            writer.write(bytes([0xE0, 2, self.goes, 0]))
            await writer.drain()
            return False
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        if self.hangs:
            return True
        await asyncio.sleep(0)  # so that more may be on its way, if the other side wants
        self.unanswered -= 1
        code = self.refuses.get(topic, self.refuses.get("*", 0)) if self.level == 5 else 0
        if self.judge is not None:
            code = code or self.judge(came.payload)
        self.refused += bool(code)
        if not code:
            self.came.append(came)
            self.something.set()
            self.something.clear()  # whoever waits is woken all the same
        answer = _PROPERTIES(PacketTypes.PUBACK)
        if code and self.says:
            answer.ReasonString = self.says
        rest = b"" if not code else bytes([code]) + answer.pack()
        puback = bytes([0x40, 2 + len(rest)]) + packet_id + rest
        if self.late_s:
            asyncio.get_running_loop().call_later(self.late_s, writer.write, puback)
        else:
            writer.write(puback)
        return True

    def _properties(self, kind: int, body: bytes, at: int) -> tuple[dict[str, Any], int]:
        if self.level != 5:
            return {}, at
        properties = _PROPERTIES(kind)
        _, size = properties.unpack(body[at:])
        return properties.json(), at + size

    @property
    def readings(self) -> list[Came]:
        """What has come but the status."""
        return [one for one in self.came if "status" not in one.topic]

    async def cut(self) -> None:
        """End every connection."""
        for writer in self.writers:
            writer.transport.abort()


def _text(body: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("!H", body, at)
    return body[at + 2 : at + 2 + length].decode(), at + 2 + length


@asynccontextmanager
async def fake_broker(**said: Any) -> AsyncIterator[FakeBroker]:
    fake = FakeBroker(**said)
    fake.server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = fake.server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        fake.server.close()
        await fake.cut()
        await asyncio.gather(*fake.serving)
        assert not fake.wrong
