"""The whole program of a board, compiled, with the heap that it needs on 64 bits, and a real gateway."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from gateway.clock import ManualClock
from gateway.operations.credentials import add_credential
from gateway.operations.readings import read_readings
from gateway.storage.state import DeviceCredential
from tests.firmware.board_process import WAIT_S, Board, running
from tests.ports import free_port
from tests.site import Site, running_site

ORGANIZATION = "default"
HEAP = "108k"
SPEED = 12
"""How much faster a board lives where many readings are needed, and no time of day."""


class RunningClock(ManualClock):
    """The machine's own time, of which a gateway says that NTP keeps it."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class House:
    """A gateway that can be stopped, and is found at the same ports when it is started again."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.mqtt_port, self.http_port = free_port(), free_port()
        self.kitchen: DeviceCredential | None = None
        self._running = AsyncExitStack()
        self.site: Site

    async def start(self) -> None:
        self.site = await self._running.enter_async_context(
            running_site(
                self._data_dir,
                kitchen=self.kitchen,
                clock=RunningClock(),
                mqtt={"port": self.mqtt_port},
                http={"port": self.http_port},
            )
        )
        self.kitchen = self.site.kitchen

    async def stop(self) -> None:
        await self._running.aclose()

    async def stored(self) -> list[dict[str, Any]]:
        """Return what has come in, in the order in which it did."""
        page = await self.site.command(read_readings, organization_id=ORGANIZATION, limit=1_000)
        return page.readings[::-1]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path / "data")
    await house.start()
    yield house
    await house.stop()


class Flash:
    """A board's flash as flashing leaves it."""

    def __init__(self, root: Path, gateway: House, **settings: Any) -> None:
        self.root = root
        root.mkdir()
        assert gateway.kitchen is not None
        config = {
            "device_id": "kitchen",
            "organization_id": ORGANIZATION,
            "gateway": {
                "host": "gateway.local",
                "port": gateway.mqtt_port,
                "http_port": gateway.http_port,
                "tls": False,
            },
            "wifi": {"ssid": "home", "password": "secret"},
            "mqtt": {"username": gateway.kitchen.username, "password": gateway.kitchen.password},
        }
        self.write("config.json", config)
        self.write("slot.json", {"active": "a", "confirmed": True, "starts": 1})
        default = {
            "version": 1,
            "readings": {"min_interval_ms": 100, "heartbeat_s": 1},
            "connection": {"ntp_host": "127.0.0.1"},
            "pir": {"warm_up_s": 0},
        }
        self.write("settings.json", {**default, **settings})

    def write(self, name: str, value: Any) -> None:
        (self.root / name).write_text(json.dumps(value))

    def read(self, name: str) -> Any:
        return json.loads((self.root / name).read_text())

    def start(self, **story: Any) -> AbstractAsyncContextManager[Board]:
        return running("application", {"root": str(self.root), **story}, heap=HEAP)


@pytest.fixture
def flash(tmp_path: Path, gateway: House) -> Flash:
    return Flash(tmp_path / "flash", gateway)


async def until_stored(
    gateway: House, holds: Callable[[list[dict[str, Any]]], bool], board: Board | None = None
) -> list[dict[str, Any]]:
    deadline = time.monotonic() + WAIT_S
    while True:
        readings = await gateway.stored()
        if holds(readings):
            return readings
        assert time.monotonic() < deadline, (readings[-3:], board and board.events[-9:], board and board.console[-20:])
        await asyncio.sleep(0.05)


class Person:
    """Somebody of the organisation who sees and says what is the device's."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: list[tuple[str, dict[str, Any]]] = []

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.heard.append((str(message.topic), json.loads(bytes(message.payload))))

    async def until(self, topic: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while True:
            for name, body in self.heard:
                if name.endswith(topic) and holds(body):
                    return body
            assert time.monotonic() < deadline, self.heard[-5:]
            await asyncio.sleep(0.05)


@pytest.fixture
async def person(gateway: House) -> Any:
    credential = await gateway.site.command(add_credential, name="person", organization_id=ORGANIZATION)
    async with aiomqtt.Client(
        "127.0.0.1", gateway.mqtt_port, username=credential.username, password=credential.password
    ) as client:
        await client.subscribe(f"org_{ORGANIZATION}/devices/kitchen/status", qos=1)
        await client.subscribe(f"org_{ORGANIZATION}/devices/kitchen/commands/+/ack", qos=1)
        person = Person(client)
        listening = asyncio.create_task(person.listen())
        yield person
        listening.cancel()


async def test_its_readings_arrive_with_the_right_time(gateway: House, flash: Flash) -> None:
    started_ms = time.time_ns() // 1_000_000
    async with flash.start() as board:
        readings = await until_stored(gateway, lambda found: len(found) >= 8, board)
        assert board.of("rtc"), "nobody told the time"
    ended_ms = time.time_ns() // 1_000_000
    assert [one["seq"] for one in readings] == list(range(1, len(readings) + 1))
    assert len({one["boot_id"] for one in readings}) == 1
    times_ms = [datetime.fromisoformat(one["time"]).timestamp() * 1000 for one in readings]
    assert times_ms == sorted(times_ms)
    assert all(started_ms - 10 <= one <= ended_ms for one in times_ms)
    last = readings[-1]
    assert last["time_source"] == "device"
    assert set(last["sensors"]) == {"ld2410", "pir", "mq134"}
    health = last["health"]
    assert (health["reset_cause"], health["rssi_dbm"], health["dropped"], health["radar"]) == ("power", -61, 0, "ok")
    assert last["firmware"] == "0.1.0"


async def test_p10_a_gateway_that_is_not_sure_of_the_time_dates_no_reading(gateway: House, flash: Flash) -> None:
    gateway.site.clock.synced = False
    async with flash.start(speed=SPEED) as board:
        readings = await until_stored(gateway, lambda found: len(found) >= 3, board)
        told = board.of("rtc")
    assert told, "TLS needs a time, and this one is better than none"
    assert {one["time_source"] for one in readings} == {"corrected"}


async def test_p1_over_a_stop_of_the_gateway_nothing_is_lost_and_the_order_is_kept(
    gateway: House, flash: Flash
) -> None:
    """For a minute of the board's, so that memory is not enough for what is measured."""
    async with flash.start(speed=SPEED) as board:
        await until_stored(gateway, lambda found: len(found) >= 3, board)
        await gateway.stop()
        await asyncio.sleep(60 / SPEED)
        await board.until(lambda: len(list((flash.root / "spill").glob("*"))) >= 2, "files on the flash")
        await gateway.start()
        before = len(await gateway.stored())
        readings = await until_stored(
            gateway, lambda found: len(found) > before + 30 and not list((flash.root / "spill").glob("*")), board
        )
    assert [one["seq"] for one in readings] == list(range(1, len(readings) + 1))
    assert max(one["health"]["waiting_files"] for one in readings) >= 2
    assert {one["health"]["dropped"] for one in readings} == {0}
    assert {one["time_source"] for one in readings} == {"device"}


async def test_after_a_power_cut_what_was_on_the_flash_arrives_once(gateway: House, flash: Flash) -> None:
    await gateway.stop()
    async with flash.start(speed=SPEED) as board:
        await board.until(lambda: len(list((flash.root / "spill").glob("*"))) >= 2, "files on the flash")
    await gateway.start()
    async with flash.start(speed=SPEED) as board:
        readings = await until_stored(
            gateway, lambda found: len(found) > 25 and not list((flash.root / "spill").glob("*")), board
        )
    boots = list(dict.fromkeys(one["boot_id"] for one in readings))
    assert len(boots) == 2
    for boot_id in boots:
        numbers = [one["seq"] for one in readings if one["boot_id"] == boot_id]
        assert numbers == list(range(1, len(numbers) + 1))
    old = next(one for one in readings if one["boot_id"] == boots[0])
    assert old["time_uncertain"] is True, "that start never knew the time"
    assert old["time_source"] == "corrected"


async def test_its_status_is_online_and_its_will_offline(flash: Flash, person: Person) -> None:
    async with flash.start(speed=SPEED):
        online = await person.until("/status", lambda body: body["status"] == "online" and body["radar"] == "ok")
        assert (online["firmware"], online["reset_cause"], online["config"]) == ("0.1.0", "power", {"version": 1})
    offline = await person.until("/status", lambda body: body["status"] == "offline")
    assert offline["boot_id"] == online["boot_id"]


async def test_commands_are_carried_out_once_and_answered(flash: Flash, person: Person, gateway: House) -> None:
    topic = f"org_{ORGANIZATION}/devices/kitchen/commands/"

    async def answer(command_id: str, **command: Any) -> dict[str, Any]:
        await person.client.publish(topic + command_id, json.dumps(command), qos=1)
        return await person.until(f"{command_id}/ack", lambda body: body["state"] != "executing")

    async with flash.start(speed=SPEED) as board:
        await person.until("/status", lambda body: body["status"] == "online")
        soon = time.time() + 600
        assert await answer("1", method="identify", params={"seconds": 1}, deadline=soon) == {
            "state": "successful",
            "result": {"seconds": 1},
        }
        assert next(body for name, body in person.heard if name.endswith("/1/ack")) == {"state": "executing"}
        assert board.of("led") == [True, False] * 2
        await answer("1", method="identify", params={"seconds": 1}, deadline=soon)
        assert board.of("led") == [True, False] * 2, "the same command ran twice"
        late = await answer("2", method="identify", deadline=time.time() - 10)
        assert late == {"state": "failed", "result": "too late"}
        assert "no such method" in (await answer("3", method="explode"))["result"]
        assert "seconds must be" in (await answer("4", method="identify", params={"seconds": "x"}))["result"]
        back = (await answer("5", method="read_back"))["result"]
        assert back["settings"]["readings"] == {"min_interval_ms": 100, "heartbeat_s": 1}
        calibrated = await answer("6", method="calibrate_gas", params={"force": True})
        assert calibrated["state"] == "successful"
        assert flash.read("calibration.json") == {"r0_ohm": calibrated["result"]["r0_ohm"]}
        assert (await answer("7", method="restart"))["state"] == "successful"
        await board.until(lambda: bool(board.of("reset") or ["reset"] in board.events), "the restart")
    assert flash.read("slot.json")["starts"] == 0, "a restart that was asked for is no failed start"
    stored = await gateway.stored()
    assert [one["seq"] for one in stored] == list(range(1, len(stored) + 1))


async def test_settings_from_the_gateway_are_checked_tried_and_kept(flash: Flash, person: Person) -> None:
    topic = f"org_{ORGANIZATION}/devices/kitchen/config"

    def say(**wanted: Any) -> Any:
        return person.client.publish(topic, json.dumps(wanted), qos=1, retain=True)

    fast = {"min_interval_ms": 100, "heartbeat_s": 2}
    async with flash.start(speed=SPEED) as board:
        await person.until("/status", lambda body: body["status"] == "online")
        await say(version=2, readings={"heartbeat_s": 0})
        refused = await person.until("/status", lambda body: "refused" in body.get("config", {}))
        assert refused["config"]["version"] == 1
        assert refused["config"]["refused"]["version"] == 2
        assert "heartbeat_s" in refused["config"]["refused"]["reason"]
        await say(version=3, readings=fast, connection={"ntp_host": "127.0.0.1"}, pir={"warm_up_s": 0})
        await board.until(lambda: ["reset"] in board.events, "the restart")
    assert (flash.root / "settings.json.old").exists()
    async with flash.start(speed=SPEED) as board:
        await person.until("/status", lambda body: body.get("config", {}).get("version") == 3)
        await board.until(lambda: not (flash.root / "settings.json.old").exists(), "the end of the trial")
    assert flash.read("settings.json")["readings"] == fast


async def test_settings_on_trial_are_taken_back_in_safe_mode(flash: Flash) -> None:
    flash.write("settings.json.old", flash.read("settings.json"))
    flash.write("settings.json", {"version": 9, "readings": {"heartbeat_s": 3}})
    flash.write("config.json", {**flash.read("config.json"), "gateway": {"host": "nobody", "port": 1}})
    async with flash.start(speed=SPEED, safe="3 starts came to nothing") as board:
        await board.until(lambda: ["reset"] in board.events, "the restart")
    assert flash.read("settings.json")["version"] == 1
    assert flash.read("settings.json.refused")["version"] == 9


async def test_in_safe_mode_nothing_but_the_connection_runs(flash: Flash, person: Person) -> None:
    async with flash.start(speed=SPEED, safe="BOOT is held") as board:
        status = await person.until("/status", lambda body: body["status"] == "online")
        assert status["safe_mode"] == "BOOT is held"
        assert "radar" not in status
        assert not any("radar" in line for line in board.console)
