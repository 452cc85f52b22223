"""What a gateway finds out about boards: from real publishes and logins over its own ports."""

from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from gateway.cli.gateway_link import connect
from gateway.clock import ManualClock
from gateway.model.reading import StoredReading, TimeSource, rfc3339
from gateway.operations.troubles import Troubles, board_clock, list_troubles
from gateway.operations.vitals import gateway_trace, gateway_vitals, try_broker
from tests.site import Site, reading, running_site

TOPIC = "devices/kitchen/telemetry"
HOUR_MS = 3_600_000


async def publish(site: Site, *payloads: bytes, topic: str = TOPIC) -> None:
    who = site.kitchen
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=who.username, password=who.password) as client:
        for payload in payloads:
            await client.publish(topic, payload, qos=1)


async def asked(site: Site) -> Troubles:
    return await site.command(list_troubles)


async def test_when_a_device_was_heard_and_how_often_it_sends(site: Site) -> None:
    began = site.clock.now
    for seq in range(4):
        await publish(site, reading(boot_id="b", seq=seq))
        site.clock.advance(10_000)
    site.clock.advance(HOUR_MS)
    (kitchen,) = (await asked(site)).devices
    assert (kitchen.last_heard_ms, kitchen.usual_gap_ms) == (began + 30_000, 10_000)
    assert kitchen.last_login_ms == began + 30_000


async def test_a_device_that_was_never_heard_has_no_time(site: Site) -> None:
    (kitchen,) = (await asked(site)).devices
    assert (kitchen.last_heard_ms, kitchen.usual_gap_ms, kitchen.last_login_ms) == (None, None, None)


async def test_it_is_known_after_a_restart_and_without_a_gateway(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        await publish(site, reading(boot_id="b", seq=1), reading(boot_id="b", seq=2))
        at, settings = site.clock.now, site.settings
    async with connect(settings) as link:
        (kitchen,) = (await link.call(list_troubles)).devices
    assert kitchen.last_heard_ms == at


async def test_quarantine_is_counted_by_kind(site: Site) -> None:
    await publish(site, b"{", b"[", reading("other"))
    kinds = {kind.code: kind for kind in (await asked(site)).quarantine}
    assert sum(kind.count for kind in kinds.values()) == 3
    assert kinds["foreign_device"].count == 1
    assert kinds["foreign_device"].device_id == "kitchen"


@pytest.mark.parametrize(
    ("timestamp", "clock"),
    [
        (None, "none"),
        (12, "unset"),
        ("2000-01-01T00:00:09Z", "unset"),
        (HOUR_MS, "ahead"),
        (0, "right"),
        (-1_000, "right"),
    ],
)
async def test_the_clock_of_a_board_is_judged_by_what_it_claims(site: Site, timestamp: Any, clock: str) -> None:
    claimed = {} if timestamp is None else {"timestamp": timestamp}
    if clock in {"ahead", "right"}:
        claimed = {"timestamp": rfc3339(site.clock.now + timestamp)}
    await publish(site, reading(boot_id="b", seq=1, **claimed))
    (kitchen,) = (await asked(site)).devices
    assert kitchen.clock == clock
    assert kitchen.clock_off_ms == (HOUR_MS if clock == "ahead" else 0)


def told(*lags_ms: int) -> list[StoredReading]:
    """Readings, the newest first, that claim to be so old."""
    now = ManualClock().now
    return [
        StoredReading(row, "default", "k", None, None, 0, TimeSource.DEVICE, now, {"timestamp": now - lag})
        for row, lag in enumerate(lags_ms)
    ]


def test_a_clock_that_is_behind_is_told_from_a_board_that_catches_up() -> None:
    assert board_clock(told(HOUR_MS, HOUR_MS + 500, HOUR_MS), 300_000) == ("behind", -HOUR_MS)
    assert board_clock(told(HOUR_MS, HOUR_MS + 90_000, HOUR_MS + 180_000), 300_000) == ("right", 0)
    assert board_clock(told(0, HOUR_MS, HOUR_MS), 300_000) == ("right", 0)
    assert board_clock(told(HOUR_MS), 300_000) == ("right", 0)
    assert board_clock([], 300_000) == ("right", 0)


async def test_logins_and_their_failures_are_counted_for_a_while(site: Site) -> None:
    for _ in range(3):
        await publish(site)
    for username in (site.kitchen.username, "nobody"):
        with pytest.raises(aiomqtt.MqttCodeError):
            async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=username, password="wrong"):
                pass
    vitals = await site.command(gateway_vitals)
    (kitchen,) = vitals.logins
    assert (kitchen.username, kitchen.logins, kitchen.refused) == (site.kitchen.username, 3, 1)
    assert [(one.address, one.failures) for one in vitals.failing_addresses] == [("127.0.0.1", 2)]
    site.clock.advance(HOUR_MS)
    later = await site.command(gateway_vitals)
    assert (later.logins, later.failing_addresses) == ([], [])


async def test_the_vitals_are_those_of_the_process(site: Site) -> None:
    site.clock.now += 55_000  # set by hand: the monotonic clock goes on
    vitals = await site.command(gateway_vitals)
    assert vitals.clock_moved_ms == 55_000
    assert 10 < vitals.open_files < vitals.open_files_at_most
    assert vitals.memory_bytes > 10_000_000
    assert "sensor_data_ingested_total" in vitals.metrics


async def test_a_trace_says_where_tasks_and_threads_are(site: Site) -> None:
    trace = await site.command(gateway_trace)
    assert any(task.startswith("broker at ") for task in trace.tasks)
    assert any("log-writer" in thread and "commit_thread.py" in thread for thread in trace.threads)


async def test_the_broker_is_tried_and_nothing_of_that_stays(site: Site) -> None:
    found = await site.command(try_broker)
    assert [finding.level for finding in found] == ["ok", "ok"]
    assert found[1].words == "What nobody has a right to was refused."
    assert {login.username for login in (await site.command(gateway_vitals)).logins} == set()
    assert site.log.stored == 0


async def test_a_broker_that_grants_too_much_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.gateway._running.door.delivery.subscriptions, "_may_subscribe", lambda *_: True)
    found = await site.command(try_broker)
    assert [finding.level for finding in found] == ["ok", "broken", "broken", "broken"]
    assert "An organisation may subscribe to #." in str(found)


async def test_a_broker_that_lets_anybody_in_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    door = site.gateway._running.door
    real = door.authenticate
    kitchen = door._access.authenticate(site.kitchen.username, site.kitchen.password)
    monkeypatch.setattr(door, "authenticate", lambda name, password: kitchen if name is None else real(name, password))
    found = await site.command(try_broker)
    assert "lets clients in without a password" in str(found)
