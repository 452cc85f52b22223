"""Checks of the machine: really broken where this machine lets itself be broken, else by what its files would say."""

import asyncio
import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.doctor.checks.clock import clock
from gateway.doctor.checks.disk import disk, file_system
from gateway.doctor.checks.memory import memory
from gateway.doctor.checks.network import network
from gateway.doctor.checks.open_files import open_files
from gateway.doctor.checks.ports import ports
from gateway.doctor.checks.power import power
from gateway.doctor.checks.serial import serial
from gateway.doctor.checks.space import space
from gateway.doctor.evidence import Machine
from gateway.doctor.sockets import Listening, listening, owner
from gateway.model.status import BufferStatus, Loss
from gateway.operations.buffer import BufferReport, Place
from tests.doctor.scene import NOW_MS, device, evidence, levels, only, status, troubles, vitals
from tests.ports import LOOPBACKS, free_port

LISTENER = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
)


def sys_with_rtc(folder: Path) -> Machine:
    (folder / "class/rtc/rtc0").mkdir(parents=True)
    return Machine(sys=folder)


# The clock


async def test_a_synchronised_clock_is_well(tmp_path: Path) -> None:
    found = only(await clock(evidence(tmp_path, machine=sys_with_rtc(tmp_path / "sys"))))
    assert found.words == "The clock is synchronised, and says 2026-11-18T11:06:40.000Z."


async def test_a_clock_that_nobody_set_is_warned_of_and_one_in_1970_is_broken(tmp_path: Path) -> None:
    machine = sys_with_rtc(tmp_path / "sys")
    unsynced = await clock(evidence(tmp_path, clock=ManualClock(NOW_MS, synced=False), machine=machine))
    assert only(unsynced).level == "warning"
    assert "timedatectl" in only(unsynced).hint
    assert only(await clock(evidence(tmp_path, clock=ManualClock(0, synced=False), machine=machine))).level == "broken"


async def test_a_clock_behind_what_was_stored_is_broken(tmp_path: Path) -> None:
    machine = sys_with_rtc(tmp_path / "sys")
    seen = troubles(device(last_heard_ms=NOW_MS + 3600_000))
    found = await clock(evidence(tmp_path, machine=machine, troubles=seen))
    assert levels(found) == ["ok", "broken"]
    assert "behind the newest reading" in found[1].words


async def test_a_clock_that_was_set_while_the_gateway_ran_is_told(tmp_path: Path) -> None:
    machine = sys_with_rtc(tmp_path / "sys")
    moved = vitals(clock_moved_ms=-90_000)
    found = await clock(evidence(tmp_path, machine=machine, vitals=moved))
    assert "set back by 90 s" in found[1].words
    assert levels(found) == ["ok", "ok"]
    by_hand = await clock(evidence(tmp_path, clock=ManualClock(NOW_MS, synced=False), machine=machine, vitals=moved))
    assert levels(by_hand) == ["warning", "warning"]


async def test_a_machine_without_a_battery_is_told(tmp_path: Path) -> None:
    found = await clock(evidence(tmp_path, clock=ManualClock(NOW_MS, synced=False), machine=Machine(sys=tmp_path)))
    assert "battery" in found[-1].words
    assert found[-1].level == "warning"


# The disk


async def test_a_data_directory_in_memory_is_broken() -> None:
    folder = Path("/dev/shm")  # what the kernel itself says of a real tmpfs
    assert levels(await disk(evidence(folder))) == ["broken", "ok"]
    assert not list(folder.glob(".doctor-*"))  # noqa: ASYNC240 - a local folder


async def test_a_folder_that_takes_no_file_is_broken() -> None:
    found = await disk(evidence(Path("/proc/self")))  # not even root may write there
    assert found[-1].level == "broken"
    assert found[-1].hint


async def test_a_good_disk_says_how_fast_it_is_and_keeps_nothing(tmp_path: Path) -> None:
    found = await disk(evidence(tmp_path))
    assert found[-1].level in {"ok", "warning"}  # how fast a busy machine is says nothing of what is tested
    assert " ms." in found[-1].words
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a local folder


MOUNTS = """21 1 254:1 / / rw,noatime shared:1 - ext4 /dev/root rw
30 21 0:25 / /var/lib/neurogate rw,relatime - tmpfs none rw,size=1g
31 21 0:26 / /mnt/usb\\040stick ro,relatime - vfat /dev/sda1 ro
32 21 0:27 / /overlay rw - overlay overlay rw,lowerdir=/a
"""


@pytest.mark.parametrize(
    ("folder", "kind", "is_read_only"),
    [
        ("/var/lib/neurogate/data", "tmpfs", False),
        ("/var/lib/neurogate2", "ext4", False),
        ("/mnt/usb stick/data", "vfat", True),
        ("/overlay", "overlay", False),
        ("/", "ext4", False),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(folder: str, kind: str, is_read_only: bool) -> None:
    found, options = file_system(Path(folder), MOUNTS)
    assert (found, "ro" in options) == (kind, is_read_only)


@pytest.mark.parametrize(("kind", "level"), [("overlay", "warning"), ("vfat", "warning"), ("nfs4", "warning")])
async def test_a_file_system_that_does_not_keep_its_word_is_warned_of(tmp_path: Path, kind: str, level: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(f"21 1 254:1 / / rw - {kind} x rw\n")
    assert (await disk(evidence(tmp_path, machine=Machine(proc=tmp_path))))[0].level == level


async def test_a_disk_mounted_read_only_is_broken(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("21 1 254:1 / / ro - ext4 x ro\n")
    found = await disk(evidence(tmp_path, machine=Machine(proc=tmp_path)))
    assert "read-only" in found[0].words


# Space


async def test_too_little_space_is_broken_and_says_what_is_lost(tmp_path: Path) -> None:
    storage = {"min_free_bytes": 10**18}
    assert "oldest readings leave" in only(await space(evidence(tmp_path, tables={"storage": storage}))).words
    refusing = evidence(tmp_path, tables={"storage": storage | {"overflow": "reject"}})
    assert "no reading is taken in" in only(await space(refusing)).words


async def test_more_promised_than_the_disk_has_is_warned_of(tmp_path: Path) -> None:
    found = only(await space(evidence(tmp_path, tables={"storage": {"max_bytes": 10**18, "min_free_bytes": 0}})))
    assert found.level == "warning"


async def test_what_was_lost_for_want_of_room_is_told(tmp_path: Path) -> None:
    place = Place("api", 0, 0, None, 0, Loss(12_345, 1, 2, NOW_MS), None, None, None, None)
    report = BufferReport(BufferStatus(0, 0, 0, 0, 0), [place])
    limits = {"storage": {"max_bytes": 50_000_000, "min_free_bytes": 0}}
    found = await space(evidence(tmp_path, tables=limits, buffer=report))
    assert levels(found) == ["ok", "warning"]
    assert "api will never get 12,345 readings" in found[1].words


# Memory, files, power


async def test_memory_that_is_short_and_programs_that_were_killed_are_told(tmp_path: Path) -> None:
    def proc(total_kb: int, free_kb: int, killed: int) -> Machine:
        (tmp_path / "meminfo").write_text(f"MemTotal: {total_kb} kB\nMemAvailable: {free_kb} kB\n")
        (tmp_path / "vmstat").write_text(f"nr_free_pages 5\noom_kill {killed}\n")
        return Machine(proc=tmp_path)

    assert levels(await memory(evidence(tmp_path, machine=proc(1_000_000, 500_000, 0)))) == ["ok"]
    assert levels(await memory(evidence(tmp_path, machine=proc(1_000_000, 80_000, 0)))) == ["warning"]
    assert levels(await memory(evidence(tmp_path, machine=proc(1_000_000, 20_000, 3)))) == ["broken", "warning"]


async def test_this_machine_has_memory(tmp_path: Path) -> None:
    assert "MB are free" in (await memory(evidence(tmp_path)))[0].words


@pytest.mark.parametrize(
    ("open_now", "most", "level"), [(30, 20_000, "ok"), (30, 1_024, "warning"), (950, 1_024, "broken")]
)
async def test_descriptors_are_held_against_the_limit(tmp_path: Path, open_now: int, most: int, level: str) -> None:
    found = await open_files(evidence(tmp_path, vitals=vitals(open_files=open_now, open_files_at_most=most)))
    assert only(found).level == level


@pytest.mark.parametrize(("alarm", "level"), [("0", "ok"), ("1", "warning")])
async def test_a_weak_power_supply_is_told(tmp_path: Path, alarm: str, level: str) -> None:
    sensor = tmp_path / "class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    (sensor / "in0_lcrit_alarm").write_text(f"{alarm}\n")
    assert only(await power(evidence(tmp_path, machine=Machine(sys=tmp_path)))).level == level


async def test_a_machine_without_such_a_sensor_says_nothing(tmp_path: Path) -> None:
    assert await power(evidence(tmp_path, machine=Machine(sys=tmp_path))) == []


# Ports


def tables(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    mqtt = {"host": host, "port": port, "tls_port": 0, "websocket_port": 0}
    return {"mqtt": mqtt, "http": {"host": host, "port": 0, "tls_port": 0}}


async def test_a_port_that_somebody_else_has_is_broken_and_says_who(tmp_path: Path) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LISTENER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    port = int(await other.stdout.readline())
    found = only(await ports(evidence(tmp_path, tables=tables(port))))
    anywhere = only(await ports(evidence(tmp_path, tables=tables(port, "0.0.0.0"))))
    await other.communicate(b"\n")
    assert found.level == anywhere.level == "broken"
    assert f"(pid {other.pid})" in found.words
    assert f"Port {port} (mqtt.port) is taken by python" in found.words


async def test_a_free_port_is_well_and_one_that_a_running_gateway_lacks_is_broken(tmp_path: Path) -> None:
    port = free_port()
    assert "is free" in only(await ports(evidence(tmp_path, tables=tables(port)))).words
    running = status(mqtt_port=port, http_port=0)
    found = await ports(evidence(tmp_path, tables=tables(port), status=running, vitals=vitals(), is_running=True))
    assert "not listened on" in only(found).words


async def test_a_port_of_the_gateway_that_takes_connections_is_well(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ours = vitals(pid=os.getpid())
        running = status(mqtt_port=port, http_port=0)
        found = await ports(evidence(tmp_path, tables=tables(port), status=running, vitals=ours, is_running=True))
    assert only(found).words == f"Port {port} (mqtt.port) is the gateway's and takes connections."


@pytest.mark.parametrize("is_the_owners", [True, False])
async def test_of_another_users_program_no_name_is_guessed_and_the_gateways_own_port_is_not_broken(
    tmp_path: Path, is_the_owners: bool
) -> None:
    uid = tmp_path.stat().st_uid + (not is_the_owners)  # noqa: ASYNC240 - a local folder
    proc = tmp_path / "proc"  # its processes are not shown, as to any user but theirs
    (proc / "net").mkdir(parents=True)
    (proc / "net/tcp").write_text(f"head\n 0: 0100007F:075B 00000000:0000 0A 0:0 0:0 0 {uid} 0 4711 1\n")
    found = only(await ports(evidence(tmp_path, tables=tables(0x75B), machine=Machine(proc=proc))))
    assert "Port 1883 (mqtt.port) is taken by a program of the user " in found.words
    if is_the_owners:
        assert (found.level, "perhaps the gateway" in found.words) == ("warning", True)
        assert found.hint == f"Run this as that user: sudo -u {tmp_path.owner()} neurogate doctor"  # noqa: ASYNC240
    else:
        assert found.level == "broken"
        assert found.hint == "Stop it (sudo ss -ltnp shows its name), or set mqtt.port."


@pytest.mark.parametrize("host", LOOPBACKS)
def test_who_listens_is_found_by_address(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        (found,) = [one for one in listening(Path("/proc")) if one.port == port]
        assert found.address == host
        assert owner(found, Path("/proc"))[0] == os.getpid()


def test_who_has_closed_a_descriptor_meanwhile_is_looked_at_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("mosquitto\n")
    for number in range(9):
        (tmp_path / f"7/fd/{number}").symlink_to("socket:[77]" if number == 5 else "/dev/null")
    readlink = Path.readlink

    def closed_but_one(path: Path) -> Path:
        if path.name != "5":
            raise FileNotFoundError
        return readlink(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "readlink", closed_but_one)
        patch.setattr(Path, "iterdir", lambda folder: iter(folder / str(number) for number in range(9)))
        assert owner(Listening("127.0.0.1", 1883, 0, "77"), tmp_path) == (7, "mosquitto (pid 7)")


# The network


async def test_mqtt_on_loopback_only_is_warned_of(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        found = only(await network(evidence(tmp_path, tables=tables(1883, host))))
        assert "no board on the network reaches it" in found.words


async def test_a_firewall_that_is_on_is_told_with_the_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("gateway.doctor.checks.network")  # the function has its name
    monkeypatch.setattr(module, "own_address", lambda: "192.0.2.7")
    (tmp_path / "ufw").mkdir()
    (tmp_path / "ufw/ufw.conf").write_text("# comment\nENABLED=yes\n")
    found = await network(evidence(tmp_path, tables=tables(1883, "0.0.0.0"), machine=Machine(etc=tmp_path)))
    assert "ufw allow 1883/tcp" in found[-1].hint


# Serial lines


async def test_a_serial_port_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    lines = [{"port": str(tmp_path / "ttyUSB9"), "device_id": "attic"}]
    assert only(await serial(evidence(tmp_path, tables={"serial": lines}))).level == "warning"


async def test_a_pattern_that_means_two_ports_is_broken_and_one_that_is_there_well(tmp_path: Path) -> None:
    (tmp_path / "usb-a").touch()
    lines = [{"port": str(tmp_path / "usb-*"), "device_id": "attic"}]
    scene = evidence(tmp_path, tables={"serial": lines})
    assert only(await serial(scene)).level == "ok"
    (tmp_path / "usb-b").touch()
    assert only(await serial(scene)).level == "broken"
