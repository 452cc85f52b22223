"""The engine against a model of its promises: filters, failures, refusals, restarts, overflow, both ways to catch up.

Every request is looked at. At the end everything that is wanted was delivered, is a dead letter, or is counted as lost.
"""

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.contract import Batch, NotConnected, Ok, Outcome, Rejected
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from tests.cloud_sync.samples import NOW_MS
from tests.cloud_sync.site import Scripted, Site, open_site, running, until

pytestmark = pytest.mark.timeout(600)

_DEVICES = ("a", "b", "c")
_MOST_REQUESTS = 400


@dataclass(frozen=True)
class Answer:
    """What happens to a request."""

    arrives: bool = True
    is_answered: bool = True
    then_come: int = 0
    """So many readings come in meanwhile."""


@dataclass(frozen=True)
class Run:
    """From one start of the gateway to the next."""

    readings: int
    are_old: bool
    overflow: int
    newest_first: bool
    batch: int
    answers: list[Answer]


_answers = st.builds(
    Answer, arrives=st.booleans(), is_answered=st.sampled_from([True, True, False]), then_come=st.integers(0, 4)
)
_runs = st.lists(
    st.builds(
        Run,
        readings=st.integers(0, 12),
        are_old=st.booleans(),
        overflow=st.sampled_from([0, 0, 0, 3, 10]),
        newest_first=st.sampled_from([True, True, False]),
        batch=st.integers(1, 4),
        answers=st.lists(_answers, max_size=8),
    ),
    min_size=2,
    max_size=4,
)


@dataclass
class World:
    """What the other side has, and what must be true of it."""

    wanted: tuple[str, ...]
    refused: int
    """Each row that this number divides is refused; 0: none."""
    device_of: dict[int, str] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    bodies: dict[str, bytes] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    @property
    def all_wanted(self) -> set[int]:
        return {row for row, device in self.device_of.items() if not self.wanted or device in self.wanted}

    def is_refused(self, row: int) -> bool:
        return bool(self.refused) and row % self.refused == 0

    def look_at(self, batch: Batch, body: bytes, *, newest_first: bool) -> None:
        """Find fault with a request."""
        rows = [one.row for one in batch.readings]
        assert rows == sorted(set(rows)), "out of order"
        assert set(rows) <= self.all_wanted, "not wanted"
        assert self.bodies.setdefault(batch.id, body) == body, "another batch under the same id"
        assert not self.acknowledged.intersection(rows), "sent again though it was acknowledged"
        outstanding = {one for one in self.all_wanted - self.acknowledged - self.lost if not self.is_refused(one)}
        sound = [row for row in rows if not self.is_refused(row)]
        if sound and not newest_first and not self.had_backlog:
            assert sound[0] == min(outstanding), "an older one was passed by"
        if sound and sound[0] != min(outstanding):
            assert sound[0] > max(self.acknowledged, default=0), "neither the next of the backlog nor newer than all"

    had_backlog: bool = False


class Faulty(Scripted):
    """Answers as a run says; after that it hangs."""

    def __init__(self, world: World, site: Site, run: Run) -> None:
        super().__init__(
            devices=world.wanted,
            batch_max_readings=run.batch,
            catch_up="newest_first" if run.newest_first else "oldest_first",
        )
        self._world = world
        self._site = site
        self._run = run
        self._left = list(run.answers)
        self.hangs = False

    def encode(self, batch: Batch) -> bytes:
        return json.dumps([[one.row, one.historical, one.body] for one in batch.readings]).encode()

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        self.sent.append((batch, body))
        assert len(self.sent) < _MOST_REQUESTS, "it never ends"
        self._world.look_at(batch, body, newest_first=self._run.newest_first)
        if not self._left:
            self.hangs = True
            await asyncio.get_running_loop().create_future()
        answer = self._left.pop(0)
        await come_in(self._site, self._world, answer.then_come)
        rows = [one.row for one in batch.readings]
        if not answer.arrives:
            return NotConnected("away")
        if any(map(self._world.is_refused, rows)):
            return Rejected("not this one") if answer.is_answered else NotConnected("broke off")
        self._world.accepted.update(rows)
        if not answer.is_answered:
            return NotConnected("broke off")
        self._world.acknowledged.update(rows)
        return Ok()


async def come_in(site: Site, world: World, count: int) -> None:
    for _ in range(count):
        device = _DEVICES[(len(world.device_of) * 7 // 3) % 3]
        monotonic_ms = site.clock.monotonic_ms()
        payload = b'{"sensors":{"pir":{"motion_detected":true}}}'
        stream = site.log.stream("default", device, "boot")
        await site.log.append([NewReading(stream, None, NOW_MS, TimeSource.DEVICE, NOW_MS, monotonic_ms, payload)])
        world.device_of[site.log._newest] = device


async def overflow(site: Site, world: World, count: int) -> None:
    """Let the oldest rows leave; what the destination had not acknowledged of them is lost."""
    there = {one.row for one in await site.log.read(0, limit=1000)}
    site.log.bounds._reclaim(count, may_lose=True)
    await site.log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])  # goes through the same thread, after it
    gone = there - {one.row for one in await site.log.read(0, limit=1000)}
    letters = {letter.reading.row for letter in await site.log.dead_letters.letters()}
    world.lost |= (gone & world.all_wanted) - world.acknowledged - letters


async def one_run(path: Path, world: World, run: Run) -> None:
    async with open_site(path) as site:
        await come_in(site, world, run.readings)
        site.clock.advance(100_000 * run.are_old)
        destination = Faulty(world, site, run)
        config = destination.config
        await site.log.open_cursor(config.name, start="oldest", selection=config.selection)
        if run.overflow:
            await overflow(site, world, run.overflow)
        world.had_backlog = await site.log.open_backlog(config.name) is not None
        async with running(site.forwarder(destination)) as forwarder:
            await until(lambda: destination.hangs or forwarder._next_range() is None)


async def everything(path: Path, world: World, runs: list[Run]) -> None:
    for run in runs:
        await one_run(path, world, run)
    await one_run(path, world, Run(1, runs[-1].are_old, 0, runs[-1].newest_first, 4, [Answer()] * 300))
    async with open_site(path) as site:
        found = await site.log.dead_letters.letters()
        loss = await site.log.loss("cloud")
        backlog = await site.log.open_backlog("cloud")
    letters = {letter.reading.row for letter in found}
    assert world.all_wanted == world.acknowledged | letters | world.lost
    assert not world.acknowledged & world.lost
    assert not letters & world.lost
    assert (loss.readings if loss else 0) == len(world.lost)
    assert all(map(world.is_refused, letters))
    assert backlog is None or any(letter.provisional for letter in found)  # which a success confirms some day


@settings(max_examples=60, deadline=None)
@given(runs=_runs, wanted=st.sampled_from([(), ("a",), ("a", "c"), ("z",)]), refused=st.sampled_from([0, 0, 5]))
def test_everything_that_is_wanted_arrives(runs: list[Run], wanted: tuple[str, ...], refused: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(everything(Path(folder) / "log.db", World(wanted, refused), runs))
