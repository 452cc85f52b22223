"""The certificates that a real gateway shows, at good and at bad times."""

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import LoadedConfig
from gateway.doctor.checks.certificates import certificates
from gateway.doctor.evidence import Evidence
from gateway.operations.status import gateway_status
from tests.doctor.scene import only
from tests.ports import free_port
from tests.tls.site import present, tls_site

MODULE = import_module("gateway.doctor.checks.certificates")  # the function has its name

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Evidence]:
    """Evidence of a running gateway with its own CA."""
    async with tls_site(tmp_path) as site:
        status = await site.command(gateway_status)
        yield Evidence(LoadedConfig(site.settings, {}, None), present(), status=status, is_running=True)


def after(scene: Evidence, days: int) -> Evidence:
    return replace(scene, clock=ManualClock(scene.clock.now_ms() + days * DAY_MS))


async def test_one_certificate_on_all_ports_is_judged_once(scene: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "own_address", lambda: "127.0.0.1")
    found = only(await certificates(scene))
    assert found.level == "ok"
    assert "127.0.0.1" in found.words


async def test_a_certificate_that_has_ended_is_broken_and_the_clock_is_doubted_first(scene: Evidence) -> None:
    late = after(scene, 5000)
    found = only(await certificates(late))
    assert (found.level, found.hint) == ("broken", "Run: neurogate certs renew")
    unsynced = ManualClock(late.clock.now_ms(), synced=False)
    found = only(await certificates(replace(scene, clock=unsynced)))
    assert (found.level, "clock is not synchronised" in found.hint) == ("broken", True)


async def test_a_certificate_that_ends_soon_is_warned_of(scene: Evidence) -> None:
    words = only(await certificates(after(scene, 0))).words
    ends = datetime.fromisoformat(f"{words.split(' to ')[1][:10]}T00:00:00Z")
    at_ms = round(ends.timestamp() * 1000)
    late = only(await certificates(replace(scene, clock=ManualClock(at_ms - 5 * DAY_MS))))
    assert (late.level, late.hint) == ("warning", "Run: neurogate certs renew")


async def test_a_machine_that_has_moved_is_told(scene: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "own_address", lambda: "198.51.100.7")
    found = only(await certificates(scene))
    assert found.level == "warning"
    assert "but not for 198.51.100.7" in found.words


async def test_a_port_that_speaks_no_tls_is_broken(scene: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        mqtt = scene.settings.mqtt.model_copy(update={"tls_port": silent.getsockname()[1]})
        settings = scene.settings.model_copy(update={"mqtt": mqtt})
        found = await certificates(replace(scene, loaded=LoadedConfig(settings, {}, None)))
    assert "(mqtt.tls_port) takes no TLS connection" in found[0].words
