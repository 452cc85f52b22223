"""All connections together hold so much and no more; who holds most leaves, and nobody else notices."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.broker import door
from gateway.broker.buffers import Buffers
from gateway.broker.door import Door
from tests.broker.raw import RawClient, connect, puback, publish, subscribe
from tests.site import Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
SUBACK = b"\x90\x03\x00\x01\x00"
BOUND = 2_000_000
"""Half of it is for sockets."""


@dataclass
class Holder:
    held_bytes: int
    has_left: bool = field(default=False)

    def give_up(self) -> None:
        self.held_bytes, self.has_left = 0, True


def left(holders: list[Holder]) -> list[bool]:
    return [one.has_left for one in holders]


def test_who_holds_most_leaves_until_there_is_room() -> None:
    holders = [Holder(size) for size in (10, 400, 30, 300, 290)]
    buffers = Buffers(1_000, holders)
    buffers.grew(1_000)
    assert not any(left(holders))
    buffers.grew(1)
    assert left(holders) == [False, True, False, False, False]
    holders.append(Holder(371))
    buffers.grew(370)
    assert left(holders) == [False, True, False, False, False, False]
    buffers.grew(1)
    assert left(holders) == [False, True, False, False, False, True]


def test_what_was_sent_meanwhile_is_no_reason() -> None:
    holders = [Holder(100), Holder(10)]
    buffers = Buffers(1_000, holders)
    for _ in range(1_000):
        buffers.grew(500)
    assert not any(left(holders))


def held(door: Door) -> int:
    return sum(one.held_bytes for one in door._connections)


async def refused(site: Site) -> float:
    return await site.metric('neurogate_front_door_refused_total{reason="buffers_full"}')


@pytest.mark.parametrize("logged_in", [False, True])
async def test_p9_packets_that_never_end_are_bounded_all_together(tmp_path: Path, logged_in: bool) -> None:
    settings = {"buffers_max_bytes": BOUND, "max_packet_bytes": 200_000}
    async with running_site(tmp_path, mqtt=settings) as site, AsyncExitStack() as stack:
        board = await stack.enter_async_context(RawClient.login(site, client_id="board"))
        door = site.gateway._running.door
        unfinished = publish(STATUS, bytes(150_000), qos=1)[:-1]
        if not logged_in:
            unfinished = connect("x", "nobody", "x", will=(STATUS, bytes(60_000)))[:-1]
        most = 0
        for number in range(40):
            if logged_in:
                client = await stack.enter_async_context(RawClient.login(site, client_id=str(number)))
                client.send(unfinished)
            else:
                client = await stack.enter_async_context(RawClient.open(site, unfinished))
            with_this = door.connections
            await asyncio.sleep(0.002)
            most = max(most, held(door))
            assert with_this <= number + 2
        await until(lambda: held(door) > BOUND // 4, "some of it there")
        assert most <= BOUND // 2
        assert await refused(site) >= 10
        board.send(publish(TOPIC, reading(), qos=1))
        await board.expect(puback(1))


async def test_p9_subscribers_that_read_nothing_are_bounded_all_together(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"buffers_max_bytes": BOUND}) as site, AsyncExitStack() as stack:
        door = site.gateway._running.door
        board = await stack.enter_async_context(RawClient.login(site, client_id="board"))
        for number in range(10):
            stuck = await stack.enter_async_context(RawClient.login(site, client_id=str(number)))
            stuck.send(subscribe(STATUS))
            await stuck.expect(SUBACK)
            stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a duplex transport
        most = 0
        for _ in range(400):
            board.send(publish(STATUS, bytes(60_000), qos=1))
            await board.expect(puback(1))
            most = max(most, held(door))
        assert BOUND // 4 < most <= BOUND // 2
        assert await refused(site) >= 1
        assert await board.is_alive()


async def test_p9_what_waits_for_the_disk_is_bounded_all_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when those who have sent it leave, and come again."""
    count, size = 100, 50_000
    async with (
        running_site(tmp_path, mqtt={"buffers_max_bytes": BOUND}) as site,
        RawClient.login(site, client_id="listening") as listening,
    ):
        packet = publish(TOPIC, reading(padding="x" * size), qos=1)
        with monkeypatch.context() as slow:
            slow.setattr(site.log, "_commit", lambda: None)
            slow.setattr(door, "_TAKE_OVER_S", 0.001)  # or whoever comes again would first wait for what it has sent
            for number in range(count):
                async with RawClient.login(site, client_id=str(number % 3)) as board:
                    board.send(packet)
                    await asyncio.sleep(0.002)
            async with RawClient.login(site, client_id="last") as board:
                await asyncio.sleep(0.1)
                board.send(packet)
                paused = 'neurogate_front_door_paused_total{reason="disk"}'
                async with asyncio.timeout(20):
                    while not await site.metric(paused):  # noqa: ASYNC110 - a counter cannot be waited for
                        await asyncio.sleep(0.01)
                assert BOUND // 4 < site.log.waiting_bytes <= BOUND // 2 + 2 * size
                assert await listening.is_alive()
                slow.undo()
                site.log._commit()
                await board.expect(puback(1))


async def test_p9_what_waits_to_be_kept_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"buffers_max_bytes": BOUND, "retained_max_bytes": 10 * BOUND}
    async with running_site(tmp_path, mqtt=settings) as site, RawClient.login(site) as board:
        store = site.gateway._running.door._store
        with monkeypatch.context() as slow:
            slow.setattr(store, "_begin", lambda: None)
            board.send(*[publish(f"{STATUS}/{number}", bytes(60_000), qos=1, retain=True) for number in range(50)])
            await until(lambda: store.waiting_bytes > BOUND // 2, "enough to wait")
            await asyncio.sleep(0.1)
            assert store.waiting_bytes <= BOUND // 2 + 10 * 60_000
        store._begin()
        await board.expect(*[puback(1)] * 50)
        assert store.waiting_bytes == 0
