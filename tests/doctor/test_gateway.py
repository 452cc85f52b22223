"""Checks of what a gateway says: each thing that can be wrong is, and says what to do next."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.doctor.checks.board_clocks import board_clocks
from gateway.doctor.checks.configuration import configuration
from gateway.doctor.checks.dead_letters import dead_letters
from gateway.doctor.checks.delivery import delivery
from gateway.doctor.checks.destinations import destinations
from gateway.doctor.checks.devices import devices
from gateway.doctor.checks.gateway import gateway
from gateway.doctor.checks.latency import latency
from gateway.doctor.checks.logins import logins
from gateway.doctor.checks.permissions import permissions
from gateway.doctor.checks.quarantine import quarantine
from gateway.model.errors import NotFound, StoreFailed
from gateway.model.finding import Finding, fine
from gateway.operations.integrations import IntegrationView
from gateway.storage.troubles import QuarantineKind, RefusedKind
from tests.doctor.scene import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    destination,
    device,
    evidence,
    failing,
    levels,
    login,
    of_file,
    only,
    status,
    troubles,
    vitals,
)

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


# The gateway itself


async def test_a_gateway_that_does_not_run_is_warned_of_and_one_that_fails_is_broken(tmp_path: Path) -> None:
    assert only(await gateway(evidence(tmp_path))).level == "warning"
    complaint = StoreFailed("It is damaged.", hint="Restore it.")
    assert only(await gateway(evidence(tmp_path, complaints=(complaint,)))) == Finding(
        "broken", "It is damaged.", "Restore it."
    )


async def test_what_the_gateway_says_of_itself_is_told(tmp_path: Path) -> None:
    ill = status(version="0.0.9", problems=["The part x has crashed."], notices=["It was repaired."])
    crashed = vitals(metrics='# TYPE neurogate_part_restarts counter\nneurogate_part_restarts_total{part="x"} 3.0\n')
    found = await gateway(evidence(tmp_path, status=ill, vitals=crashed, is_running=True))
    assert levels(found) == ["warning", "broken", "warning", "warning"]
    assert "x (3 times)" in found[3].words


# Devices


async def seen(
    check: Callable[..., Awaitable[list[Finding]]], tmp_path: Path, *some: Any, **more: Any
) -> list[Finding]:
    return await check(evidence(tmp_path, troubles=troubles(*some, **more)))


async def test_a_device_that_has_fallen_silent_is_named_and_one_that_seldom_sends_is_not(tmp_path: Path) -> None:
    quiet = device("kitchen", last_heard_ms=NOW_MS - HOUR_MS, usual_gap_ms=10_000)
    seldom = device("door", last_heard_ms=NOW_MS - HOUR_MS, usual_gap_ms=20 * MINUTE_MS)
    found = only(await seen(devices, tmp_path, quiet, seldom))
    assert "kitchen" in found.words
    assert "door" not in found.words
    assert only(await seen(devices, tmp_path, seldom)).level == "ok"


async def test_a_device_that_was_never_heard_is_told_from_one_that_only_logs_in(tmp_path: Path) -> None:
    never = device("attic", last_heard_ms=None, usual_gap_ms=None, last_login_ms=None)
    mute = device("cellar", last_heard_ms=None, usual_gap_ms=None)
    found = await seen(devices, tmp_path, never, mute, device())
    assert levels(found) == ["warning", "warning"]
    assert "log in, but no reading came: cellar" in found[0].words
    assert "never heard: attic" in found[1].words


async def test_a_wrong_clock_of_a_board_is_named_with_its_likely_cause(tmp_path: Path) -> None:
    unset = device("a", clock="unset")
    zone = device("b", clock="ahead", clock_off_ms=HOUR_MS + 3_000)
    drifts = device("c", clock="behind", clock_off_ms=-1_234_000)
    found = await seen(board_clocks, tmp_path, unset, zone, drifts)
    assert levels(found) == ["warning"] * 3
    assert "before 2020: a" in found[0].words
    assert "local time" in found[1].hint
    assert "c is behind by 1,234 s" in found[2].words
    assert "NTP" in found[2].hint


async def test_a_gateway_with_a_wrong_clock_judges_no_board(tmp_path: Path) -> None:
    scene = evidence(tmp_path, clock=ManualClock(0, synced=False), troubles=troubles(device("a", clock="unset")))
    assert await board_clocks(scene) == []


# Logins


async def test_who_reconnects_all_the_time_and_whose_password_is_wrong_is_named(tmp_path: Path) -> None:
    lately = [login("default/a", 40), login("default/b", 1, refused=3), login("default/c", 2)]
    found = await logins(evidence(tmp_path, vitals=vitals(logins=lately)))
    assert levels(found) == ["warning", "warning"]
    assert "default/a (40 times)" in found[0].words
    assert "default/b (3 times)" in found[1].words
    assert "default/c" not in found[0].words + found[1].words


async def test_failures_with_unknown_names_are_told_by_address(tmp_path: Path) -> None:
    found = await logins(evidence(tmp_path, vitals=vitals(failing_addresses=[failing("192.0.2.7", 99)])))
    assert "192.0.2.7 (99 times)" in only(found).words


async def test_connections_refused_for_want_of_room_are_told(tmp_path: Path) -> None:
    name = "neurogate_front_door_refused"
    full = vitals(metrics=f'# TYPE {name} counter\n{name}_total{{reason="too_many_connections"}} 7.0\n')
    assert "7 connections" in only(await logins(evidence(tmp_path, vitals=full))).words


# Latency


def metrics(quick: int, stored: int, waiting: int = 0) -> str:
    name = "sensor_data_processing_latency_seconds"
    return (
        f'# TYPE {name} histogram\n{name}_bucket{{le="1.0"}} {quick}\n{name}_bucket{{le="+Inf"}} {stored}\n'
        f"{name}_count {stored}\n{name}_sum 1\n"
        f'# TYPE queue_size gauge\nqueue_size{{queue_name="sensor-data"}} {waiting}\n'
    )


@pytest.mark.parametrize(
    ("said", "level"),
    [(metrics(1000, 1000), "ok"), (metrics(900, 1000), "warning"), (metrics(1000, 1000, waiting=9000), "warning")],
)
async def test_readings_that_wait_are_told(tmp_path: Path, said: str, level: str) -> None:
    assert only(await latency(evidence(tmp_path, vitals=vitals(metrics=said)))).level == level


# What was refused


async def test_quarantine_is_told_by_kind_with_what_helps(tmp_path: Path) -> None:
    kinds = [
        QuarantineKind("foreign_device", 12, "It says it is from 'x'.", "devices/a/telemetry", "default", "a", NOW_MS),
        QuarantineKind("invalid_json", 3, "It is no JSON.", "http", "default", "b", NOW_MS - 48 * HOUR_MS),
    ]
    found = await seen(quarantine, tmp_path, quarantine=kinds)
    assert levels(found) == ["warning", "ok"]  # what ended days ago needs nobody
    assert "12 messages" in found[0].words
    assert "--hardware-id" in found[0].hint


async def test_dead_letters_are_told_by_destination_with_the_most_frequent_reason(tmp_path: Path) -> None:
    kinds = [RefusedKind("api", "HTTP 422 too hot", 8, NOW_MS), RefusedKind("api", "HTTP 400", 2, NOW_MS)]
    found = only(await seen(dead_letters, tmp_path, refused=kinds))
    assert "api has refused 10 readings" in found.words
    assert "too hot" in found.words


# Destinations


@pytest.mark.parametrize(
    ("how", "level", "hint"),
    [
        ({}, "ok", ""),
        ({"state": "error", "failures": 1, "last_error": "HTTP 401 no"}, "broken", "signing secret"),
        ({"state": "retrying", "failures": 3, "last_error": "HTTP 404"}, "warning", "url"),
        ({"state": "retrying", "failures": 3, "last_error": "the certificate of x …"}, "warning", "clock"),
        ({"delivery": "stopped", "last_error": "HTTP 410"}, "broken", ""),
        ({"undelivered": 9, "oldest_seconds": 9000.0}, "warning", "rate_limit_per_minute"),
    ],
)
async def test_how_deliveries_go_is_told(tmp_path: Path, how: dict[str, Any], level: str, hint: str) -> None:
    found = (await delivery(evidence(tmp_path, status=status(destinations=[destination(**how)]))))[0]
    assert found.level == level
    assert hint in found.hint


async def test_no_destination_is_warned_of_and_an_inactive_one_is_not_asked(tmp_path: Path) -> None:
    assert only(await destinations(evidence(tmp_path))).level == "warning"
    table = {"type": "webhook", "name": "api", "url": "https://example.invalid", "status": "inactive"}
    assert "inactive" in only(await destinations(evidence(tmp_path, tables={"integrations": [table]}))).words


async def test_a_destination_whose_name_leads_nowhere_is_broken_and_the_others_are_asked(tmp_path: Path) -> None:
    named = [{"type": "webhook", "name": name, "url": f"https://{name}.invalid/x?token=geheim"} for name in ("a", "b")]
    found = await destinations(evidence(tmp_path, tables={"integrations": named}))
    assert levels(found) == ["broken", "broken"]
    assert found[0].words.startswith("a: The name a.invalid cannot be resolved")
    assert "geheim" not in str(found)


async def test_those_of_organisations_are_tried_by_the_gateway(tmp_path: Path) -> None:
    asked: list[str] = []

    async def trial(name: str) -> list[Finding]:
        asked.append(name)
        if name == "2":
            raise NotFound("It is gone.", hint="See the list.")
        return [fine("It answers.")]

    rows = tuple(
        IntegrationView(name, "acme", "webhook", f"To {name}", "api", status)
        for name, status in (("1", "active"), ("2", "error"), ("3", "inactive"))
    )
    found = await destinations(evidence(tmp_path, integrations=rows, try_integration=trial))
    assert [finding.words for finding in found] == [
        "To 1: It answers.",
        "To 2: It is gone.",
        "To 3: It is inactive: nothing is sent to it.",
    ]
    assert asked == ["1", "2"]


async def test_a_destination_whose_secret_is_in_the_vault_is_tried_where_that_is_open(tmp_path: Path) -> None:
    tried = []

    async def trial(integration_id: str) -> list[Finding]:
        tried.append(integration_id)
        return [fine("It is there.")]

    text = 'version = 1\n[[integrations]]\ntype = "webhook"\nname = "api"\nsecret = "${vault:API_SECRET}"\n'
    good = of_file(tmp_path / "neurogate.toml", f'{text}url = "https://x.invalid"', try_integration=trial)
    assert [one.words for one in await destinations(good)] == ["api: It is there."]
    assert tried == ["api"]
    wrong = of_file(tmp_path / "neurogate.toml", f'{text}urll = "https://x.invalid"', try_integration=trial)
    assert levels(await destinations(wrong)) == ["broken"]


# The configuration


async def test_the_same_destination_twice_is_warned_of(tmp_path: Path) -> None:
    one = {"type": "webhook", "name": "one", "url": "https://api.example.com/x"}
    twice = {"integrations": [one, one | {"name": "two"}]}
    assert "one and two" in only(await configuration(evidence(tmp_path, tables=twice))).words
    apart = {"integrations": [one | {"devices": ["a"]}, one | {"name": "two", "devices": ["b"]}]}
    assert only(await configuration(evidence(tmp_path, tables=apart))).level == "ok"


async def test_a_destination_that_wants_only_what_nobody_is_is_warned_of(tmp_path: Path) -> None:
    def wanting(**filters: Any) -> Any:
        table = {"type": "webhook", "name": "one", "url": "https://api.example.com/x"} | filters
        return evidence(tmp_path, tables={"integrations": [table]}, troubles=troubles(device("kitchen")))

    assert "(old-org)" in only(await configuration(wanting(organizations=["old-org"]))).words
    assert "(attic-*)" in only(await configuration(wanting(devices=["attic-*"]))).words
    assert only(await configuration(wanting(devices=["kit*"]))).level == "ok"


# Permissions


CONFIG = f"""
[gateway]
data_dir = "data"
[[integrations]]
type = "webhook"
name = "api"
url = "https://api.example.com"
api_key_header = "X-Key"
secret = "{SECRET}"
"""


async def test_a_secret_in_a_file_that_others_may_read_is_broken_and_never_shown(tmp_path: Path) -> None:
    scene = of_file(tmp_path / "neurogate.toml", CONFIG)
    (tmp_path / "neurogate.toml").chmod(0o644)
    found = only(await permissions(scene))
    assert found.level == "broken"
    assert "integrations[api].secret" in found.words
    assert SECRET not in str(found)
    (tmp_path / "neurogate.toml").chmod(0o600)
    assert only(await permissions(scene)).level == "ok"


async def test_a_configuration_that_only_refers_to_secrets_may_be_read(tmp_path: Path) -> None:
    text = CONFIG.replace(SECRET, "${env:HOOK}")
    scene = of_file(tmp_path / "neurogate.toml", text, {"HOOK": SECRET})
    (tmp_path / "neurogate.toml").chmod(0o644)
    assert only(await permissions(scene)).level == "ok"


async def test_a_secrets_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "hook.key").write_text(SECRET)
    (tmp_path / "hook.key").chmod(0o644)
    scene = of_file(tmp_path / "neurogate.toml", CONFIG.replace(SECRET, "${file:hook.key}"))
    (tmp_path / "neurogate.toml").chmod(0o600)
    assert "hook.key" in only(await permissions(scene)).words


@pytest.mark.parametrize(
    ("name", "level"), [("password.key", "broken"), ("log.db", "warning"), ("state.db.copy", "warning")]
)
async def test_a_file_of_the_data_directory_that_others_may_read_is_told(tmp_path: Path, name: str, level: str) -> None:
    data = tmp_path / "data"
    data.mkdir(0o700)
    (data / name).touch(0o600)
    (data / "ballast").touch(0o644)  # nothing is in it
    assert only(await permissions(evidence(data))).level == "ok"
    (data / name).chmod(0o640)
    assert only(await permissions(evidence(data))).level == level


async def test_whoever_may_not_look_into_the_data_directory_is_told_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Path) -> list[Path]:  # to the root that may run this, the kernel forbids nothing
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    found = only(await permissions(evidence(tmp_path)))
    assert found.words == f"This user may not look into {tmp_path}, so what is in it was not looked at."
    owner = tmp_path.owner()  # noqa: ASYNC240 - a local folder
    assert found.hint == f"Run this as the gateway's user: sudo -u {owner} neurogate doctor"


async def test_a_data_directory_that_others_may_write_to_is_broken(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # noqa: ASYNC240 - a local file
    assert only(await permissions(evidence(tmp_path))).level == "broken"
