"""Dead letters through a running gateway: over its control socket, with a real receiver behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cloud_sync.forwarder import Forwarder
from gateway.cli.gateway_link import connect
from gateway.model.errors import NotFound
from gateway.operations.dead_letters import (
    RefusedReading,
    drop_dead_letters,
    list_dead_letters,
    replay_dead_letters,
    told,
)
from tests.cloud_sync.site import serving
from tests.site import Site, running_site, until


class Receiver:
    """Refuses readings of the sequence numbers that it is told, until it is told otherwise."""

    def __init__(self) -> None:
        self.poison: set[int] = {2, 3, 5}
        self.open = asyncio.Event()
        self.open.set()

    async def post(self, request: web.Request) -> web.Response:
        body: Any = await request.json()
        await self.open.wait()
        refused = self.poison.intersection(one["seq"] for one in body["readings"])
        return web.Response(status=422 if refused else 204)


@asynccontextmanager
async def poisoned(data_dir: Path) -> AsyncIterator[tuple[Site, Receiver]]:
    """A gateway whose one destination has refused three of six readings."""
    receiver = Receiver()
    async with serving(receiver.post) as server:
        cloud: dict[str, Any] = {"type": "webhook", "name": "cloud", "start": "oldest", "rate_limit_per_minute": 0}
        cloud["url"] = str(server.make_url("/hook"))
        async with running_site(data_dir, integrations=[cloud]) as site:
            await send(site, range(1, 7))
            await until(lambda: forwarder(site)._live.position == 6, "delivery")
            await flushed(site)
            yield site, receiver


def forwarder(site: Site) -> Forwarder:
    (running,) = site.gateway._running.integrations.running()
    assert running.forwarder is not None
    return running.forwarder


async def flushed(site: Site) -> None:
    while len(await site.log.dead_letters.keys()) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def send(site: Site, seqs: range) -> None:
    readings = [
        {"device_id": "kitchen", "boot_id": "b", "seq": n, "sensors": {"pir": {"motion_detected": True}}} for n in seqs
    ]
    headers = {"x-api-key": site.kitchen.password}
    async with site.http.post(site.url("/api/v1/sensor-data"), json={"readings": readings}, headers=headers) as answer:
        assert answer.status == 202


def test_what_is_told_of_one_is_each_under_its_own_name() -> None:
    one = RefusedReading(7, "site-1:log:7", "cloud", "acme", "kitchen", 1, "why", 2, 3, 4, True, False)  # noqa: FBT003
    assert told(one) == {
        "row": 7,
        "id": "site-1:log:7",
        "destination": "cloud",
        "organization_id": "acme",
        "device_id": "kitchen",
        "time": "1970-01-01T00:00:00.001Z",
        "reason": "why",
        "attempts": 2,
        "first_at": "1970-01-01T00:00:00.003Z",
        "last_at": "1970-01-01T00:00:00.004Z",
        "provisional": True,
        "replay_requested": False,
    }


async def test_a_replay_wakes_the_forwarder_and_ends_when_all_are_settled(tmp_path: Path) -> None:
    async with poisoned(tmp_path) as (site, receiver), connect(site.settings) as link:
        receiver.poison = {3}
        before = asyncio.get_running_loop().time()
        steps = [one async for one in link.stream(replay_dead_letters, rows=[], destination=None)]
        assert asyncio.get_running_loop().time() - before < 0.9, "nobody looks only once a second"
        assert (steps[0].delivered, steps[0].waiting, steps[0].absent) == (0, 3, [])
        assert (steps[-1].delivered, steps[-1].refused, steps[-1].waiting) == (2, 1, 0)
        pages = [page async for page in link.stream(list_dead_letters, destination=None)]
        assert [(one.row, one.attempts) for page in pages for one in page] == [(3, 2)]


async def test_what_was_given_up_during_a_replay_does_not_count_as_delivered(tmp_path: Path) -> None:
    async with poisoned(tmp_path) as (site, receiver), connect(site.settings) as link, connect(site.settings) as other:
        receiver.poison.clear()
        receiver.open.clear()
        replay = forwarder(site)._replay
        async with (
            aclosing(link.stream(replay_dead_letters, rows=[2], destination="cloud")) as first,
            aclosing(other.stream(replay_dead_letters, rows=[3, 5], destination="cloud")) as second,
        ):
            assert (await anext(first)).waiting == 1
            await until(lambda: replay._encoded is not None, "the first on its way")
            assert (await anext(second)).waiting == 2
            assert await site.command(drop_dead_letters, rows=[3], destination=None) == 1
            receiver.open.set()
            *_, delivered = [step async for step in first]
            *_, given_up = [step async for step in second]
        assert (delivered.delivered, delivered.refused, delivered.waiting, delivered.gone) == (1, 0, 0, 0)
        assert (given_up.delivered, given_up.refused, given_up.waiting, given_up.gone) == (1, 0, 0, 1)


async def test_who_goes_away_while_waiting_ends_only_the_watching(tmp_path: Path) -> None:
    async with poisoned(tmp_path) as (site, receiver), connect(site.settings) as link:
        receiver.poison.clear()
        receiver.open.clear()
        async with aclosing(link.stream(replay_dead_letters, rows=[2, 5], destination="cloud")) as steps:
            assert (await anext(steps)).waiting == 2
        receiver.open.set()
        async with asyncio.timeout(20):
            while await site.log.dead_letters.keys() != {("cloud", 3)}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_gateway_that_stops_ends_the_watching(tmp_path: Path) -> None:
    waiting: list[int] = []

    async def watch(site: Site, begun: asyncio.Event) -> None:
        async with connect(site.settings) as link:
            async for step in link.stream(replay_dead_letters, rows=[], destination=None):
                waiting.append(step.waiting)
                begun.set()

    async with poisoned(tmp_path) as (site, receiver):
        receiver.open.clear()
        begun = asyncio.Event()
        watching = asyncio.create_task(watch(site, begun))
        await asyncio.wait_for(begun.wait(), 20)
        receiver.open.set()
    await asyncio.wait_for(watching, 20)
    assert waiting[0] == 3


async def test_dropped_ones_are_settled_for_whoever_waits(tmp_path: Path) -> None:
    async with poisoned(tmp_path) as (site, receiver), connect(site.settings) as link:
        receiver.open.clear()
        async with aclosing(link.stream(replay_dead_letters, rows=[2], destination=None)) as steps:
            assert (await anext(steps)).waiting == 1
            assert await link.call(drop_dead_letters, rows=[2], destination="cloud") == 1
            assert (await anext(steps)).waiting == 0
        receiver.open.set()


async def test_a_row_that_is_no_dead_letter_changes_nothing(tmp_path: Path) -> None:
    async with poisoned(tmp_path) as (site, _), connect(site.settings) as link:
        with pytest.raises(NotFound, match="no dead letter with row 4"):
            await anext(link.stream(replay_dead_letters, rows=[2, 4], destination=None))
        with pytest.raises(NotFound, match="no dead letter with row 4"):
            await link.call(drop_dead_letters, rows=[4], destination=None)
        assert await site.log.dead_letters.requested_keys() == set()
        assert len(await site.log.dead_letters.keys()) == 3
