"""Report on change: nothing new costs nothing, and no change is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.changes import Changes
from cloud_sync.contract import IntegrationConfig, Ok, Rejected
from gateway.model.reading import NewReading, StoredReading, TimeSource
from gateway.storage.log import Log
from tests.cloud_sync.samples import NOW_MS, stored
from tests.cloud_sync.site import DOWN, Scripted, deliver_all, open_site, running, until

REPORT = {"on_change": True, "dead_band": {"ld2410.distance_cm": 10}, "heartbeat_s": 300}


def at(row: int, monotonic_s: float = 0, boot: int = 1, device: str = "a", **sensors: Any) -> StoredReading:
    reading = stored(row, {"sensors": sensors})
    reading.device_id, reading.gateway_boot, reading.monotonic_ms = device, boot, round(monotonic_s * 1000)
    return reading


def distances(*values: float) -> list[StoredReading]:
    return [at(row, ld2410={"presence": True, "distance_cm": value}) for row, value in enumerate(values, 1)]


def rows(readings: list[StoredReading]) -> list[int]:
    return [reading.row for reading in readings]


def new_changes() -> Changes:
    return Changes({"ld2410.distance_cm": 10}, 300_000)


def test_small_steps_add_up() -> None:
    assert rows(new_changes().choose(distances(100, 110, 90, 111, 101, 100))) == [1, 4, 6]


@pytest.mark.parametrize(
    ("then", "is_news"),
    [
        ({"presence": True, "distance_cm": 105}, False),
        ({"presence": True, "distance_cm": 95.5}, False),
        ({"presence": False, "distance_cm": 100}, True),
        ({"presence": True, "distance_cm": 100, "moving": True}, True),
        ({"presence": True}, True),
        ({"presence": True, "distance_cm": None}, True),
        ({"presence": True, "distance_cm": False}, True),
    ],
)
def test_what_counts_as_a_change(then: dict[str, Any], is_news: bool) -> None:
    first = at(1, ld2410={"presence": True, "distance_cm": 100})
    assert rows(new_changes().choose([first, at(2, ld2410=then)])) == ([1, 2] if is_news else [1])


def test_another_device_sensor_or_start_of_the_gateway_is_news() -> None:
    pir = {"motion_detected": True}
    readings = [
        at(1, pir=pir),
        at(2, pir=pir, device="b"),
        at(3, pir=pir, mq134={"gas_concentration": 1}),
        at(4, pir=pir),
        at(5, pir=pir, boot=2),
        at(6, pir=pir, boot=2),
    ]
    assert rows(new_changes().choose(readings)) == [1, 2, 3, 5]


def test_the_heartbeat_counts_from_what_was_sent_last() -> None:
    seconds = (0, 299, 301, 500, 600, 602)
    readings = [at(row, second, pir={"motion_detected": True}) for row, second in enumerate(seconds, 1)]
    assert rows(new_changes().choose(readings)) == [1, 3, 6]


def test_only_what_was_acknowledged_is_known() -> None:
    changes = new_changes()
    assert rows(changes.choose(distances(100, 100))) == [1]
    assert rows(changes.choose(distances(100, 100))) == [1]
    changes.sent(distances(100))
    assert rows(changes.choose(distances(100, 100))) == []
    changes.forget()
    assert rows(changes.choose(distances(100))) == [1]


def test_what_cannot_be_compared_goes_out() -> None:
    broken = at(1)
    broken.body, broken.defect = {}, "damaged"
    assert rows(new_changes().choose([broken, at(2), at(3, strange=7), at(4, strange=7)])) == [1, 2, 3]


@given(values=st.lists(st.integers(0, 40), max_size=30), cuts=st.sets(st.integers(0, 30)))
def test_the_destination_is_never_further_off_than_the_dead_band(values: list[int], cuts: set[int]) -> None:
    """However the readings are cut into batches."""
    readings, changes = distances(*values), new_changes()
    known, start = None, 0
    chosen: list[int] = []
    for end in [*sorted(cut for cut in cuts if cut < len(values)), len(values)]:
        batch = changes.choose(readings[start:end])
        changes.sent(batch)
        chosen += rows(batch)
        start = end
    for reading in readings:
        value = reading.body["sensors"]["ld2410"]["distance_cm"]
        if reading.row in chosen:
            known = value
        assert known is not None
        assert abs(value - known) <= 10
    assert chosen == rows(new_changes().choose(readings))


async def store(log: Log, *distances_cm: int) -> None:
    stream = log.stream("default", "a", "boot-1")
    payloads = [json.dumps({"sensors": {"ld2410": {"distance_cm": one}}}).encode() for one in distances_cm]
    await log.append([NewReading(stream, None, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, one) for one in payloads])


async def test_only_news_goes_out_and_the_rest_is_passed(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, 100, 105, 120, 115, 100)
        destination = Scripted(report=REPORT)
        forwarder = await deliver_all(site, destination)
        assert destination.accepted == [1, 3, 5]
        assert (await forwarder.status()).undelivered == 0


async def test_p2_a_batch_is_the_same_after_a_restart_and_no_change_is_lost(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, 100)
        before = Scripted(Ok(), *[DOWN] * 1_000_000, report=REPORT)
        async with running(site.forwarder(before)) as forwarder:
            await until(lambda: forwarder._live.position == 1)
            await store(site.log, 105, 120, 121, 140)
            await until(lambda: len(before.sent) > 1)
        assert before.sent[1][1] == b"3,5"
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, 141, 140)
        after = Scripted(report=REPORT)
        await deliver_all(site, after)
    assert (after.sent[0][0].id, after.sent[0][1]) == (before.sent[1][0].id, b"3,5")
    assert after.accepted == [3, 5, 6]  # 6: of another start of the gateway


async def test_p4_what_was_left_out_for_a_reading_that_is_refused_goes_out_after_all(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, 100, 100, 100)
        destination = Scripted(Rejected("no"), report=REPORT)
        await deliver_all(site, destination)
        assert [letter.reading.row for letter in await site.log.dead_letters.letters()] == [1]
    assert destination.accepted == [2]


def test_its_settings_are_checked() -> None:
    base = {"type": "x", "name": "x"}
    assert not IntegrationConfig.model_validate(base).report.on_change
    assert IntegrationConfig.model_validate(base | {"report": {"heartbeat_s": 60}}).report.on_change
    for wrong in ({"dead_band": {"distance": 1}}, {"dead_band": {"a.b": -1}}, {"heartbeat_s": 0}, {"on_chance": True}):
        with pytest.raises(ValueError, match="report"):
            IntegrationConfig.model_validate(base | {"report": wrong})


def events(*names: str) -> Changes:
    return Changes({"ld2410.distance_cm": 10}, events=frozenset(names))


def test_an_event_is_a_change_of_a_field_that_is_named() -> None:
    chosen = events("ld2410.presence", "mq134.state").choose(
        [
            at(1, ld2410={"presence": True, "distance_cm": 100}),
            at(2, ld2410={"presence": True, "distance_cm": 500, "moving": True}),
            at(3, 86_400, ld2410={"presence": True, "distance_cm": 100}, pir={"motion_detected": True}),
            at(4, boot=2, ld2410={"presence": True}),
            at(5, ld2410={"presence": False}),
            at(6, mq134={"state": "ok", "gas_concentration": 1}),
            at(7, mq134={"state": "ok", "gas_concentration": 9}),
            at(8, mq134={"state": "saturated"}),
            at(9, pir={"motion_detected": True}),
        ]
    )
    assert rows(chosen) == [1, 5, 6, 8]


def test_events_keep_their_dead_band_and_have_a_heartbeat_only_if_asked() -> None:
    near = events("ld2410.distance_cm")
    assert rows(near.choose(distances(100, 110, 111))) == [1, 3]
    beating = Changes({}, 300_000, frozenset({"ld2410.presence"}))
    same = [
        at(1, ld2410={"presence": True}),
        at(2, 299, ld2410={"presence": True}),
        at(3, 300, ld2410={"presence": True}),
    ]
    assert rows(beating.choose(same)) == [1, 3]


def test_a_reading_that_cannot_be_read_is_left_to_nobody() -> None:
    unreadable = at(1)
    unreadable.defect = "its bytes have changed"
    assert rows(events("pir.motion_detected").choose([unreadable, at(2, radar={"state": "ok"})])) == [1]


async def test_a_destination_gets_events_only(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, 100, 105, 120, 121)
        destination = Scripted(events=["ld2410.distance_cm"], report=REPORT)
        await deliver_all(site, destination)
        assert destination.accepted == [1, 3]
        other = Scripted(name="other", events=["ld2410.presence"])
        forwarder = await deliver_all(site, other)
        assert other.accepted == []
        assert (await forwarder.status()).undelivered == 0


def test_events_are_named_by_sensor_and_field() -> None:
    with pytest.raises(ValueError, match="events"):
        IntegrationConfig.model_validate({"type": "x", "name": "x", "events": ["presence"]})
