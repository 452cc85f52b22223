"""A connection that is ended leaves no socket and no task behind, whatever the other side does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from cloud_sync.integrations.mqtt_client import connection as connections
from cloud_sync.integrations.mqtt_client import kept_connection
from cloud_sync.integrations.mqtt_client import transport as transports
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.kept_connection import Status
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, Login
from cloud_sync.integrations.mqtt_client.publisher import Limits, Publisher
from cloud_sync.rate_limit import RateLimit
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.mqtt_client.fake_broker import fake_broker
from tests.cloud_sync.samples import ANYWHERE, NOW_MS
from tests.cloud_sync.site import until


def at(port: int) -> Broker:
    return Broker("127.0.0.1", port, uses_tls=False, websocket_path=None, login=Login("a"), level=MQTT_5)


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connections, kept_connection, transports):
        monkeypatch.setattr(module, "_GOODBYE_S", 0.05)


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A broker that lets us in, and reads nothing from then on."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1_000)
        writer.write(b"\x20\x03\0\0\0")

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1_000)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def fileno(connection: Connection) -> int:
    return int(connection._stream._writer.get_extra_info("socket").fileno())  # type: ignore[attr-defined]


def waits_to_be_sent(connection: Connection) -> int:
    return int(connection._stream._writer.transport.get_write_buffer_size())  # type: ignore[attr-defined]


async def test_p5_a_peer_that_reads_nothing_keeps_no_socket_of_one_who_is_cancelled() -> None:
    made: list[Connection] = []

    async def work(port: int) -> None:
        made.append(it := await open_connection(at(port), ANYWHERE, timeout_s=10))
        try:
            while True:
                await it.publish_unanswered("t", bytes(1_000_000))
        finally:
            await it.aclose()

    async with deaf() as port, asyncio.timeout(20):
        task = asyncio.create_task(work(port))
        await until(lambda: bool(made) and waits_to_be_sent(made[0]) > 0)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert fileno(made[0]) == -1
        assert all(one.done() for one in made[0]._tasks)
        assert made[0].ended is not None


async def test_p5_nor_does_one_that_does_not_answer_that_we_go() -> None:
    limits = Limits(timeout_s=5, window=10, max_bytes=1_000)
    rate = RateLimit(ManualClock(NOW_MS), asyncio.sleep, per_minute=0)
    async with fake_broker() as fake, asyncio.timeout(20):
        it = Publisher(at(fake.port), ANYWHERE, rate, limits, retain=False, one_topic=True)
        await it.send([], lambda _: [], Status("s", b"here", b"gone"))
        connection = it._kept._connection
        assert connection is not None
        fake.hangs = True

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await it.close()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert fileno(connection) == -1
