"""P3: a destination that hangs and one that refuses delay neither the boards nor the destination that works."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.app import Gateway
from gateway.config import load
from gateway.storage.log_reader import LogReader
from gateway.storage.state import DeviceCredential
from tests.ports import free_port
from tests.promises.boards import Board, acknowledged, running
from tests.promises.dead_ends import refusing_port, silent_server
from tests.promises.readings import missing
from tests.promises.receiver_process import ReceiverProcess, delivered
from tests.promises.site import Site

_BOARDS = 10
_READINGS = 200
"""Of each board in each wave."""
_PATIENCE_S = 10.0
"""Far below a webhook's timeout of 30 s: whoever waits for the hanging one fails."""
_LONGEST_ACK_S = 2.0
_STOP_S = 5.0


async def test_p3_dead_destinations_delay_neither_boards_nor_a_living_one(
    tmp_path: Path, say: Callable[[str], None]
) -> None:
    port = free_port()
    async with silent_server() as silence:
        with refusing_port() as closed_port:
            site = Site(tmp_path, webhooks={"hangs": silence.port, "refuses": closed_port, "lives": port})
            site.write()
            logins = await site.add_devices(_BOARDS)
            receiver = ReceiverProcess(port, site.secret, tmp_path / "record.jsonl")
            async with receiver, in_process(site) as gateway:
                boards: list[Board] = []
                for wave in (1, 2):  # the second one when both have failed
                    boards += await publish(site, logins, f"boot-{wave}")
                    await delivered_to_the_living_one(gateway)
                states = {one.name: one for one in (await gateway.status()).destinations}
    async with LogReader.open(site.data_dir.log_db) as log:
        places = {cursor.name: cursor.position for cursor in await log.cursors()}
    longest = max(board.longest_ack_s for board in boards)
    arrived = delivered(receiver.requests())
    say(
        f"P3: beside a hanging and a refusing destination {sum(map(len, arrived.values())):,} readings delivered, "
        f"acknowledged within {longest * 1000:.0f} ms"
    )
    everything = 2 * _BOARDS * _READINGS
    assert sum(len(board.acked) for board in boards) == everything
    assert longest < _LONGEST_ACK_S
    assert not missing(acknowledged(boards), arrived)
    assert silence.requests == 1
    assert states["refuses"].failures >= 1
    assert [states[name].undelivered for name in ("hangs", "refuses", "lives")] == [everything, everything, 0]
    assert places == {"hangs": 0, "refuses": 0, "lives": everything}


@asynccontextmanager
async def in_process(site: Site) -> AsyncIterator[Gateway]:
    gateway = Gateway(load(site.config, {}).settings)
    stop, ready = asyncio.Event(), asyncio.Event()
    at_work = asyncio.create_task(gateway.run(stop, ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), _PATIENCE_S)
        yield gateway
    finally:
        stop.set()
        await asyncio.wait_for(at_work, _STOP_S)


async def publish(site: Site, logins: list[DeviceCredential], boot_id: str) -> list[Board]:
    """Let every board publish its readings; returns when they are acknowledged."""
    boards = [Board(login, site.mqtt_port, boot_id=boot_id, readings=_READINGS) for login in logins]
    async with running(boards) as at_work:
        await asyncio.wait_for(asyncio.gather(*at_work), _PATIENCE_S)
    return boards


async def delivered_to_the_living_one(gateway: Gateway) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while any(one.undelivered for one in (await gateway.status()).destinations if one.name == "lives"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
