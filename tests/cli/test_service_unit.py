"""The unit: what systemd thinks of it, and that what it forbids is nothing that a gateway does."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from gateway.cli.service_unit import CONFIG, FOLDER, UNIT, Unit, is_ours
from tests.gateway_process import GatewayProcess, reading

SYSTEMD = int(subprocess.check_output(["systemctl", "--version"], text=True).split()[1])
OURS = Unit(Path(sys.executable), CONFIG, FOLDER, SYSTEMD)
THRESHOLD = 25
"""Tenths; systemd calls up to 4.9 good enough, and gives 9.6 to a unit without any of this."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / UNIT
    path.write_text(OURS.text())
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)


def test_systemd_finds_nothing_wrong(file: Path) -> None:
    done = analyze("verify", file)
    assert [line for line in done.stderr.splitlines() if "neurogate" in line] == []
    assert done.returncode == 0
    file.write_text(OURS.text().replace("WatchdogSec=60s", "WatchdogSec=often"))
    assert "Failed to parse sec value" in analyze("verify", file).stderr


def test_it_is_exposed_to_little(file: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", file)
    assert done.returncode == 0, done.stdout
    file.write_text(OURS.text().replace("NoNewPrivileges=yes", "").replace("CapabilityBoundingSet=", "#"))
    assert analyze("security", "--offline=true", f"--threshold={THRESHOLD}", file).returncode != 0


def test_a_data_directory_elsewhere_may_be_written_and_its_disk_is_waited_for(file: Path) -> None:
    elsewhere = replace(OURS, data_dir=Path("/mnt/my ssd/100%"), config=Path("/etc/neurogate/$x.toml"))
    file.write_text(elsewhere.text())
    assert 'ReadWritePaths="/mnt/my ssd/100%%"' in file.read_text()
    assert 'RequiresMountsFor="/mnt/my ssd/100%%"' in file.read_text()
    assert [line for line in analyze("verify", file).stderr.splitlines() if "neurogate" in line] == []
    assert "ReadWritePaths" not in OURS.text()


def test_it_waits_longer_after_each_failure_where_systemd_can() -> None:
    assert "RestartSteps=6" in replace(OURS, systemd=254).text()
    assert "RestartSteps" not in replace(OURS, systemd=252).text()


def test_a_unit_that_was_edited_is_told_from_ours() -> None:
    text = OURS.text()
    assert is_ours(text)
    for edited in (text.replace("60s", "61s"), f"{text}[Service]\n", text.removesuffix("\n"), "", "[Unit]\n"):
        assert not is_ours(edited)
    assert is_ours(replace(OURS, systemd=1).text())


# What a gateway does, as strace has seen it


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The system calls, one a line, of a gateway that starts, is announced, takes in a reading, and stops."""
    folder = tmp_path_factory.mktemp("traced")
    gateway, out = GatewayProcess(folder), folder / "calls"
    config = folder / "neurogate.toml"
    config.write_text(f'{config.read_text()}[mdns]\ninterfaces = ["lo"]\n')
    device = gateway.json("device", "add", "kitchen")
    gateway.tracer = ("strace", "-D", "-f", "-qq", "-s", "0", "-o", str(out))
    gateway.start()
    try:
        assert gateway.post(device["password"], reading("kitchen", 1)) == 202
        gateway.mqtt(device["username"], device["password"]).close()
        assert len(gateway.json("buffer", "status")) > 0
    finally:
        gateway.stop()
    return [line.split(maxsplit=1)[1] for line in out.read_text().splitlines()]


@cache
def expanded(group: str) -> frozenset[str]:
    """The calls of a systemd group, `@system-service` for example."""
    said = analyze("syscall-filter", group).stdout.splitlines()[1:]
    names = [line.strip() for line in said if line.strip() and not line.strip().startswith("#")]
    return frozenset[str]().union(*(expanded(name) if name[0] == "@" else {name} for name in names))


def allowed() -> set[str]:
    """What the unit allows: the first line begins a list, the others add to it or (~) take away."""
    found = set(expanded("@default"))
    for line in re.findall(r"^SystemCallFilter=(.*)$", OURS.text(), re.MULTILINE):
        names = line.removeprefix("~").split()
        meant = frozenset[str]().union(*(expanded(name) if name[0] == "@" else {name} for name in names))
        found = found - meant if line[0] == "~" else found | meant
    return found


def test_every_system_call_of_a_gateway_is_allowed(calls: list[str]) -> None:
    made = {match[1] for line in calls if (match := re.match(r"(\w+)\(", line))}
    assert {"execve", "fdatasync", "accept4", "bind"} <= made
    assert "clock_adjtime" in made or "adjtimex" in made, "whether the clock is synchronised must be asked"
    if os.geteuid() == 0:
        made -= {"fchown"}  # SQLite gives its write-ahead log to whom the database belongs, as root alone
    assert made - allowed() == set()
    assert {"mount", "reboot", "init_module", "ptrace", "clock_settime", "setuid"} & allowed() == set()


def test_a_gateway_makes_no_memory_both_writable_and_executable(calls: list[str]) -> None:
    """What systemd forbids by MemoryDenyWriteExecute: see systemd.exec(5)."""
    assert any(line.startswith("mmap(") and "PROT_EXEC" in line for line in calls)
    for line in calls:
        name = line.partition("(")[0]
        assert not (name == "mmap" and "PROT_EXEC" in line and "PROT_WRITE" in line), line
        assert not (name in ("mprotect", "pkey_mprotect") and "PROT_EXEC" in line), line
        assert not (name == "shmat" and "SHM_EXEC" in line), line


def test_a_gateway_opens_only_sockets_of_the_families_that_it_may(calls: list[str]) -> None:
    (line,) = re.findall(r"^RestrictAddressFamilies=(.*)$", OURS.text(), re.MULTILINE)
    families = {match[1] for call in calls if (match := re.match(r"socket(?:pair)?\((\w+)", call))}
    assert {"AF_INET", "AF_UNIX", "AF_NETLINK"} <= families
    assert families <= set(line.split())
