"""What bounds a connection: a broker that is silent is gone, and one that is fast has to wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from cloud_sync.contract import NotConnected
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, Login, publish
from cloud_sync.integrations.mqtt_client.reasons import Failed
from tests.cloud_sync.integrations.mqtt_client.fake_broker import fake_broker
from tests.cloud_sync.samples import ANYWHERE


def at(port: int) -> Broker:
    return Broker("127.0.0.1", port, uses_tls=False, websocket_path=None, login=Login("a"), level=MQTT_5)


async def test_a_broker_that_is_silent_is_gone_and_one_that_answers_stays() -> None:
    async with (
        fake_broker(keepalive_s=1, hangs=True) as silent,
        fake_broker(keepalive_s=1) as fine,
        aclosing(await open_connection(at(silent.port), ANYWHERE, timeout_s=10)) as gone,
        aclosing(await open_connection(at(fine.port), ANYWHERE, timeout_s=10)) as there,
    ):
        async with asyncio.timeout(20):
            await gone.gone()
        assert gone.ended is not None
        assert gone.ended.reason.startswith("it has not answered for")
        assert there.ended is None
        assert fine.pings


@asynccontextmanager
async def flood(count: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A broker that sends as much as is taken, and ends then; it counts what has gone into the socket."""
    sent: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        await reader.read(1_000)
        writer.write(b"\x20\x03\0\0\0")
        for number in range(count):
            writer.write(publish(MQTT_5, "t", b"%05d" % number + b"x" * 2_000, 0))
            await writer.drain()
            sent.append(number)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], sent
    finally:
        server.close()


async def take_all(connection: Connection, found: list[int]) -> None:
    while True:
        found += [int(one.payload[:5]) for one in await connection.received(100)]


async def test_p5_a_fast_broker_waits_and_nothing_is_lost() -> None:
    count = 20_000
    async with flood(count) as (port, sent), aclosing(await open_connection(at(port), ANYWHERE, timeout_s=10)) as it:
        before = -1
        async with asyncio.timeout(20):
            while len(sent) > before:  # until nothing more fits
                before = len(sent)
                await asyncio.sleep(0.1)
        assert len(it._waiting.messages) < 1_100
        assert len(sent) < count
        found: list[int] = []
        with pytest.raises(Failed) as ended:
            await take_all(it, found)
        assert found == list(range(count))
        assert isinstance(ended.value.outcome, NotConnected)
