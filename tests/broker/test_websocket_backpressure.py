"""MQTT over WebSocket when one side is faster than the other, or vanishes: nobody waits, nothing is promised early."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp.web import WebSocketResponse

from gateway.broker.connection import Connection
from gateway.broker.door import Door
from gateway.broker.websocket import _Wire
from gateway.operations.devices import revoke_device
from tests.broker.raw import PINGREQ, connect, puback, publish, subscribe
from tests.broker.raw_websocket import (
    PING,
    WebSocketClient,
    frame,
)
from tests.site import FailingDisk, Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"


async def refused(site: Site, reason: str) -> float:
    return await site.metric(f'neurogate_front_door_refused_total{{reason="{reason}"}}')


async def test_p1_nothing_is_acknowledged_before_its_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with WebSocketClient.login(site) as client:
        log = site.log
        with monkeypatch.context() as slow:
            slow.setattr(log, "_commit", lambda: None)
            client.send(publish(TOPIC, reading(), qos=1, packet_id=9))
            await until(lambda: log.waiting == 1, "the reading taken in")
            assert await client.is_alive()
            assert (client.reader._buffer, log.last_row) == (b"", 0)  # type: ignore[attr-defined]
        log._commit()
        await client.expect(puback(9))
        assert log.last_row == 1


async def test_p1_a_failed_commit_acknowledges_nothing(site: Site, disk: FailingDisk) -> None:
    async with WebSocketClient.login(site) as client:
        disk.failing = True
        client.send(publish(TOPIC, reading(), qos=1))
        await client.closed_with()
    disk.failing = False
    async with WebSocketClient.login(site) as client:
        client.send(publish(TOPIC, reading(), qos=1, dup=True))
        await client.expect(puback(1))
        assert len(await site.stored(1)) == 1


async def test_p9_a_client_that_keeps_sending_is_not_read_beyond_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 10_000
    async with (
        running_site(tmp_path, mqtt={"max_inflight": 10, "max_packets_per_second": 0}) as site,
        WebSocketClient.login(site) as client,
    ):
        log = site.log
        with monkeypatch.context() as slow:
            slow.setattr(log, "_commit", lambda: None)
            for _ in range(count // 100):
                client.send_frames(*[frame(publish(TOPIC, reading(padding="x" * 1_000), qos=1))] * 100)
                await asyncio.sleep(0)
            await until(lambda: log.waiting >= 10, "some taken in")
            await asyncio.sleep(0.3)
            assert log.waiting == 10
            assert client.writer.transport.get_write_buffer_size() > 1_000_000
        log._commit()
        for _ in range(count // 100):  # all at once may take long on a machine that is busy
            await client.expect(*[puback(1)] * 100)
        await until(lambda: log.stored == count)
        assert await client.is_alive()


async def test_a_client_that_is_not_read_can_be_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_site(tmp_path, mqtt={"max_inflight": 1}) as site, WebSocketClient.login(site) as client:
        with monkeypatch.context() as slow:
            slow.setattr(site.log, "_commit", lambda: None)
            client.send_frames(*[frame(publish(TOPIC, reading(), qos=1))] * 10)
            await until(lambda: site.log.waiting == 1, "one taken in")
            await site.command(revoke_device, organization_id="default", device_id="kitchen")
            await client.closed_with()
            assert site.gateway._running.door.connections == 0
        site.log._commit()


async def test_p9_a_subscriber_that_reads_nothing_is_dropped_and_readings_go_on(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_subscriber_buffer_bytes": 1000}) as site,
        WebSocketClient.login(site, client_id="stuck") as stuck,
        WebSocketClient.login(site, client_id="board") as board,
    ):
        stuck.send(subscribe("devices/kitchen/#"))
        await stuck.packet()
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a duplex transport
        door = site.gateway._running.door
        packet = publish(TOPIC, reading(padding="x" * 50_000), qos=1)
        for _ in range(400):
            if door.connections == 1:
                break
            board.send(packet)
            await board.expect(puback(1))
        assert door.connections == 1
        assert await refused(site, "slow_subscriber") == 1
        assert await board.is_alive()


@pytest.mark.parametrize("tiny", [frame(b"", PING), frame(b""), frame(PINGREQ)], ids=["ping", "empty", "pingreq"])
async def test_p9_a_flood_of_tiny_frames_leaves_others_their_turn(
    site: Site, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, in_one_turn = 0, [0]
    receive = WebSocketResponse.receive
    monkeypatch.setattr("gateway.broker.websocket.TURN_S", 0.0)

    async def counted(self: WebSocketResponse) -> Any:
        nonlocal taken
        taken += 1
        in_one_turn[-1] += 1
        return await receive(self)

    async def take_turns() -> None:
        while True:
            in_one_turn.append(0)
            await asyncio.sleep(0)

    async with WebSocketClient.login(site) as client:
        monkeypatch.setattr(WebSocketResponse, "receive", counted)
        watching = asyncio.create_task(take_turns())
        client.send_frames(tiny * 4_000)
        await until(lambda: taken >= 4_000, "everything taken in")
        watching.cancel()
        assert max(in_one_turn) <= 2


async def test_a_client_that_vanishes_after_a_ping_is_no_fault_of_ours(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = WebSocketResponse.receive

    async def vanish(self: WebSocketResponse) -> Any:
        message = await receive(self)
        if message.type is WSMsgType.PING:
            assert self._req is not None
            assert self._req.transport is not None
            self._req.transport.abort()
        return message

    monkeypatch.setattr(WebSocketResponse, "receive", vanish)
    async with WebSocketClient.login(site) as client:
        client.send_frames(frame(b"", PING))
        assert await client.rest() == b""
    await until(lambda: not site.gateway._running.door.connections, "the connection forgotten")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    "more",
    [subscribe("devices/kitchen/#"), publish(STATUS, b"x", qos=2), b"\x62\x02\x00\x01"],
    ids=["subscribe", "qos 2", "pubrel"],
)
async def test_what_a_client_said_that_vanished_while_it_logged_in_is_not_looked_at(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    take_over = Door.take_over

    async def vanish(door: Door, connection: Connection) -> None:
        await take_over(door, connection)
        assert isinstance(connection._transport, _Wire)
        connection._transport._below.abort()

    monkeypatch.setattr(Door, "take_over", vanish)
    hello = connect("gone", site.kitchen.username, site.kitchen.password)
    async with WebSocketClient.open(site) as client:
        client.send_frames(frame(hello), frame(more))  # both have arrived before the first is looked at
        assert await client.rest() == b""
    await until(lambda: not site.gateway._running.door.connections, "the connection forgotten")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
