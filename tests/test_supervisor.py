"""A part that crashes comes back, less and less often while it goes on crashing, and everybody can see it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.metrics import Metrics
from gateway.supervisor import Supervisor

Part = Callable[[], Awaitable[None]]


class Time:
    """The loop's time: it passes only where somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.while_waiting: Callable[[], None] = lambda: None
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("gateway.supervisor.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.while_waiting()
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def supervisor(metrics: Metrics) -> Supervisor:
    return Supervisor(metrics)


def crashing(times: int, time: Time, *, after_s: float = 0) -> Part:
    """A part that crashes so often, each time after a while, and then is done."""
    left = times

    async def run() -> None:
        nonlocal left
        time.now += after_s
        if left:
            left -= 1
            raise ZeroDivisionError("again")

    return run


async def test_a_crash_is_followed_by_a_restart_ever_later_but_at_least_every_minute(
    supervisor: Supervisor, time: Time
) -> None:
    await supervisor.keep_running("part", crashing(9, time))
    assert time.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_part_that_was_healthy_for_long_starts_again_soon(supervisor: Supervisor, time: Time) -> None:
    await supervisor.keep_running("part", crashing(3, time, after_s=61))
    assert time.waits == [1, 1, 1]


async def test_it_is_visible_while_it_waits_and_not_when_it_runs(
    supervisor: Supervisor, time: Time, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, str]] = []
    time.while_waiting = lambda: seen.append(dict(supervisor.failing))
    run = crashing(2, time)

    async def watched() -> None:
        assert supervisor.failing == {}
        await run()

    await supervisor.keep_running("part", watched)
    assert seen == [{"part": "ZeroDivisionError; the log says more"}] * 2
    assert supervisor.failing == {}
    assert metrics.registry.get_sample_value("neurogate_part_restarts_total", {"part": "part"}) == 2
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


async def test_a_part_that_returns_is_done(supervisor: Supervisor, time: Time, metrics: Metrics) -> None:
    await supervisor.keep_running("part", crashing(0, time))
    assert time.waits == []
    assert metrics.registry.get_sample_value("neurogate_part_restarts_total", {"part": "part"}) is None


async def test_cancelling_ends_a_part_that_runs_and_counts_as_no_crash(supervisor: Supervisor) -> None:
    started, cleaned_up = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    task = asyncio.create_task(supervisor.keep_running("part", run))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned_up.is_set()
    assert supervisor.failing == {}


async def test_cancelling_ends_a_part_that_waits_for_its_restart(supervisor: Supervisor) -> None:
    crashed = asyncio.Event()

    async def run() -> None:
        crashed.set()
        raise ZeroDivisionError

    task = asyncio.create_task(supervisor.keep_running("part", run))
    await crashed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_part_that_crashes_stops_no_other(supervisor: Supervisor, time: Time) -> None:
    alive = asyncio.Event()

    async def other() -> None:
        alive.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.keep_running("crashing", crashing(5, time)))
        tasks.create_task(supervisor.keep_running("other", other))
    assert alive.is_set()
