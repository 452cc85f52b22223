"""What connections cost the gateway, and what one client can do to the others; each beside what is asked of it.

The gateway runs with its default settings, in a process of its own. Times are those that clients see, so this process,
which is all of the clients, is in them.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from json import loads
from pathlib import Path

from tests.bench import process, site
from tests.bench.load import payload
from tests.bench.measurements import Row
from tests.broker.raw import ACCEPTED, PINGREQ, PINGRESP, connect, publish, subscribe

_PATIENCE_S = 60
_SETTLE_S = 1.0
_AT_ONCE = 100
_WARM_UP = 10
_TIMES = 5
_WINDOW = 20
_BIG = 60_000
_RECEIVE_BUFFER = 65_536
_SUBACK, _PUBACK = 5, 4

Login = dict[str, str]


@dataclass(slots=True)
class _Client:
    """An MQTT client that sends and awaits bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def expect(self, size: int) -> bytes:
        """Return the next bytes of what it is sent; fewer when the gateway closes."""
        async with asyncio.timeout(_PATIENCE_S):
            try:
                return await self.reader.readexactly(size)
            except asyncio.IncompleteReadError as error:
                return error.partial

    async def ask(self, packets: bytes, answer: int) -> bytes:
        """Send packets; returns so many bytes of what comes back."""
        self.writer.write(packets)
        return await self.expect(answer)


async def broker(folder: Path, *, boards: int, stuck_mb: int) -> list[Row]:
    """Measure all of it."""
    logins: list[Login] = loads((await site.prepare(folder, devices=boards, readings=0)).read_text())
    owner = await site.add_owner(folder)
    table = await _memory(folder, logins)
    table += await _reconnect(folder, logins)
    async with site.gateway(folder) as gateway:
        table += await _take_overs(gateway, logins[0])
    async with site.gateway(folder) as gateway:
        table += await _stuck(gateway, logins[0], stuck_mb)
    async with site.gateway(folder) as gateway:
        table += await _waits(gateway, logins[0], owner)
    return table


async def _memory(folder: Path, logins: list[Login]) -> list[Row]:
    async with site.gateway(folder) as gateway:
        for client in await _all_in(gateway, logins[:_WARM_UP]):  # what the first readings cost is not theirs alone
            client.writer.close()
        before = await _settled_mb(gateway)
        clients = await _all_in(gateway, logins)
        publishing = await _settled_mb(gateway)
        for client, login in zip(clients, logins, strict=True):
            await client.ask(_commands(login), _SUBACK)
        subscribed = await _settled_mb(gateway)
        for client in clients:
            client.writer.transport.abort()
    each = f"memory of each of {len(logins):,} idle connections"
    return [
        (f"{each}: it has published", f"{(publishing - before) / len(logins) * 1000:.1f} kB (asked: < 20)"),
        (f"{each}: it has subscribed, too", f"{(subscribed - before) / len(logins) * 1000:.1f} kB (asked: < 60)"),
        ("memory of its own, before and with all of them", f"{before:.1f}, {subscribed:.1f} MB"),
    ]


async def _reconnect(folder: Path, logins: list[Login]) -> list[Row]:
    """All boards come back while their old connections are still open, as after an access point has restarted."""
    async with site.gateway(folder) as gateway:
        old = await _all_in(gateway, logins, subscribing=True)
        started = time.perf_counter()
        new = await _all_in(gateway, logins, at_once=len(logins), subscribing=True)
        elapsed = time.perf_counter() - started
        left = process.sockets(gateway.pid)
        for client in old + new:
            client.writer.transport.abort()
    return [
        (f"{len(logins):,} boards come back at once: CONNECT, SUBSCRIBE, a reading", f"{elapsed:.2f} s (asked: < 5)"),
        ("  sockets of the gateway then, listening ones included", f"{left:,}"),
    ]


async def _take_overs(gateway: site.Site, login: Login) -> list[Row]:
    before = process.sockets(gateway.pid)
    started = time.perf_counter()
    clients = [await _log_in(gateway, login, "the same") for _ in range(200)]
    elapsed = time.perf_counter() - started
    ended = [client for client in clients[:-1] if await client.expect(1) == b""]
    await asyncio.sleep(_SETTLE_S)
    left = process.sockets(gateway.pid) - before
    assert await clients[-1].ask(PINGREQ, 2) == PINGRESP
    for client in clients:
        client.writer.close()
    return [
        ("200 take-overs in a row: sockets left", f"{left} (asked: 1)"),
        ("  closed by the gateway, took", f"{len(ended)} of 199, {elapsed:.2f} s"),
    ]


async def _stuck(gateway: site.Site, login: Login, megabytes: int) -> list[Row]:
    """One that hears with QoS 0 and one with QoS 1 read nothing, while a board publishes."""
    topic = f"devices/{login['device_id']}/status"
    stuck = [await _deaf(gateway, login, topic, qos) for qos in (0, 1)]
    board = await _log_in(gateway, login, "board")
    packet = publish(topic, bytes(_BIG), qos=1)
    rounds = megabytes * 1_000_000 // _BIG // _WINDOW
    before = most = gateway.memory_mb()
    started = time.perf_counter()
    for _ in range(rounds):
        assert len(await board.ask(packet * _WINDOW, _PUBACK * _WINDOW)) == _PUBACK * _WINDOW
        most = max(most, gateway.memory_mb())
    elapsed = time.perf_counter() - started
    after = await _settled_rss_mb(gateway)
    for sock in stuck:
        sock.close()
    return [
        (
            f"{rounds * _WINDOW * _BIG / 1e6:.0f} MB to two stuck subscribers (QoS 0, 1): memory before, most, after",
            f"{before:.1f}, {most:.1f}, {after:.1f} MB (asked: flat)",
        ),
        ("  acknowledged at", f"{rounds * _WINDOW * _BIG / 1e6 / elapsed:.0f} MB/s"),
    ]


async def _waits(gateway: site.Site, board: Login, owner: Login) -> list[Row]:
    """The longest that a PINGREQ of one client waits, while another keeps the gateway busy."""
    other = await _log_in(gateway, board, "other")
    async with _pinging(other) as idle:
        await asyncio.sleep(2)
    filters = subscribe(*(f"+/+/{number:04}" for number in range(5_000)))
    granted = 0
    async with _pinging(other) as subscribing:
        for number in range(_TIMES):
            client = await _log_in(gateway, owner, f"greedy-{number}")
            codes = await client.ask(filters, 3 + 2 + 5_000)
            granted = sum(code != 0x80 for code in codes[-5_000:])
            client.writer.close()
            await asyncio.sleep(0.1)
    answered = 0
    async with _pinging(other) as chunk:
        for number in range(_TIMES):
            client = await _log_in(gateway, owner, f"chatty-{number}")
            answered += len(await client.ask(PINGREQ * 100_000, 200_000)) // 2
            client.writer.close()
            await asyncio.sleep(0.1)
    return [
        ("longest wait for a PINGRESP while nothing happens, 2 s", f"{max(idle):.1f} ms"),
        (
            f"  while another subscribes to 5,000 filters at once ({granted} granted), {_TIMES} times",
            f"{max(subscribing):.1f} ms",
        ),
        (
            f"  while another sends 100,000 PINGREQ at once ({answered / _TIMES:,.0f} answered), {_TIMES} times",
            f"{max(chunk):.1f} ms",
        ),
    ]


# Clients


async def _log_in(gateway: site.Site, login: Login, client_id: str, further: bytes = b"", answer: int = 0) -> _Client:
    """Come in, perhaps with further packets in the same write, and so many bytes of answers to them."""
    client = _Client(*await asyncio.open_connection("127.0.0.1", gateway.mqtt_port))
    answers = await client.ask(
        connect(client_id, login["username"], login["password"]) + further, len(ACCEPTED) + answer
    )
    assert answers.startswith(ACCEPTED), f"refused: {answers!r}"
    assert len(answers) == len(ACCEPTED) + answer, "closed"
    return client


async def _all_in(
    gateway: site.Site, logins: list[Login], *, at_once: int = _AT_ONCE, subscribing: bool = False
) -> list[_Client]:
    """Every board comes in, perhaps subscribes, and publishes a reading; returns when the last is acknowledged."""
    boot_id = f"{time.time_ns() & 0xFFFFFFFF:08x}"

    async def one(login: Login) -> _Client:
        name = login["device_id"]
        reading = publish(f"devices/{name}/telemetry", payload(name, boot_id, 1).encode(), qos=1)
        if subscribing:
            return await _log_in(gateway, login, name, _commands(login) + reading, _SUBACK + _PUBACK)
        return await _log_in(gateway, login, name, reading, _PUBACK)

    clients: list[_Client] = []
    for first in range(0, len(logins), at_once):
        clients += await asyncio.gather(*(one(login) for login in logins[first : first + at_once]))
    return clients


def _commands(login: Login) -> bytes:
    return subscribe(f"devices/{login['device_id']}/commands/#", qos=1)


async def _deaf(gateway: site.Site, login: Login, topic: str, qos: int) -> socket.socket:
    """Subscribe, and read nothing from then on."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    deaf.setblocking(False)  # noqa: FBT003 - the signature is the library's
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", gateway.mqtt_port))
    hello = connect(f"deaf-{qos}", login["username"], login["password"]) + subscribe(topic, qos=qos)
    await loop.sock_sendall(deaf, hello)
    answers = b""
    while len(answers) < len(ACCEPTED) + _SUBACK:
        answers += await loop.sock_recv(deaf, 100)
    return deaf


@asynccontextmanager
async def _pinging(client: _Client) -> AsyncIterator[list[float]]:
    """Ask and wait all the time; yields the list of how long each answer took, in milliseconds."""
    waits: list[float] = []

    async def ping() -> None:
        while True:
            started = time.perf_counter()
            assert await client.ask(PINGREQ, 2) == PINGRESP
            waits.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(ping())
    try:
        yield waits
    finally:
        await asyncio.sleep(0.1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _settled_mb(gateway: site.Site) -> float:
    await asyncio.sleep(_SETTLE_S)
    return process.own_memory_mb(gateway.pid)


async def _settled_rss_mb(gateway: site.Site) -> float:
    await asyncio.sleep(_SETTLE_S)
    return gateway.memory_mb()
