"""P1 and P2 from board to cloud: through kill -9 and outages everything arrives, and every repeat is recognisable."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faulty_link import FaultyLink
from tests.ports import free_port
from tests.promises.boards import Board, acknowledged, running
from tests.promises.gateway_process import GatewayProcess
from tests.promises.readings import Stored, missing, repeated, stored
from tests.promises.receiver_process import ReceiverProcess, Request, delivered
from tests.promises.site import Site

_BOARDS = 50
_READINGS = 400
"""Of each board."""
_OUTAGE_S = 10.0
_ANSWERS_LOST = 2
_LOAD_PATIENCE_S = 60.0
_DELIVERY_PATIENCE_S = 75.0
"""The forwarder's backoff after an outage of 10 s may be half a minute."""
_BEFORE_THE_STORM = _BOARDS * _READINGS // 5

Say = Callable[[str], None]


@dataclass(slots=True, frozen=True)
class Scene:
    """Who takes part."""

    gateway: GatewayProcess
    receiver: ReceiverProcess
    link: FaultyLink
    """Between the two."""
    boards: Sequence[Board]

    async def reach(self, count: int) -> None:
        """Return when that many readings are acknowledged."""
        async with asyncio.timeout(_LOAD_PATIENCE_S):
            while sum(len(board.acked) for board in self.boards) < count:  # noqa: ASYNC110 - boards know nothing of us
                await asyncio.sleep(0.005)


async def full_speed(scene: Scene) -> None:
    """Nothing happens."""
    await scene.reach(_BEFORE_THE_STORM)


async def gateway_is_killed(scene: Scene) -> None:
    await scene.reach(_BEFORE_THE_STORM)
    await scene.gateway.kill()
    await scene.gateway.start()


async def receiver_is_away(scene: Scene) -> None:
    await scene.reach(_BEFORE_THE_STORM)
    await scene.receiver.stop()
    await asyncio.sleep(_OUTAGE_S)
    await scene.receiver.start()


async def both(scene: Scene) -> None:
    await scene.reach(_BEFORE_THE_STORM)
    await scene.receiver.stop()
    await asyncio.sleep(_OUTAGE_S / 2)
    await gateway_is_killed(scene)
    await asyncio.sleep(_OUTAGE_S / 2)
    await scene.receiver.start()


async def answers_are_lost_and_the_gateway_is_killed(scene: Scene) -> None:
    """The receiver has a batch, twice, but the gateway never hears of it and is killed: the worst moment for P2."""
    await scene.reach(_BEFORE_THE_STORM)
    scene.link.fault = "loses answers"
    async with asyncio.timeout(_LOAD_PATIENCE_S):
        while scene.link.lost < _ANSWERS_LOST:  # noqa: ASYNC110 - a counter, nothing to wait for
            await asyncio.sleep(0.005)
    await scene.gateway.kill()
    scene.link.fault = None
    await scene.gateway.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("storm", "rate_per_s"),
    [
        (full_speed, None),
        (gateway_is_killed, None),
        # Here the boards take their time, so that readings come before, during and after it.
        (receiver_is_away, 30),
        (both, 30),
        (answers_are_lost_and_the_gateway_is_killed, 150),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_p1_and_p2_hold_through(
    storm: Callable[[Scene], Awaitable[None]], rate_per_s: float | None, tmp_path: Path, say: Say
) -> None:
    async with scene(tmp_path, rate_per_s) as played:
        async with running(played.boards) as boards_at_work:
            await storm(played)
            await asyncio.wait_for(asyncio.gather(*boards_at_work), _LOAD_PATIENCE_S)
        await played.gateway.everything_delivered("cloud", _DELIVERY_PATIENCE_S)
        await played.receiver.count()
        assert await played.gateway.stop() == 0
    in_log = stored(Site(tmp_path).data_dir.log_db)
    requests = played.receiver.requests()
    say(summary(storm.__name__, played, in_log, requests))

    promised = acknowledged(played.boards)
    assert sum(map(len, promised.values())) == _BOARDS * _READINGS
    assert not missing(promised, in_log)
    assert not repeated(in_log)
    assert not missing(promised, delivered(requests))
    assert not readings_with_several_ids(requests)
    assert not batches_that_changed(requests)
    assert not readings_in_several_batches(requests)
    assert redelivered(requests) >= played.link.lost
    counted = played.receiver.counted
    assert (counted["changed"], counted["signature_failures"], counted["malformed"]) == (0, 0, 0)


@asynccontextmanager
async def scene(folder: Path, rate_per_s: float | None) -> AsyncIterator[Scene]:
    port = free_port()
    async with FaultyLink(port) as link:
        site = Site(folder, webhooks={"cloud": link.port})
        site.write()
        logins = await site.add_devices(_BOARDS)
        receiver, gateway = ReceiverProcess(port, site.secret, folder / "record.jsonl"), GatewayProcess(site)
        async with receiver, gateway:
            boards = [Board(login, site.mqtt_port, readings=_READINGS, rate_per_s=rate_per_s) for login in logins]
            yield Scene(gateway, receiver, link, boards)


def readings_with_several_ids(requests: Sequence[Request]) -> list[tuple[str, str, int]]:
    ids: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for request in requests:
        for reading_id, device, boot_id, seq in request.readings:
            ids[device, boot_id, seq].add(reading_id)
    assert len(ids) == len(set.union(*ids.values())), "one id stands for two readings"
    return [key for key, several in ids.items() if len(several) > 1]


def batches_that_changed(requests: Sequence[Request]) -> list[str]:
    first: dict[str, Request] = {}
    return [request.webhook_id for request in requests if first.setdefault(request.webhook_id, request) != request]


def readings_in_several_batches(requests: Sequence[Request]) -> list[str]:
    batch: dict[str, str] = {}
    return [
        reading_id
        for request in requests
        for reading_id, *_ in request.readings
        if batch.setdefault(reading_id, request.webhook_id) != request.webhook_id
    ]


def redelivered(requests: Sequence[Request]) -> int:
    return len(requests) - len({request.webhook_id for request in requests})


def summary(storm: str, played: Scene, in_log: Stored, requests: Sequence[Request]) -> str:
    boards = played.boards
    return (
        f"P1, P2, {storm.replace('_', ' ')}: {sum(board.sent for board in boards):,} readings sent, "
        f"{sum(board.resent for board in boards):,} of them again, "
        f"{sum(len(board.acked) for board in boards):,} acknowledged, "
        f"{sum(map(len, in_log.values())):,} stored, "
        f"{len({one[0] for request in requests for one in request.readings}):,} delivered, "
        f"{redelivered(requests):,} of {len(requests):,} batches redelivered"
    )
