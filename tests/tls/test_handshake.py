"""A handshake that fails, or never ends, costs nobody else anything, and is counted by its reason."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.broker.raw import connect, publish
from tests.site import Site, reading, until
from tests.tls.site import tls_site, trusting

WAIT_S = 20


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with tls_site(tmp_path) as running:
        yield running


def refusals(site: Site, reason: str) -> float:
    return float(site.gateway._metrics.refused.labels(reason)._value.get())


def under_way(site: Site) -> int:
    tls = site.gateway._running.tls
    assert tls is not None
    return len(tls.handshakes)


def hello() -> bytes:
    """A ClientHello."""
    outgoing = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def raw(site: Site, stack: AsyncExitStack, sent: bytes = b"") -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.settings.mqtt.tls_port)

    def close() -> None:
        writer.transport.abort()

    stack.callback(close)
    writer.write(sent)
    return reader


async def secure(site: Site, folder: Path, stack: AsyncExitStack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Log in over TLS."""
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection("localhost", site.settings.mqtt.tls_port, ssl=trusting(folder), family=socket.AF_INET),
        WAIT_S,
    )
    stack.callback(writer.transport.abort)
    writer.write(connect("board", site.kitchen.username, site.kitchen.password))
    assert await asyncio.wait_for(reader.readexactly(4), WAIT_S) == b"\x20\2\0\0"
    return reader, writer


async def test_hundreds_of_half_open_handshakes_delay_nobody(site: Site, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        reader, writer = await secure(site, tmp_path, stack)
        whole = hello()
        for number in range(300):
            await raw(site, stack, whole[: number * 3])  # nothing, a part of it, or all of it
        await until(lambda: under_way(site) == 300, "handshakes under way")
        for number in range(1, 21):
            writer.write(
                publish("devices/kitchen/telemetry", reading(seq=number, boot_id="a"), qos=1, packet_id=number)
            )
            assert await asyncio.wait_for(reader.readexactly(4), WAIT_S) == bytes((0x40, 2, 0, number))
        await secure(site, tmp_path, stack)  # and another comes in
        assert len(await site.stored(20)) == 20
    await until(lambda: under_way(site) == 0, "they are forgotten")
    assert site.gateway._running.door.connections <= 2


async def test_a_handshake_that_takes_too_long_is_closed_and_counted(tmp_path: Path) -> None:
    async with tls_site(tmp_path, handshake_timeout_s=0.2) as site, AsyncExitStack() as stack:
        silent, slow = await raw(site, stack), await raw(site, stack, hello()[:50])
        for reader in (silent, slow):
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        assert refusals(site, "tls_handshake_timeout") == 2
        board, _ = await secure(site, tmp_path, stack)
        with pytest.raises(TimeoutError):  # the clock is the handshake's alone
            await asyncio.wait_for(board.read(), 0.5)


async def test_beyond_the_limit_the_oldest_of_the_busiest_goes_and_boards_come_in(tmp_path: Path) -> None:
    async with tls_site(tmp_path, max_handshakes=10, handshake_timeout_s=60) as site, AsyncExitStack() as stack:
        readers = [await raw(site, stack, hello()) for _ in range(15)]
        await until(lambda: refusals(site, "tls_too_many_handshakes") == 5, "the oldest closed")
        assert under_way(site) == 10
        for reader in readers[:5]:
            with suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), WAIT_S)
        await secure(site, tmp_path, stack)
        await asyncio.wait_for(readers[-1].read(100), WAIT_S)  # the newest were answered, and wait


async def test_a_flood_within_one_turn_of_the_loop_closes_as_many_as_are_too_many(tmp_path: Path) -> None:
    async with tls_site(tmp_path, max_handshakes=5) as site:
        sockets = []
        for _ in range(50):  # all are accepted at once
            one = socket.socket()
            one.settimeout(0)
            with suppress(BlockingIOError):
                one.connect(("127.0.0.1", site.settings.mqtt.tls_port))
            sockets.append(one)
        await until(lambda: refusals(site, "tls_too_many_handshakes") == 45, "45 closed")
        assert under_way(site) == 5
        for one in sockets:
            one.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (connect("board", "x", "y"), "tls_not_tls"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "tls_not_tls"),
        (b"\0" * 100, "tls_not_tls"),
    ],
)
async def test_whoever_speaks_no_tls_is_told_by_an_alert(site: Site, said: bytes, reason: str) -> None:
    async with AsyncExitStack() as stack:
        reader = await raw(site, stack, said)
        answer = await asyncio.wait_for(reader.read(), WAIT_S)
        assert answer[:1] in (b"\x15", b"")  # an alert record, where OpenSSL has one for it
        assert refusals(site, reason) == 1


async def test_a_client_without_tls_1_2_is_refused(site: Site, tmp_path: Path) -> None:
    old = trusting(tmp_path)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        await asyncio.open_connection("localhost", site.settings.mqtt.tls_port, ssl=old, family=socket.AF_INET)
    assert refusals(site, "tls_version") == 1


async def test_the_gateway_stops_at_once_whoever_is_in_the_middle(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with tls_site(tmp_path, handshake_timeout_s=3_600) as site:
            reader = await raw(site, stack, hello())
            assert await asyncio.wait_for(reader.read(1), WAIT_S)
        with suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), WAIT_S)


async def test_a_look_whether_somebody_listens_is_no_refusal(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncExitStack() as stack:
        await raw(site, stack)
        await until(lambda: under_way(site) == 1, "a connection")
    await until(lambda: under_way(site) == 0, "it is gone")
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_one_that_leaves_in_the_middle_is_counted(site: Site) -> None:
    async with AsyncExitStack() as stack:
        await asyncio.wait_for((await raw(site, stack, hello())).read(10), WAIT_S)
    await until(lambda: refusals(site, "tls_handshake_lost") == 1, "it is counted")


async def test_a_fault_of_ours_in_one_handshake_keeps_no_other_waiting(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.tls.handshake import Handshake

    real = Handshake.go_on
    failing = iter([True])

    def go_on(self: Handshake) -> None:
        if next(failing, False):
            raise RuntimeError
        real(self)

    monkeypatch.setattr(Handshake, "go_on", go_on)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with AsyncExitStack() as stack:
        for one in [socket.create_connection(("127.0.0.1", site.settings.mqtt.tls_port)) for _ in range(3)]:
            one.send(hello())
            stack.callback(one.close)
        await secure(site, tmp_path, stack)
