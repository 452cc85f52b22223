"""After the handshake TLS changes nothing: order, bounds and endings are those of a socket."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.tls.stream import TlsStream
from tests.broker.raw import connect, publish, subscribe
from tests.site import Site, reading, until
from tests.tls.site import tls_site, trusting
from tests.tls.test_handshake import WAIT_S, secure


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with tls_site(tmp_path) as running:
        yield running


async def test_a_packet_larger_than_many_records_arrives_whole_and_comes_back(site: Site, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        reader, writer = await secure(site, tmp_path, stack)
        writer.write(subscribe("devices/kitchen/echo"))
        assert await asyncio.wait_for(reader.readexactly(5), WAIT_S) == b"\x90\3\0\1\0"
        payload = bytes(range(256)) * 240  # 61,440 bytes
        sent = publish("devices/kitchen/echo", payload, qos=1)
        for start in range(0, len(sent), 1_000):
            writer.write(sent[start : start + 1_000])
        answer = await asyncio.wait_for(reader.readexactly(4 + len(sent) - 2), WAIT_S)
        assert b"\x40\2\0\1" in answer
        assert payload in answer


async def test_what_follows_the_handshake_at_once_is_read(site: Site, tmp_path: Path) -> None:
    """With TLS 1.3 CONNECT and more are in the same segment as the end of the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(tmp_path).wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.settings.mqtt.tls_port)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await asyncio.wait_for(reader.read(10_000), WAIT_S))
    client.write(connect("board", site.kitchen.username, site.kitchen.password))
    client.write(publish("devices/kitchen/telemetry", reading(), qos=1, packet_id=7))
    writer.write(outgoing.read())
    answer = b""
    while len(answer) < 8:
        incoming.write(await asyncio.wait_for(reader.read(10_000), WAIT_S))
        try:
            while True:
                answer += client.read(100)
        except ssl.SSLWantReadError:
            pass
    assert answer == b"\x20\2\0\0\x40\2\0\7"
    writer.transport.abort()


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_an_ending_is_noticed_with_and_without_a_goodbye(site: Site, tmp_path: Path, says_goodbye: bool) -> None:
    async with AsyncExitStack() as stack:
        _, writer = await secure(site, tmp_path, stack)
        assert site.gateway._running.door.connections == 1
        if says_goodbye:
            writer.close()
        else:
            writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await until(lambda: site.gateway._running.door.connections == 0, "the connection forgotten")


async def test_what_was_changed_on_the_way_ends_the_connection(site: Site, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        reader, writer = await secure(site, tmp_path, stack)
        file = writer.transport.get_extra_info("socket")
        os.write(file.fileno(), b"\x17\3\3\0\x20" + b"x" * 32)
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            await asyncio.wait_for(reader.read(), WAIT_S)
        await until(lambda: site.gateway._running.door.connections == 0, "the connection forgotten")


async def test_our_end_is_told_by_a_goodbye(site: Site, tmp_path: Path) -> None:
    def be_sent_away() -> bytes:
        with socket.create_connection(("127.0.0.1", site.settings.mqtt.tls_port), timeout=WAIT_S) as plain:
            context = trusting(tmp_path)
            context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
            secure = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
            with secure:
                secure.sendall(b"\xf0\0")  # no CONNECT
                return secure.recv(1)  # raises when it is cut off

    assert await asyncio.to_thread(be_sent_away) == b""


async def test_a_client_that_reads_nothing_is_dropped_as_without_tls(tmp_path: Path) -> None:
    mqtt = {"max_subscriber_buffer_bytes": 100_000, "subscriber_timeout_s": 0.5}
    async with tls_site(tmp_path, mqtt=mqtt) as site, AsyncExitStack() as stack:
        _, stuck = await secure(site, tmp_path, stack)
        stuck.write(subscribe("devices/kitchen/#"))
        transport = stuck.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        reader, writer = await asyncio.open_connection("127.0.0.1", site.mqtt_port)
        stack.callback(writer.transport.abort)
        writer.write(connect("other", site.kitchen.username, site.kitchen.password))
        assert await asyncio.wait_for(reader.readexactly(4), WAIT_S) == b"\x20\2\0\0"
        refused = site.gateway._metrics.refused.labels("slow_subscriber")
        number = 0
        async with asyncio.timeout(WAIT_S):
            while not refused._value.get():
                number = number % 60_000 + 1
                writer.write(publish("devices/kitchen/big", b"x" * 50_000, qos=1, packet_id=number))
                await reader.readexactly(4)


async def test_a_connection_over_tls_takes_little_memory(site: Site, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        await secure(site, tmp_path, stack)
        (connection,) = site.gateway._running.door._connections
        stream = connection._transport
        assert isinstance(stream, TlsStream)
        assert stream._incoming.pending == stream._outgoing.pending == 0
