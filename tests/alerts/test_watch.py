"""What is wrong, and from when on."""

from collections.abc import Callable
from typing import Any

import pytest

from cloud_sync.contract import AuthFailed, Gone, NotConnected, Ok, Outcome, Rejected, RetryAfter, WrongAddress
from cloud_sync.health import Health
from gateway.alerts.watch import Ending, Looked, Watch, Watched
from gateway.clock import ManualClock
from gateway.metrics import Metrics
from gateway.storage.alerts import Cause

DAY_S = 86_400


class Scene:
    """An integration that is watched."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.health = Health("cloud", self.clock, Metrics())
        self.watch = Watch(self.clock)

    def tries(self, *outcomes: Outcome, each_s: int = 60) -> None:
        for outcome in outcomes:
            self.health.tried(outcome, 0.1)
            self.clock.advance(each_s * 1000)

    def look(self, **fields: Any) -> Looked:
        health: Health | None = fields.pop("health", self.health)
        return self.watch.look([Watched("cloud", "Cloud", "acme", health, **fields)], [], lambda *_: True)

    def causes(self, **fields: Any) -> list[Cause]:
        return [*self.look(**fields).causes.values()]

    def kinds(self, **fields: Any) -> list[str]:
        return [one.kind for one in self.causes(**fields)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_failed_connection_is_told_when_it_lasts_and_weighs_more_later(scene: Scene) -> None:
    away = NotConnected("refused")
    scene.tries(away, away)
    assert scene.kinds() == []  # two attempts
    scene.tries(away)
    (cause,) = scene.causes()
    assert (cause.organization_id, cause.kind, cause.subject) == ("acme", "connection_failed", "cloud")
    assert (cause.severity, cause.count) == ("medium", 3)
    assert cause.message == "Cloud cannot be reached: refused"
    scene.clock.advance(3_600_000)
    assert scene.causes()[0].severity == "high"
    scene.tries(Ok())
    assert scene.kinds() == []


def test_a_short_interruption_is_none(scene: Scene) -> None:
    away = NotConnected("refused")
    scene.tries(*[away] * 5, each_s=10)
    assert scene.kinds() == []


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([AuthFailed("401")] * 3, "authentication_failed"),
        ([WrongAddress("404")], "configuration_error"),
        ([Gone("410")], "configuration_error"),
        ([Rejected("422")] * 10, "configuration_error"),
        ([RetryAfter(1, "429")] * 5, "quota_exceeded"),
        ([Ok(), RetryAfter(1, "429")] * 5, "quota_exceeded"),
    ],
)
def test_what_lasts_is_told_by_its_kind(scene: Scene, outcomes: list[Outcome], kind: str) -> None:
    scene.tries(*outcomes[:-1])
    assert scene.kinds() == []
    scene.tries(outcomes[-1])
    assert scene.kinds() == [kind]


def test_one_that_cannot_be_started_is_told(scene: Scene) -> None:
    assert scene.kinds(health=None) == []
    (cause,) = scene.causes(health=None, why="There is no secret cloud.")
    assert (cause.kind, cause.severity) == ("configuration_error", "high")
    assert cause.message == "Cloud is not started: There is no secret cloud."


def test_one_that_gets_further_behind_cannot_keep_up(scene: Scene) -> None:
    scene.tries(Ok())

    def behind(undelivered: int, oldest_s: float = 700.0) -> list[str]:
        found = scene.kinds(undelivered=undelivered, oldest_s=oldest_s)
        scene.clock.advance(5 * 60_000)
        return found

    assert [behind(count) for count in (1_000, 1_500)] == [[], []]  # for less than ten minutes
    assert behind(2_000) == ["cannot_keep_up"]
    assert behind(1_500) == ["cannot_keep_up"]  # still more than there was
    assert behind(900) == []  # it catches up
    assert [behind(count) for count in (800, 700, 600)] == [[]] * 3
    assert [behind(count) for count in (600, 600, 600)] == [[]] * 3  # as much as before
    assert [behind(count, 20) for count in (700, 800, 900)] == [[]] * 3  # nothing waits for long
    scene.tries(NotConnected("away"))
    assert [behind(count) for count in (1_000, 2_000, 3_000)] == [[]] * 3  # that is another matter


def test_what_was_not_tried_is_neither_well_nor_ill(scene: Scene) -> None:
    def unknown(kind: str, **fields: Any) -> bool:
        return scene.look(**fields).unknown(("acme", kind, "cloud"))

    kinds = ("connection_failed", "authentication_failed", "configuration_error", "quota_exceeded", "cannot_keep_up")
    assert all(unknown(kind) for kind in kinds)
    scene.tries(Ok())
    assert not any(unknown(kind) for kind in kinds)
    scene.tries(NotConnected("away"))
    assert unknown("authentication_failed")  # it was not asked
    scene.tries(RetryAfter(1, "429"))
    assert unknown("quota_exceeded")
    assert not unknown("configuration_error", health=None, why="no secret")


def certificates(*endings: Ending, has_access: Callable[[str, str], bool] = lambda *_: True) -> Looked:
    return Watch(ManualClock()).look([], endings, has_access)


@pytest.mark.parametrize(
    ("left_days", "is_soon", "severity"),
    [(100, False, None), (10, True, "medium"), (2, True, "high"), (-1, True, "critical")],
)
def test_a_certificate_that_ends_soon_is_told(left_days: int, is_soon: bool, severity: str | None) -> None:
    looked = certificates(Ending(None, "server", left_days * DAY_S, is_soon, "It ends."))
    assert [one.severity for one in looked.causes.values()] == ([] if severity is None else [severity])


def test_of_a_device_that_was_not_here_since_the_start_nobody_knows() -> None:
    key = ("acme", "certificate_expires", "kitchen")
    assert certificates().unknown(key)
    assert not certificates(has_access=lambda *_: False).unknown(key)
    assert not certificates(Ending("acme", "kitchen", 9e9, is_soon=False, words="")).unknown(key)
    assert not certificates().unknown((None, "certificate_expires", "server"))
