"""What bounds a connection: a broker that is silent is gone, and one that is fast has to wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

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


async def test_a_broker_that_does_not_look_whether_we_are_there_is_looked_after_all_the_same() -> None:
    impatient = replace(at(0), login=Login("a", keepalive_s=1))
    async with (
        fake_broker(keepalive_s=0, says_keepalive=True, hangs=True) as silent,
        aclosing(await open_connection(replace(impatient, port=silent.port), ANYWHERE, timeout_s=10)) as gone,
    ):
        async with asyncio.timeout(20):
            await gone.gone()
        assert silent.pings


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


async def nothing_more_fits(sent: list[int]) -> None:
    before = -1
    async with asyncio.timeout(20):
        while len(sent) > before:
            before = len(sent)
            await asyncio.sleep(0.1)


async def take_all(connection: Connection, found: list[int]) -> None:
    while True:
        found += [int(one.payload[:5]) for one in await connection.received(100)]


async def test_p5_a_fast_broker_waits_and_nothing_is_lost() -> None:
    count = 20_000
    async with flood(count) as (port, sent), aclosing(await open_connection(at(port), ANYWHERE, timeout_s=10)) as it:
        await nothing_more_fits(sent)
        assert len(it._arrivals) < 1_100
        assert len(sent) < count
        found: list[int] = []
        with pytest.raises(Failed) as ended:
            await take_all(it, found)
        assert found == list(range(count))
        assert isinstance(ended.value.outcome, NotConnected)


async def test_p5_also_while_an_answer_is_waited_for_that_does_not_come_memory_is_bounded() -> None:
    async with flood(20_000) as (port, sent), aclosing(await open_connection(at(port), ANYWHERE, timeout_s=10)) as it:
        asking = asyncio.create_task(it.subscribe(["#"]))
        await nothing_more_fits(sent)
        assert 1_100 < len(it._arrivals) < 9_000
        assert len(sent) < 20_000
        asking.cancel()
