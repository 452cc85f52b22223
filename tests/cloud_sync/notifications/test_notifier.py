"""The engine behind notifications: what is sent, how often, in which order, and what is known of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync import courier
from cloud_sync.contract import (
    AuthFailed,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    PartlyDelivered,
    Rejected,
    RetryAfter,
    TooLarge,
)
from gateway.model.errors import BadInput, Conflict, NotFound
from tests.cloud_sync.notifications.desk import Channel, Desk, open_desk, until

AWAY = NotConnected("no answer")
UNREACHED = NotConnected("no network", sent=False)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path, Channel()) as desk:
        yield desk


def chat(desk: Desk) -> Channel:
    return desk.channels.all[0]


async def test_a_notification_goes_out_once_and_the_log_says_so(desk: Desk) -> None:
    name = await desk.send("The pump is off.", subject="Pump", priority="high", data={"pump": 3}, by="token:anna")
    (row,) = await desk.settled()
    (sent,) = chat(desk).sent
    assert (sent.id, sent.subject, sent.message, sent.priority) == (name, "Pump", "The pump is off.", "high")
    assert (sent.data, sent.gateway_id, sent.organization_id) == ({"pump": 3}, "site-1", "default")
    assert (row.id, row.status, row.message_id, row.retry_count) == (name, "sent", name, 0)
    assert (row.integration_type, row.metadata, row.sent_at_ms) == ("scripted", {"by": "token:anna"}, desk.clock.now)
    labels = {"integration": "chat", "outcome": "ok"}
    assert desk.metrics.registry.get_sample_value("neurogate_notification_attempts_total", labels) == 1


async def test_a_failure_is_tried_again_under_the_same_id_and_has_failed_after_three_attempts(desk: Desk) -> None:
    chat(desk).answers = [AWAY, AWAY, AWAY]
    name = await desk.send()
    (row,) = await desk.settled()
    assert [one.id for one in chat(desk).sent] == [name] * 3
    assert (row.status, row.retry_count, row.attempts, row.error_message) == ("failed", 2, 3, "no answer")
    assert row.failed_at_ms is not None
    assert [one for one in desk.slept if one >= 30][:2] == [30.0, 60.0]


async def test_how_an_integration_does_is_heard(desk: Desk) -> None:
    class Heard:
        def __init__(self) -> None:
            self.all: list[object] = []

        def succeeded(self, _seconds: float, items: int = 1) -> None:
            self.all.append(items)

        def failed(self, outcome: Outcome) -> None:
            self.all.append(outcome)

    heard = chat(desk).health = Heard()
    chat(desk).answers = [AWAY, PartlyDelivered("partly", (), {"a@x.org": "550"})]
    await desk.send()
    await desk.settled()
    assert heard.all == [AWAY, 1]


async def test_a_retry_that_succeeds_is_sent_and_leaves_no_error(desk: Desk) -> None:
    chat(desk).answers = [AWAY]
    await desk.send()
    (row,) = await desk.settled()
    assert (row.status, row.retry_count, row.error_message, row.next_attempt_at_ms) == ("sent", 1, "", None)


async def test_that_nobody_can_be_reached_costs_no_attempt(desk: Desk) -> None:
    chat(desk).answers = [UNREACHED] * 20
    await desk.send()
    (row,) = await desk.settled()
    assert (row.status, row.retry_count, row.attempts) == ("sent", 20, 0)


async def test_but_not_for_ever(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(*[UNREACHED] * 20), keep_trying_s=100) as desk:
        await desk.send()
        (row,) = await desk.settled()
        assert (row.status, row.retry_count) == ("failed", 5)  # after 0, 30, 90, 210, 450, 750 s: three beyond 100 s


async def test_asked_for_patience_it_waits_as_long_and_costs_no_attempt(desk: Desk) -> None:
    chat(desk).answers = [RetryAfter(700.0, "busy")] * 4
    await desk.send()
    (row,) = await desk.settled()
    assert (row.status, row.attempts) == ("sent", 0)
    assert len([one for one in desk.slept if one >= 700]) == 4


async def test_a_wrong_credential_waits_longest(desk: Desk) -> None:
    chat(desk).answers = [AuthFailed("who?")]
    await desk.send()
    await desk.settled()
    assert 300.0 in desk.slept


@pytest.mark.parametrize("outcome", [Rejected("no"), TooLarge("no"), Gone("no")])
async def test_p4_what_is_refused_has_failed_at_once_and_holds_up_nothing(desk: Desk, outcome: Outcome) -> None:
    chat(desk).answers = [outcome]
    first = await desk.send("bad")
    await desk.send("good")
    await desk.settled()
    assert (await desk.row(first)).status == "failed"
    assert chat(desk).told == ["bad", "good"]
    assert not [one for one in desk.slept if one >= 30]


async def test_p4_a_fault_in_an_integration_holds_up_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    chat(desk).breaks = True
    first = await desk.send("bad")
    await until(lambda: len(chat(desk).sent) == 1)
    chat(desk).breaks = False
    await desk.send("good")
    await desk.settled()
    assert "by a fault of the gateway" in (await desk.row(first)).error_message
    assert chat(desk).told == ["bad", "good"]
    assert "RuntimeError" in caplog.text


async def test_p3_an_integration_that_hangs_delays_no_other(tmp_path: Path) -> None:
    stuck, well = Channel(name="stuck"), Channel(name="well")
    stuck.hangs = True
    async with open_desk(tmp_path, stuck, well) as desk:
        await desk.send(integration_id="stuck")
        await until(lambda: len(stuck.sent) == 1)
        for _ in range(3):
            await desk.send(integration_id="well")
        await until(lambda: len(well.sent) == 3)


async def test_an_integration_that_never_ends_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "_GRACE_S", 0.0)
    channel = desk.channels.all[0] = Channel(timeout_s=0.01)
    channel.hangs = True
    name = await desk.send()
    await until(lambda: len(channel.sent) == 1)
    channel.hangs = False
    await desk.settled()
    assert (await desk.row(name)).retry_count == 1


async def test_what_has_failed_can_be_sent_again_and_nothing_else(desk: Desk) -> None:
    chat(desk).answers = [Rejected("no")]
    name = await desk.send()
    await desk.settled()
    row = await desk.notifier.resend("default", name, by="token:anna")
    assert (row.status, row.attempts) == ("retrying", 0)
    (row,) = await desk.settled()
    assert (row.status, [one.id for one in chat(desk).sent]) == ("sent", [name, name])
    with pytest.raises(Conflict):
        await desk.notifier.resend("default", name, by="token:anna")
    for organization_id, unknown in (("default", "nothing"), ("other", name)):
        with pytest.raises(NotFound):
            await desk.notifier.resend(organization_id, unknown, by="token:anna")


async def test_a_resend_goes_out_at_once_however_long_the_channel_was_to_wait(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(AuthFailed("who?")), attempts=1) as desk:
        desk.moves.clear()
        name = await desk.send()
        assert (await desk.settled())[0].status == "failed"
        await until(lambda: 300.0 in desk.slept)
        await desk.notifier.resend("default", name, by="cli")
        assert (await desk.settled())[0].status == "sent"


async def test_new_settings_are_tried_at_once(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(AuthFailed("who?"))) as desk:
        desk.moves.clear()
        await desk.send()
        await until(lambda: 300.0 in desk.slept)
        await desk.notifier.renew("chat")
        assert (await desk.settled())[0].status == "sent"


async def test_recipients_who_have_it_get_it_once_and_those_who_were_refused_are_named(desk: Desk) -> None:
    chat(desk).answers = [
        PartlyDelivered("partly", again=("later@x.org",), refused={"never@x.org": "550 no such user"}),
        Ok(),
    ]
    await desk.send(recipients=("now@x.org", "later@x.org", "never@x.org"))
    (row,) = await desk.settled()
    assert [one.recipients for one in chat(desk).sent] == [
        ("now@x.org", "later@x.org", "never@x.org"),
        ("later@x.org",),
    ]
    assert len({one.id for one in chat(desk).sent}) == 1
    assert (row.status, row.error_message) == ("failed", "never@x.org: 550 no such user")
    assert row.metadata["refused"] == {"never@x.org": "550 no such user"}

    await desk.notifier.resend("default", row.id, by="cli")
    (row,) = await desk.settled()
    assert chat(desk).sent[-1].recipients == ("never@x.org",)
    assert (row.status, row.metadata) == ("sent", {"by": ""})


async def test_recipients_who_are_put_off_are_given_up_after_three_attempts(desk: Desk) -> None:
    chat(desk).answers = [PartlyDelivered("later: 451", again=("later@x.org",), refused={})] * 3
    await desk.send(recipients=("now@x.org", "later@x.org"))
    (row,) = await desk.settled()
    assert (len(chat(desk).sent), row.status, row.recipients_left) == (3, "failed", ["later@x.org"])


async def test_a_dead_channel_that_was_partly_told_still_tells_the_rest_only(desk: Desk) -> None:
    chat(desk).answers = [PartlyDelivered("later", again=("b@x.org",), refused={}), AWAY]
    await desk.send(recipients=("a@x.org", "b@x.org"))
    await desk.settled()
    assert [one.recipients for one in chat(desk).sent][1:] == [("b@x.org",)] * 2


async def test_the_most_urgent_goes_first_and_equal_ones_as_they_came(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(AWAY), alone=100) as desk:
        await desk.send("under way", priority="critical")
        await until(lambda: len(chat(desk).sent) == 1)
        await asyncio.gather(
            *(
                desk.send(f"{priority} {n}", priority=priority)
                for n in (1, 2)
                for priority in ("low", "critical", "high")
            )
        )
        await desk.settled()
        assert chat(desk).told[2:] == ["critical 1", "critical 2", "high 1", "high 2", "low 1", "low 2"]


async def test_the_rate_limit_is_the_integrations_own(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(rate_limit_per_minute=60), alone=1_000) as desk:
        for _ in range(50):
            await desk.send()
        await desk.settled()
        # 20 at once, then one a second
        assert sum(one for one in desk.slept if one <= 1.0) == pytest.approx(30, abs=1.5)


async def test_what_has_the_same_key_is_told_once_within_the_window(desk: Desk) -> None:
    first = await desk.send(dedupe_key="pump")
    assert await desk.send(dedupe_key="pump") == first
    other = await desk.send(dedupe_key="fan")
    await desk.settled()
    assert await desk.send(dedupe_key="pump") == first  # also after it was sent
    desk.clock.advance(301_000)
    later = await desk.send(dedupe_key="pump")
    await desk.settled()
    assert [one.id for one in chat(desk).sent] == [first, other, later]
    assert (await desk.row(first)).repeats == 2


async def test_one_that_has_failed_does_not_silence_the_next(desk: Desk) -> None:
    chat(desk).answers = [Rejected("no")]
    first = await desk.send(dedupe_key="pump")
    await desk.settled()
    assert await desk.send(dedupe_key="pump") != first


async def test_what_happens_is_told_to_those_who_want_it(tmp_path: Path) -> None:
    all_of_it, alarms, foreign = Channel(name="all"), Channel(name="alarms"), Channel(name="foreign")
    alarms.wanted = lambda kind, priority: kind.startswith("alert.") and priority == "critical"
    foreign.organization_id = "other"
    others = Channel(name="others", organizations=["other"])
    async with open_desk(tmp_path, all_of_it, alarms, foreign, others) as desk:
        announce = desk.notifier.announce
        assert await announce("default", "alert.raised", "Fire.", priority="critical", dedupe_key="fire") == 2
        assert await announce("default", "alert.raised", "Smoke.") == 1
        await desk.settled()
    assert all_of_it.told == ["Fire.", "Smoke."]
    assert alarms.told == ["Fire."]
    assert foreign.told == others.told == []


async def test_who_is_meant(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(name="one"), Channel(name="two"), Channel(name="b", type="other")) as desk:
        assert (await desk.row(await desk.send(integration_id="", integration_type="scripted"))).integration_id == "one"
        assert (await desk.row(await desk.send(integration_id="two"))).integration_id == "two"
        for wrong in ({"integration_id": "three"}, {"integration_id": "b", "integration_type": "scripted"}):
            with pytest.raises(NotFound):
                await desk.send(**wrong)
        with pytest.raises(NotFound, match="has no active integration of the type scripted with the id b\\."):
            await desk.send(integration_id="b", integration_type="scripted")
        desk.channels.all[0].integration = object()
        with pytest.raises(BadInput, match="sends no notifications"):
            await desk.send(integration_id="one")


async def test_it_waits_for_an_integration_that_does_not_run_just_now(desk: Desk) -> None:
    (channel,) = desk.channels.all
    name = await desk.send()
    desk.channels.all = []
    await desk.settled() if channel.sent else await until(lambda: bool(desk.slept))
    desk.channels.all = [channel]
    await desk.notifier.renew("chat")
    await desk.settled()
    assert (await desk.row(name)).status == "sent"


@pytest.mark.parametrize(
    "wrong",
    [
        {"message": " "},
        {"message": "x" * 8_001},
        {"message": "a\0b"},
        {"subject": "two\nlines"},
        {"kind": "Two Words"},
        {"dedupe_key": ""},
        {"recipients": ["a@x.org"] * 51},
        {"recipients": ["a@x.org\r\nBcc: b@x.org"]},
        {"data": {"a": "x" * 16_000}},
    ],
)
async def test_what_cannot_be_told_is_refused_and_nothing_is_kept(desk: Desk, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        await desk.send(**{"message": "hello"} | wrong)
    assert await desk.rows() == []


async def test_what_was_under_way_goes_out_under_its_id_after_a_restart(tmp_path: Path) -> None:
    first = Channel()
    first.hangs = True
    async with open_desk(tmp_path, first) as desk:
        names = [await desk.send(f"number {n}") for n in range(3)]
        await until(lambda: len(first.sent) == 1)
    second = Channel()
    async with open_desk(tmp_path, second) as desk:
        await desk.settled()
        assert [one.id for one in second.sent] == names
        assert second.sent[0] == first.sent[0]


async def test_a_retry_waits_its_time_also_after_a_restart(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Channel(RetryAfter(5_000.0, "busy"))) as desk:
        channel = chat(desk)
        name = await desk.send()
        await until(lambda: len(channel.sent) == 1)
        await until(lambda: any(one >= 5_000 for one in desk.slept))
    async with open_desk(tmp_path, Channel()) as desk:  # its clock begins anew
        started = desk.clock.now
        await desk.settled()
        assert desk.clock.now - started >= 5_000_000
        assert (await desk.row(name)).status == "sent"
