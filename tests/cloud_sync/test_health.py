"""How an integration does, as its owner sees it."""

import pytest

from cloud_sync.contract import (
    AuthFailed,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.health import _KINDS, REFUSALS_AT_MOST, ErrorKind, Health
from cloud_sync.sender import OUTCOME_LABELS
from gateway.clock import ManualClock
from gateway.metrics import Metrics

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health(clock: ManualClock, metrics: Metrics) -> Health:
    return Health("cloud", clock, metrics)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"neurogate_integration_{name}", {"integration": "cloud"} | labels)


def test_what_was_not_tried_is_taken_for_well(health: Health, metrics: Metrics) -> None:
    figures = health.figures()
    assert (figures.up, figures.uptime, figures.last_success_ms, figures.latency_s) == (True, 1.0, None, None)
    assert sample(metrics, "up") == 1


def test_a_success_is_seen_with_its_time_and_length(health: Health, clock: ManualClock, metrics: Metrics) -> None:
    health.tried(Ok(), 0.5, 600)
    clock.advance(60_000)
    health.tried(Ok(), 1.0, 400)
    clock.advance(60_000)
    figures = health.figures()
    assert figures.last_success_ms == clock.now - 60_000
    assert figures.latency_s == 0.6
    assert figures.items_per_minute == 200.0
    clock.advance(10 * 60_000)
    assert health.figures().items_per_minute == 0
    assert sample(metrics, "request_seconds_sum") == 1.5
    assert sample(metrics, "last_success_timestamp_seconds") == figures.last_success_ms / 1000


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (AuthFailed("401"), "authentication"),
        (RetryAfter(3, "429"), "quota"),
        (NotConnected("refused"), "connection"),
        (WrongAddress("404"), "configuration"),
        (Gone("410"), "configuration"),
    ],
)
def test_a_failure_is_seen_with_its_kind(health: Health, metrics: Metrics, outcome: Outcome, kind: ErrorKind) -> None:
    health.tried(outcome, 0.1)
    figures = health.figures()
    assert (figures.up, figures.error_kind, figures.failures) == (False, kind, 1)
    assert sample(metrics, "errors_total", kind=kind) == 1
    assert sample(metrics, "up") == 0
    health.tried(Ok(), 0.1)
    assert (health.is_up, health.failures, health.errors) == (True, 0, 1)


def test_each_outcome_has_a_kind() -> None:
    assert {*_KINDS, Ok} == set(OUTCOME_LABELS)


def test_who_refuses_some_readings_is_there_and_who_refuses_all_is_not(health: Health) -> None:
    refusals: list[Outcome] = [Rejected("too hot"), TooLarge("413")]
    for refusal in refusals * (REFUSALS_AT_MOST // 2 - 1):
        health.tried(refusal, 0.1)
    assert health.is_up
    for _ in range(2):
        health.tried(Rejected("too hot"), 0.1)
    assert not health.is_up


def test_uptime_is_the_share_of_the_last_day(health: Health, clock: ManualClock, metrics: Metrics) -> None:
    clock.advance(3 * HOUR_MS)
    health.failed(NotConnected("away"))
    clock.advance(HOUR_MS)
    assert health.uptime == pytest.approx(0.75)
    health.succeeded(0.1)
    clock.advance(20 * HOUR_MS)
    assert health.uptime == pytest.approx(23 / 24, abs=0.001)
    assert sample(metrics, "uptime_ratio") == health.uptime
    clock.advance(5 * HOUR_MS)
    assert health.uptime == 1.0
    health.failed(NotConnected("away"))
    clock.advance(100 * HOUR_MS)  # without anybody having looked
    assert health.uptime == 0.0
    assert len(health._down_ms) <= 96
