"""What becomes of what is wrong: one alert for each cause, told once, resolved by itself."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.alerts.engine import REOPEN_MS, AlertEngine
from gateway.alerts.watch import Looked
from gateway.clock import ManualClock
from gateway.model.errors import NotFound, StoreFailed, StoreFull
from gateway.storage import alerts as storage
from gateway.storage.alerts import AlertRow, Alerts, Cause, Key, Scope
from gateway.storage.state import State

CAUSE = Cause("acme", "connection_failed", "cloud", "medium", "Cloud cannot be reached: refused", 3)
ALL = Scope(everybodys=True)


@dataclass
class Bench:
    """An engine, and what it sees."""

    clock: ManualClock
    store: Alerts
    wrong: list[Cause] = field(default_factory=list)
    unknown: set[Key] = field(default_factory=set)
    told: list[AlertRow] = field(default_factory=list)
    deaf: bool = False
    full: str | None = ""
    """The organisation that can take nothing more."""

    def __post_init__(self) -> None:
        self.engine = self.new_engine()

    def new_engine(self) -> AlertEngine:
        return AlertEngine(self.store, self.look, self.clock, on_open=self.hear)

    async def look(self) -> Looked:
        return Looked({one.key: one for one in self.wrong}, self.unknown.__contains__)

    async def hear(self, alert: AlertRow) -> None:
        if self.deaf:
            raise StoreFailed("The disk is full.")
        if alert.organization_id == self.full:
            raise StoreFull("Too much waits.")
        self.told.append(alert)

    async def sees(self, *causes: Cause, after_ms: int = 30_000) -> list[AlertRow]:
        """Let it look; return all alerts, the newest first."""
        self.clock.advance(after_ms)
        self.wrong = [*causes]
        await self.engine.turn()
        return await self.store.page(ALL, limit=100)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    async with State.open(tmp_path / "state.db", bytes(32), clock=clock) as state:
        yield Bench(clock, Alerts(state))


async def test_a_cause_is_one_alert_and_told_once(bench: Bench) -> None:
    (opened,) = await bench.sees(CAUSE)
    assert (opened.state, opened.count, opened.severity, opened.first_at_ms) == ("open", 3, "medium", bench.clock.now)
    for count in range(4, 20):
        await bench.sees(replace(CAUSE, count=count), after_ms=60_000)
    (goes_on,) = await bench.sees(replace(CAUSE, count=20), after_ms=5 * 60_000)
    assert (goes_on.id, goes_on.count, goes_on.last_at_ms) == (opened.id, 20, bench.clock.now)
    assert bench.told == [opened]


async def test_what_goes_on_is_seldom_written_unless_it_gets_worse(bench: Bench) -> None:
    (opened,) = await bench.sees(CAUSE)
    assert await bench.sees(replace(CAUSE, count=9), after_ms=60_000) == [opened]
    (worse,) = await bench.sees(replace(CAUSE, count=10, severity="high"), after_ms=60_000)
    assert (worse.severity, worse.count) == ("high", 10)


async def test_it_is_resolved_by_itself(bench: Bench) -> None:
    await bench.sees(CAUSE)
    (over,) = await bench.sees()
    assert (over.state, over.resolved_at_ms) == ("resolved", bench.clock.now)


async def test_what_nobody_knows_of_stays_as_it_is(bench: Bench) -> None:
    await bench.sees(CAUSE)
    bench.unknown = {CAUSE.key}
    assert (await bench.sees())[0].state == "open"
    bench.unknown = set()
    assert (await bench.sees())[0].state == "resolved"


async def test_what_others_have_raised_is_not_ours_to_resolve(bench: Bench) -> None:
    await bench.store.open(replace(CAUSE, kind="too_hot"), reopen_ms=0)
    assert (await bench.sees())[0].state == "open"


async def test_what_comes_back_soon_is_the_same_alert_and_not_told_anew(bench: Bench) -> None:
    (first,) = await bench.sees(CAUSE)
    await bench.sees()
    (again,) = await bench.sees(CAUSE)
    assert (again.id, again.state, again.count, again.resolved_at_ms) == (first.id, "open", 6, None)
    await bench.sees()
    new, old = await bench.sees(CAUSE, after_ms=REOPEN_MS)
    assert (old.state, new.state, new.count) == ("resolved", "open", 3)
    assert bench.told == [first, new]


async def test_what_somebody_has_resolved_stays_so_until_it_was_away(bench: Bench) -> None:
    (first,) = await bench.sees(CAUSE)
    await bench.store.resolve(ALL, first.id, by="cli")
    assert (await bench.sees(CAUSE))[0].state == "resolved"
    await bench.sees(after_ms=REOPEN_MS)
    assert (await bench.sees(CAUSE))[0].state == "open"


async def test_a_restart_tells_nothing_twice(bench: Bench) -> None:
    (first,) = await bench.sees(CAUSE)
    await bench.store.acknowledge(ALL, first.id, by="token:alice")
    bench.engine = bench.new_engine()
    bench.unknown = {CAUSE.key}
    assert [one.state for one in await bench.sees()] == ["acknowledged"]
    (again,) = await bench.sees(CAUSE)
    assert (again.id, again.state, again.acknowledged_by) == (first.id, "acknowledged", "token:alice")
    assert bench.told == [first]


async def test_who_could_not_hear_is_told_again(bench: Bench) -> None:
    bench.deaf = True
    await bench.sees(CAUSE)
    assert bench.told == []
    bench.deaf = False
    await bench.sees(CAUSE)
    await bench.sees(CAUSE)
    assert len(bench.told) == 1


async def test_p3_who_can_take_nothing_more_keeps_no_other_from_hearing(bench: Bench) -> None:
    bench.full = CAUSE.organization_id
    other = replace(CAUSE, organization_id="other")
    await bench.sees(CAUSE, other)
    assert [alert.organization_id for alert in bench.told] == ["other"]
    bench.full = ""
    await bench.sees(CAUSE, other)
    assert [alert.organization_id for alert in bench.told] == ["other", CAUSE.organization_id]


async def test_who_could_not_hear_is_told_after_a_restart_too(bench: Bench) -> None:
    bench.deaf = True
    await bench.sees(CAUSE)
    bench.engine, bench.deaf = bench.new_engine(), False
    await bench.sees(CAUSE)
    bench.engine = bench.new_engine()
    await bench.sees(CAUSE)
    assert len(bench.told) == 1


async def test_what_is_over_before_anybody_could_hear_of_it_is_not_told(bench: Bench) -> None:
    bench.deaf = True
    await bench.sees(CAUSE)
    bench.deaf = False
    await bench.sees()
    assert bench.told == []


async def test_causes_of_others_are_apart(bench: Bench) -> None:
    found = await bench.sees(CAUSE, replace(CAUSE, organization_id="other"), replace(CAUSE, organization_id=None))
    assert len(found) == 3
    for scope, seen in [
        (Scope("acme"), {"acme"}),
        (Scope("acme", with_site=True), {"acme", None}),
        (Scope("nobody"), set()),
        (Scope(None), set()),
    ]:
        assert {one.organization_id for one in await bench.store.page(scope, limit=9)} == seen
    others = next(one for one in found if one.organization_id == "other")
    for ask in (bench.store.acknowledge, bench.store.resolve):
        with pytest.raises(NotFound):
            await ask(Scope("acme"), others.id, by="cli")


async def test_few_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ALERTS_AT_MOST", 5)
    await bench.sees(CAUSE)
    for number in range(10):
        await bench.sees(CAUSE, replace(CAUSE, subject=f"cloud-{number}"))
    found = await bench.sees(CAUSE)
    assert len(found) == 5
    assert CAUSE.key in {one.key for one in found}  # what is not resolved stays before what is
    bench.clock.advance(91 * 86_400_000)
    newest = await bench.sees(CAUSE, replace(CAUSE, subject="new"))
    assert {one.subject for one in newest} == {"cloud", "new"}
