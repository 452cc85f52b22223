"""`neurogate doctor` as a person runs it: beside a gateway, without one, and beside one that hangs."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_here import GatewayHere
from tests.gateway_process import CONFIG, GatewayProcess, reading
from tests.ports import free_port

DISK = import_module("gateway.doctor.checks.disk")  # the function has its name
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
DESTINATION = f"""
[egress]
policy = "any"
[[integrations]]
type = "webhook"
name = "api"
url = "http://127.0.0.1:{{port}}/hook/AbCdEfGh12345678?key=geheim"
secret = "{SECRET}"
timeout_s = 20
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayProcess]:
    """On a good disk, whatever the folder for tests is on: memory, an overlay, or a card that is busy."""
    monkeypatch.setattr(DISK, "file_system", lambda *_: ("ext4", ["rw"]))
    monkeypatch.setattr(DISK, "sync_s", lambda _: 0.001)
    site = GatewayHere(tmp_path)
    (tmp_path / "neurogate.toml").chmod(0o600)
    yield site
    site.kill()


def examined(site: GatewayProcess) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and findings by check."""
    done = site.neurogate("doctor", "--json")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, {check["check"]: check["findings"] for check in report["checks"]}


def levels(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["level"] for finding in findings]


def test_a_gateway_that_runs_is_well_but_for_what_it_lacks(site: GatewayProcess) -> None:
    few = CONFIG.replace("[mqtt]\n", "[mqtt]\nmax_connections = 100\n")  # or it may want more files than it may open
    (site.folder / "neurogate.toml").write_text(few)
    site.start()
    password = site.json("device", "add", "kitchen")["password"]
    assert site.post(password, reading("kitchen", 1)) == 202
    code, found = examined(site)
    assert code == 0
    for check in ("gateway", "permissions", "disk", "open files", "ports", "http", "broker", "devices", "logins"):
        assert set(levels(found[check])) == {"ok"}, (check, found[check])
    assert levels(found["destinations"]) == ["warning"]  # there is none
    assert levels(found["network"]) == ["warning"]  # it listens on loopback
    assert {finding["hint"] for findings in found.values() for finding in findings if finding["level"] == "ok"} == {""}


def test_without_a_gateway_it_looks_at_what_one_has_left(site: GatewayProcess) -> None:
    site.start()
    site.json("device", "add", "kitchen")
    site.stop()
    code, found = examined(site)
    assert code == 0
    assert "No gateway is running" in found["gateway"][0]["words"]
    assert "never heard: kitchen" in found["devices"][0]["words"]
    assert found["broker"] == found["http"] == []


def test_before_the_first_start_it_makes_nothing(site: GatewayProcess) -> None:
    code, found = examined(site)
    assert code == 0
    assert "not there yet" in found["disk"][0]["words"]
    assert not site.data_dir.exists()


def test_what_is_broken_makes_the_exit_code_1_and_words_name_the_next_step(site: GatewayProcess) -> None:
    site.start()
    site.stop()
    (site.data_dir / "password.key").chmod(0o644)
    done = site.neurogate("doctor")
    assert done.returncode == 1
    assert f"-> Run: chmod 600 {site.data_dir}/password.key" in done.stdout
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_a_port_that_is_taken_is_told_before_the_gateway_fails_to_start(site: GatewayProcess) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        (site.folder / "neurogate.toml").write_text(CONFIG.replace("port = 0", f"port = {port}", 1))
        code, found = examined(site)
    assert code == 1
    assert "is taken by" in found["ports"][0]["words"]


def test_a_destination_that_hangs_holds_it_up_for_seconds_only_and_shows_nothing_secret(site: GatewayProcess) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as hanging:  # takes connections, and never answers
        config = site.folder / "neurogate.toml"
        config.write_text(CONFIG + DESTINATION.format(port=hanging.getsockname()[1]))
        site.start()
        began = time.monotonic()
        done = site.neurogate("doctor")
        took_s = time.monotonic() - began
    assert done.returncode == 1
    assert "api: It takes connections, but gives no answer" in done.stdout
    assert took_s < 30
    for secret in ("AbCdEfGh12345678", "geheim", SECRET):
        assert secret not in done.stdout + done.stderr


def test_a_destination_that_is_away_is_told_while_deliveries_fail(site: GatewayProcess) -> None:
    (site.folder / "neurogate.toml").write_text(CONFIG + DESTINATION.format(port=free_port()))
    (site.folder / "neurogate.toml").chmod(0o600)
    site.start()
    password = site.json("device", "add", "kitchen")["password"]
    site.post(password, reading("kitchen", 1))
    code, found = examined(site)
    assert code == 1
    assert "refuses connections" in found["destinations"][0]["words"]
    assert levels(found["delivery"]) in (["warning"], ["ok"])  # whether the first attempt is over is not waited for


def test_a_gateway_that_hangs_is_told_in_time(own_process: GatewayProcess) -> None:
    own_process.start()
    assert own_process.process is not None
    own_process.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    code, found = examined(own_process)
    assert time.monotonic() - began < 30
    assert code == 1
    assert len(found["gateway"]) == 1  # it is asked once
    assert "did not answer" in found["gateway"][0]["words"]
    assert f"kill -KILL {own_process.process.pid}" in found["gateway"][0]["hint"]


def test_a_gateway_may_be_started_while_the_checks_still_run(site: GatewayProcess) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as hanging:
        site.start()
        site.stop()
        config = site.folder / "neurogate.toml"
        config.write_text(CONFIG + DESTINATION.format(port=hanging.getsockname()[1]))
        checking = site.popen("doctor")
        hanging.settimeout(30)
        hanging.accept()[0].close()  # it has asked the store, and is at the destination
        site.start()
        assert checking.wait(30) == 1
