"""Two boards, flashed at once, and a real gateway: readings arrive, and what happens to board and network is told."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.gateway_process import CONFIG, ROOT, WAIT_S, GatewayProcess
from tests.ports import free_port
from tests.virtual_board.virtual_board import VirtualBoard

WIFI = ("--wifi", "home", "--wifi-password-file")
WITHOUT_THE_GATEWAYS_PACKAGES = """
import sys
for name in ("pydantic", "aiohttp", "aiosqlite", "amqtt", "aiomqtt", "typer", "rich", "cryptography", "uvloop"):
    sys.modules[name] = None
from gateway.provisioning.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

pytestmark = pytest.mark.usefixtures("flashed")


class Place:
    """A gateway, and the boards `kitchen` and `hall`, which get their power when they are flashed."""

    def __init__(self, folder: Path) -> None:
        (folder / "gateway").mkdir()
        self.gateway = GatewayProcess(folder / "gateway")
        self.mqtt_tls_port = free_port()
        settings = CONFIG.replace("tls_port = 0", f"tls_port = {self.mqtt_tls_port}", 1)
        while "\nport = 0" in settings:  # the same ones again after a restart
            settings = settings.replace("\nport = 0", f"\nport = {free_port()}", 1)
        (folder / "gateway" / "neurogate.toml").write_text(settings)
        self.gateway.start()
        self.token: str = self.gateway.json("token", "create", "tests", "--role", "owner")["token"]
        self.passwords: Path = folder / "wifi"
        self.passwords.write_text("a wifi password\n")
        self.kitchen = VirtualBoard(folder / "kitchen", unique_id="24:6f:28:00:00:01")
        self.hall = VirtualBoard(folder / "hall", unique_id="24:6f:28:00:00:02")
        for board in (self.kitchen, self.hall):
            board.put("wifi", "home\na wifi password")

    def readings(self, device_id: str) -> list[dict[str, Any]]:
        """Return what has come in of a device, in the order in which it did."""
        url = f"http://127.0.0.1:{self.gateway.http_port}/api/v1/readings?limit=1000&device_id={device_id}"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return list(reversed(json.load(answer)["readings"]))

    def await_reading(self, device_id: str, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while True:
            found = self.readings(device_id)
            for reading in reversed(found):
                if is_it(reading):
                    return dict(reading)
            assert time.monotonic() < deadline, found[-2:]
            time.sleep(0.2)

    def status(self, device_id: str) -> dict[str, Any]:
        """Return what is retained as a device's status."""
        topic = f"org_default/devices/{device_id}/status"
        login = self._panel()
        panel = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.gateway.mqtt_port)]
        panel += ["-u", login["username"], "-P", login["password"]]
        done = subprocess.run(
            [*panel, "-t", topic, "-C", "1", "-W", "5"], capture_output=True, timeout=WAIT_S, check=False
        )
        return dict(json.loads(done.stdout or b"{}"))

    def await_status(self, device_id: str, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while not (status := self.status(device_id)).items() >= fields.items():
            assert time.monotonic() < deadline, status
            time.sleep(0.2)
        return status

    def _panel(self) -> dict[str, str]:
        file = self.gateway.folder / "panel"
        if not file.exists():
            file.write_text(json.dumps(self.gateway.json("credential", "add", "panel")))
        return dict(json.loads(file.read_text()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    with place.kitchen, place.hall:
        yield place
        place.gateway.stop()


class Flashed(NamedTuple):
    """What flashing the two boards has come to: `kitchen` first, then `hall`."""

    codes: list[int]
    said: list[str]
    credential: Path
    """The file of `hall`'s login."""


@pytest.fixture(scope="module")
def flashed(place: Place) -> Flashed:
    """One by the command, over TLS; the other one from a checkout, by somebody who cannot reach the gateway."""
    place.kitchen.radar.see(150)
    wifi = (*WIFI, str(place.passwords), "--host", "127.0.0.1")
    credential = place.gateway.folder / "hall.json"
    credential.write_text(json.dumps(place.gateway.json("device", "add", "hall")))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    first = place.gateway.popen("device", "flash", "--port", place.kitchen.port, "--device", "kitchen", *wifi, **pipes)
    board = ("--port", place.hall.port)
    ports = ("--mqtt-port", str(place.gateway.mqtt_port), "--http-port", str(place.gateway.http_port))
    second = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_THE_GATEWAYS_PACKAGES, "--offline", credential, *board, *ports, *wifi],
        cwd=ROOT,
        **pipes,
    )
    said = [process.communicate(timeout=100)[0].decode() for process in (first, second)]
    return Flashed([first.returncode, second.returncode], said, credential)


def test_two_blank_boards_are_flashed_at_once_and_their_readings_arrive(place: Place, flashed: Flashed) -> None:
    said = flashed.said
    assert flashed.codes == [0, 0], said
    assert "first reading of kitchen is at the gateway" in said[0]
    assert f"127.0.0.1:{place.mqtt_tls_port} over TLS" in said[0]
    assert "without TLS" in said[1]
    assert "a wifi password" not in "".join(said)
    assert json.loads(flashed.credential.read_text())["password"] not in "".join(said)
    reading = place.await_reading("kitchen", lambda one: one["health"].get("reset_cause") == "hard")
    assert reading["time_source"] in ("device", "corrected"), "as this machine's clock is kept by NTP, or is not"
    place.await_reading("kitchen", lambda one: one["sensors"].get("ld2410", {}).get("distance_cm") == 150)
    place.await_reading("hall", lambda one: "ld2410" in one["sensors"])
    assert place.await_status("hall", status="online")["firmware"]


def test_a_radar_that_is_unplugged_is_said(place: Place) -> None:
    boot_id = place.await_status("hall", radar="ok")["boot_id"]
    place.hall.radar.see(90)
    place.await_reading("hall", lambda one: one["sensors"].get("ld2410", {}).get("distance_cm") == 90)
    place.hall.radar.unplug()
    place.await_status("hall", radar="lost", boot_id=boot_id)
    lost = place.await_reading("hall", lambda one: one["health"].get("radar") == "lost")
    assert "ld2410" not in lost["sensors"], "nobody knows who is there"
    place.hall.radar.plug()
    place.await_status("hall", radar="ok", boot_id=boot_id)


def test_while_the_gateway_is_away_nothing_is_lost_and_the_order_stays(place: Place) -> None:
    before = place.readings("kitchen")[-1]
    place.gateway.stop()
    for step in range(8):
        place.kitchen.radar.see(200 + 50 * step)
        time.sleep(0.7)  # at most two readings a second are made
    place.gateway.start()
    last = place.await_reading("kitchen", lambda one: one["sensors"].get("ld2410", {}).get("distance_cm") == 550)
    since = [one for one in place.readings("kitchen") if one["boot_id"] == before["boot_id"]]
    seqs = [one["seq"] for one in since]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert [one["time"] for one in since] == sorted(one["time"] for one in since)
    assert last["seq"] - before["seq"] >= 8
    distances = [one["sensors"]["ld2410"]["distance_cm"] for one in since if "ld2410" in one["sensors"]]
    assert [one for one in distances if one >= 200] == sorted(one for one in distances if one >= 200)
    assert {200 + 50 * step for step in range(8)} <= set(distances)


def test_a_power_cut_is_told_by_the_will_and_power_brings_it_back(place: Place) -> None:
    boot_id = place.await_status("kitchen", status="online")["boot_id"]
    place.kitchen.power(on=False)
    assert place.await_status("kitchen", status="offline")["boot_id"] == boot_id
    place.kitchen.power(on=True)
    back = place.await_status("kitchen", status="online")
    assert back["boot_id"] != boot_id
    assert back["reset_cause"] == "power"
    place.await_reading("kitchen", lambda one: one["boot_id"] == back["boot_id"])


def test_what_is_measured_without_wifi_and_clock_arrives_with_its_time(place: Place) -> None:
    place.hall.put("wifi_down", "")
    place.hall.radar.see(None)
    at = len(place.hall.console())
    place.hall.power_cycle()
    place.hall.wait_for("neurogate ", after=at)
    place.hall.radar.see(333)
    measured = time.time()
    time.sleep(4)
    place.hall.take_away("wifi_down")
    reading = place.await_reading("hall", lambda one: one["sensors"].get("ld2410", {}).get("distance_cm") == 333)
    age_s = time.time() - datetime.fromisoformat(reading["time"]).timestamp()
    assert time.time() - measured - 3 < age_s < time.time() - measured + 1


def test_flashed_again_a_board_keeps_its_login_and_sends(place: Place) -> None:
    flash = place.gateway.popen(
        "device", "flash", "--port", place.kitchen.port, "--host", "127.0.0.1", stdout=-1, stderr=-2
    )
    said = flash.communicate(timeout=100)[0].decode()
    assert flash.returncode == 0, said
    assert "kitchen already, and keeps its login" in said
    assert " 0 of them new" in said
