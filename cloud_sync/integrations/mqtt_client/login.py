"""A login at an MQTT broker, and nothing more: CONNECT, SUBSCRIBE, DISCONNECT (MQTT 3.1.1, OASIS).

For whoever wants to know whether a broker would let us in. It goes to the very address that was found to be allowed.
"""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import guarded_connector

_CONNACK, _SUBACK, _PUBLISH = 0x20, 0x90, 0x30
_REFUSED = 0x80
_MORE, _LAST_SHIFT = 0x80, 21
"""Of a length: there is another digit, and of four the last one is shifted so far (2.2.3)."""
_CLEAN = 0x02
_LONGEST_ANSWER = 4_096
_LONGEST_MESSAGE = 1_000_000


class NoMqtt(Exception):
    """What answers is no broker."""


class Refused(Exception):
    """The broker's own answer to CONNECT; see the specification, 3.2.2.3."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Stream(Protocol):
    async def write(self, content: bytes) -> None: ...

    async def read(self, count: int) -> bytes: ...


@dataclass(slots=True, frozen=True)
class Broker:
    """Where it is and who we are."""

    host: str
    port: int
    address: str
    """Of the host; a WebSocket looks for one by itself, as egress allows."""
    tls: ssl.SSLContext | None
    websocket_path: str | None
    """None for plain MQTT."""
    client_id: str
    username: str | None
    password: str | None


async def log_in(broker: Broker, filters: Sequence[str], egress: Egress) -> list[str]:
    """Log in, subscribe and leave; return the filters that the broker refused.

    Raises Refused, NoMqtt, and OSError or aiohttp.ClientError for a connection that breaks. The caller bounds the time.
    """
    way = _over_tcp(broker) if broker.websocket_path is None else _over_websocket(broker, egress)
    async with way as stream:
        await stream.write(_connect(broker))
        _, code = await _packet(stream, _CONNACK, 2)
        if code:
            raise Refused(code)
        refused = []
        if filters:
            await stream.write(_subscribe(filters))
            answer = (await _packet(stream, _SUBACK, 2 + len(filters)))[2:]
            refused = [one for one, granted in zip(filters, answer, strict=True) if granted == _REFUSED]
        await stream.write(b"\xe0\0")
    return refused


class _Tcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def read(self, count: int) -> bytes:
        try:
            return await self._reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("it closed the connection") from error


@asynccontextmanager
async def _over_tcp(broker: Broker) -> AsyncIterator[_Stream]:
    named = {} if broker.tls is None else {"ssl": broker.tls, "server_hostname": broker.host}
    reader, writer = await asyncio.open_connection(broker.address, broker.port, **named)  # type: ignore[arg-type]
    try:
        yield _Tcp(reader, writer)
    finally:
        writer.close()


class _WebSocket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._rest = b""

    async def write(self, content: bytes) -> None:
        await self._socket.send_bytes(content)

    async def read(self, count: int) -> bytes:
        while len(self._rest) < count:  # frames are not packets (3.1.1, 6.0)
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise ConnectionResetError("it closed the connection")
            self._rest += message.data
        found, self._rest = self._rest[:count], self._rest[count:]
        return found


@asynccontextmanager
async def _over_websocket(broker: Broker, egress: Egress) -> AsyncIterator[_Stream]:
    connector = guarded_connector(egress, broker.host, keepalive_s=1.0, connections=1)
    host = f"[{broker.host}]" if ":" in broker.host else broker.host
    url = f"{'ws' if broker.tls is None else 'wss'}://{host}:{broker.port}{broker.websocket_path}"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(
            url, protocols=("mqtt",), ssl=broker.tls or True, max_msg_size=_LONGEST_MESSAGE, autoping=False
        ) as socket,
    ):
        yield _WebSocket(socket)


def _connect(broker: Broker) -> bytes:
    flags, payload = _CLEAN, _text(broker.client_id)
    if broker.username is not None:
        flags, payload = flags | 0x80, payload + _text(broker.username)
    if broker.password is not None:
        flags, payload = flags | 0x40, payload + _text(broker.password)
    return _framed(0x10, b"\0\4MQTT\4" + bytes([flags]) + struct.pack("!H", 30) + payload)


def _subscribe(filters: Sequence[str]) -> bytes:
    return _framed(0x82, b"\0\1" + b"".join(_text(one) + b"\0" for one in filters))


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("!H", len(content)) + content


def _framed(kind: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while rest >= _MORE:
        length += bytes([rest % _MORE | _MORE])
        rest >>= 7
    return bytes([kind]) + length + bytes([rest]) + body


async def _packet(stream: _Stream, kind: int, size: int) -> bytes:
    """Return what is in the one packet that may come now; what was retained may come before it."""
    while True:
        (first,) = await stream.read(1)
        length = shift = 0
        while True:
            (digit,) = await stream.read(1)
            length |= (digit % _MORE) << shift
            shift += 7
            if digit < _MORE or shift > _LAST_SHIFT:
                break
        is_publish = first & 0xF0 == _PUBLISH
        if not is_publish and (first != kind or length != size):
            raise NoMqtt
        if is_publish:  # of what was retained nothing is kept, however much it is
            while length:
                length -= len(await stream.read(min(length, _LONGEST_ANSWER)))
            continue
        return await stream.read(length)
