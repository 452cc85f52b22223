import math

import pytest

from cloud_sync.rate_limit import RateLimit
from gateway.clock import ManualClock


class Time:
    """A clock, and a sleep that moves it."""

    def __init__(self) -> None:
        self.clock = ManualClock()

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.clock.advance(math.ceil(seconds * 1000))


async def requests_in(rate: RateLimit, time: Time, ms: int) -> int:
    count = 0
    while True:
        await rate.take()
        if time.clock.monotonic > ms:
            return count
        count += 1


@pytest.mark.parametrize(("per_minute", "burst"), [(100, 20), (20, 20), (5, 5), (1, 1)])
async def test_a_burst_is_allowed_and_then_the_rate_holds(per_minute: int, burst: int) -> None:
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=per_minute)
    assert await requests_in(rate, time, 0) == burst
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=per_minute)
    assert await requests_in(rate, time, 600_000) in (10 * per_minute + burst, 10 * per_minute + burst - 1)


async def test_quiet_time_is_saved_up_to_one_burst_only() -> None:
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=60)
    time.clock.advance(3_600_000)
    assert await requests_in(rate, time, time.clock.monotonic) == 20


async def test_0_lifts_the_limit() -> None:
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=0)
    for _ in range(1000):
        await rate.take()
    assert time.clock.monotonic == 0


async def test_min_interval_s_holds_whatever_the_rate_allows() -> None:
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=0, min_interval_s=1.5)
    for expected_ms in (0, 1500, 3000):
        await rate.take()
        assert time.clock.monotonic == expected_ms


async def test_ready_waits_but_takes_nothing() -> None:
    time = Time()
    rate = RateLimit(time.clock, time.sleep, per_minute=1)
    await rate.take()
    await rate.ready()
    assert (time.clock.monotonic, rate.delay_s()) == (60_000, 0)
    await rate.take()
    assert (time.clock.monotonic, rate.delay_s()) == (60_000, 60)
