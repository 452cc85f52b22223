"""Token buckets: a burst, then the rate; nothing is saved up beyond the burst, and nobody pays for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import rate_limit
from gateway.clock import ManualClock
from gateway.rate_limit import RateLimits, TokenBucket


@pytest.mark.parametrize(("per_minute", "burst"), [(100, 20), (60, 1), (1, 5), (60_000, 3)])
def test_a_burst_is_free_and_then_the_rate_holds(per_minute: int, burst: int) -> None:
    clock = ManualClock()
    limits = RateLimits(clock, per_minute=per_minute, burst=burst)
    assert [limits.take("a") for _ in range(burst)] == [0] * burst
    assert limits.take("a") == pytest.approx(60 / per_minute, abs=0.001)
    clock.advance(60_000)
    assert [limits.take("a") == 0 for _ in range(min(burst, per_minute) + 1)] == [True] * min(burst, per_minute) + [
        False
    ]


def test_who_waits_as_long_as_told_gets_in_and_no_sooner() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, per_minute=60, burst=2)
    limits.take("a")
    limits.take("a")
    assert limits.take("a") == 1
    clock.advance(999)
    assert limits.take("a") == pytest.approx(0.001)
    clock.advance(1)
    assert limits.take("a") == 0


def test_a_refused_attempt_costs_nothing() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, per_minute=60, burst=1)
    limits.take("a")
    for _ in range(100):
        assert limits.take("a") == 1


def test_rest_is_saved_up_to_one_burst_only() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, per_minute=60, burst=3)
    clock.advance(86_400_000)
    assert [limits.take("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_one_client_does_not_pay_for_another() -> None:
    limits = RateLimits(ManualClock(), per_minute=60, burst=1)
    assert [limits.take(name) for name in ("a", "b", "a", "c")] == [0, 0, 1, 0]


def test_0_lifts_the_limit() -> None:
    limits = RateLimits(ManualClock(), per_minute=0, burst=1)
    assert {limits.take("a") for _ in range(1000)} == {0}


def test_clients_that_are_gone_are_forgotten_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_KEYS_IN_MEMORY", 10)
    clock = ManualClock()
    limits = RateLimits(clock, per_minute=60, burst=2)
    for number in range(9):
        limits.take(f"gone-{number}")
    clock.advance(1000)
    limits.take("here")
    limits.take("here")
    limits.take("new")
    assert set(limits._buckets) == {"here", "new"}
    assert limits.take("here") > 0


@given(
    st.integers(1, 600), st.integers(1, 30), st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 40)), max_size=30)
)
def test_in_any_stretch_no_more_gets_through_than_burst_and_rate_allow(
    per_minute: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock.monotonic_ms, per_minute=per_minute, burst=burst)
    taken_at: list[int] = []
    for pause_ms, attempts in steps:
        clock.advance(pause_ms)
        for _ in range(attempts):
            if bucket.wait_s() == 0:
                bucket.take()
                taken_at.append(clock.monotonic)
    for first in range(len(taken_at)):
        for last in range(first, len(taken_at)):
            allowed = burst + (taken_at[last] - taken_at[first]) * per_minute / 60_000
            assert last - first + 1 <= allowed + 1e-6


def test_a_bucket_is_full_again_when_as_good_as_new() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock.monotonic_ms, per_minute=60, burst=3)
    seen = [bucket.is_full]
    bucket.take()
    for _ in range(2):
        seen.append(bucket.is_full)
        clock.advance(1000)
    assert seen == [True, False, True]


def test_tokens_can_be_asked_for_and_taken_together() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock.monotonic_ms, per_minute=60_000, burst=10)
    assert bucket.tokens == 10
    bucket.take(10)
    assert (bucket.tokens, bucket.wait_s()) == (0, 0.001)
    clock.advance(3)
    assert (bucket.tokens, bucket.wait_s()) == (3, 0)
    clock.advance(1_000)
    assert bucket.tokens == 10


def test_0_means_tokens_without_end() -> None:
    bucket = TokenBucket(ManualClock().monotonic_ms, per_minute=0, burst=0)
    bucket.take(1_000)
    assert bucket.tokens > 1_000_000
