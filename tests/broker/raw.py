"""An MQTT client that sends any bytes, also those no real client would (MQTT 3.1.1, section 2 and 3)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from gateway.broker.packets import encode_packet, encode_text
from gateway.storage.credentials import NewPassword
from gateway.storage.state import DeviceCredential
from tests.site import PATIENCE_S, Site

ACCEPTED = b"\x20\x02\x00\x00"
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


def connect(
    client_id: str = "raw",
    username: str | None = None,
    password: str | None = None,
    *,
    clean: bool = True,
    keepalive: int = 60,
    will: tuple[str, bytes] | None = None,
    will_qos: int = 0,
    will_retain: bool = False,
) -> bytes:
    flags = clean << 1 | (will is not None) << 2 | will_qos << 3 | will_retain << 5
    flags |= (password is not None) << 6 | (username is not None) << 7
    body = encode_text("MQTT") + bytes([4, flags]) + keepalive.to_bytes(2, "big") + encode_text(client_id)
    if will is not None:
        body += encode_text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
    for text in (username, password):
        body += b"" if text is None else encode_text(text)
    return encode_packet(0x10, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"{}",
    *,
    qos: int = 0,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    name = topic.encode() if isinstance(topic, str) else topic
    body = len(name).to_bytes(2, "big") + name + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return encode_packet(0x30 | dup << 3 | qos << 1 | retain, body)


def subscribe(*filters: str, qos: int = 0, packet_id: int = 1) -> bytes:
    return encode_packet(
        0x82, packet_id.to_bytes(2, "big") + b"".join(encode_text(name) + bytes([qos]) for name in filters)
    )


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def pubrec(packet_id: int) -> bytes:
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def pubrel(packet_id: int) -> bytes:
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


def pubcomp(packet_id: int) -> bytes:
    return b"\x70\x02" + packet_id.to_bytes(2, "big")


class RawClient:
    """One connection."""

    client_id = "raw"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, site: Site, first: bytes = b"") -> AsyncIterator[Self]:
        """Open the socket and send `first`; leaving the context cuts the connection off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", site.mqtt_port)
        client = cls(reader, writer)
        try:
            client.send(first)
            yield client
        finally:
            client.cut()

    @classmethod
    @asynccontextmanager
    async def login(
        cls,
        site: Site,
        device: DeviceCredential | NewPassword | None = None,
        client_id: str | None = None,
        *,
        clean: bool = True,
        keepalive: int = 60,
        will: tuple[str, bytes] | None = None,
    ) -> AsyncIterator[Self]:
        """Open, and log in as the device (the kitchen's if none is named)."""
        who = device or site.kitchen
        hello = connect(
            cls.client_id if client_id is None else client_id,
            who.username,
            who.password,
            clean=clean,
            keepalive=keepalive,
            will=will,
        )
        async with cls.open(site, hello) as client:
            assert (await client.read(4))[:1] == ACCEPTED[:1]
            yield client

    def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(packets))

    async def read(self, count: int) -> bytes:
        """Return exactly so many bytes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(count)

    async def packet(self) -> bytes:
        """Return the next packet (of less than 128 bytes), whole."""
        head = await self.read(2)
        return head + await self.read(head[1])

    async def expect(self, *packets: bytes) -> None:
        """The next bytes are these packets."""
        expected = b"".join(packets)
        got = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(got) < len(expected) and (more := await self.reader.read(len(expected) - len(got))):
                    got += more
        except TimeoutError:
            pass
        assert got == expected

    async def rest(self) -> bytes:
        """Return everything until the gateway closes the connection, which it must."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.reader.read()
        except ConnectionError:
            return b""
        except TimeoutError:
            raise AssertionError("the gateway left the connection open") from None

    async def is_alive(self) -> bool:
        """Whether the gateway still answers a PINGREQ, and with nothing before it."""
        self.send(PINGREQ)
        return await self.packet() == PINGRESP

    def cut(self) -> None:
        """Vanish without a goodbye."""
        self.writer.transport.abort()
