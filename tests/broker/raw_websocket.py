"""A WebSocket that sends any frames, also those no real client would (RFC 6455, section 5); it masks by zeros."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from tests.broker.raw import RawClient
from tests.site import PATIENCE_S, Site

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
OFFER = ("Sec-WebSocket-Protocol: mqtt",)


def frame(data: bytes, opcode: int = BINARY, *, final: bool = True, reserved: int = 0) -> bytes:
    size = len(data)
    wide = next((width for width, most in ((0, 126), (2, 65_536)) if size < most), 8)
    length = size.to_bytes(wide, "big") if wide else b""
    first = {0: size, 2: 126, 8: 127}[wide]
    return bytes([final << 7 | reserved << 4 | opcode, first | 0x80]) + length + bytes(4) + data


async def upgrade(port: int, path: str, headers: tuple[str, ...]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a WebSocket; the answer is still to be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(bytes(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: gateway", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    return reader, writer


class WebSocketClient(RawClient):
    """A RawClient whose bytes travel in frames; what is no binary frame ends up in `others`."""

    client_id = "web"

    def __init__(self, below: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(asyncio.StreamReader(limit=2**24), writer)
        self._below = below
        self.others: list[tuple[int, bytes]] = []
        self._unpacking = asyncio.create_task(self._unpack())

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        site: Site,
        first: bytes = b"",
        *,
        port: int | None = None,
        path: str = "/mqtt",
        headers: tuple[str, ...] = (),
    ) -> AsyncIterator[Self]:
        """Open a WebSocket on the HTTP port, if no other is named, and send `first`."""
        reader, writer = await upgrade(port or site.http_port, path, (*OFFER, *headers))
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol: mqtt\r\n" in head
        client = cls(reader, writer)
        try:
            if first:
                client.send(first)
            yield client
        finally:
            client.cut()
            client._unpacking.cancel()

    def send(self, *packets: bytes) -> None:
        """Send the packets as one binary frame."""
        self.writer.write(frame(b"".join(packets)))

    def send_frames(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def closed_with(self) -> int:
        """Return the code of the gateway's closing frame, after which it closes the socket."""
        assert await self.rest() == b""
        (code,) = [int.from_bytes(data[:2], "big") for opcode, data in self.others if opcode == CLOSE]
        return code

    async def _unpack(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, size = await self._below.readexactly(2)
                if size == 126:
                    size = int.from_bytes(await self._below.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self._below.readexactly(8), "big")
                data = await self._below.readexactly(size)
                assert first & 0xF0 == 0x80
                if first & 0x0F == BINARY:
                    self.reader.feed_data(data)
                else:
                    self.others.append((first & 0x0F, data))
                    if first & 0x0F == CLOSE:
                        self.send_frames(frame(data, CLOSE))
        self.reader.feed_eof()
