"""Simulated boards against a real mosquitto."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Client, MqttError

from gateway.sources.room import Room
from gateway.sources.simulator import SimulatedSensor, simulate
from tests.ports import free_port

Reading = dict[str, Any]


class Mosquitto:
    """A broker that keeps its port and its persistent sessions across restarts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "mosquitto is not installed: sudo apt-get install mosquitto"
        self._process = subprocess.Popen([program, "-c", str(self._config)], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()


class Collector:
    """A subscriber with a persistent session: it sees every message that the broker acknowledged."""

    def __init__(self, port: int) -> None:
        self.readings: list[Reading] = []
        self._port = port
        self._subscribed = asyncio.Event()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._collect())
        try:
            await asyncio.wait_for(self._subscribed.wait(), 10)
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until(self, enough: Callable[[list[Reading]], bool]) -> list[Reading]:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: enough(self.readings))
            return list(self.readings)

    async def _collect(self) -> None:
        while True:
            with suppress(MqttError):
                async with Client("127.0.0.1", self._port, identifier="collector", clean_session=False) as client:
                    await client.subscribe("neurobuild/sensors/+/data", qos=1)
                    self._subscribed.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        reading = json.loads(message.payload)
                        assert str(message.topic) == f"neurobuild/sensors/{reading['device_id']}/data"
                        async with self._changed:
                            self.readings.append(reading)
                            self._changed.notify_all()
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the client made an error of its own of it
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def simulated(*sensors: SimulatedSensor) -> AsyncIterator[None]:
    task = asyncio.create_task(simulate(sensors))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def sensor(port: int, device_id: str = "sim-01", interval_s: float = 0.02) -> SimulatedSensor:
    return SimulatedSensor(
        device_id=device_id, username=device_id, password="x", port=port, interval_s=interval_s, seed=1
    )


def shape(value: object) -> object:
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value)


LD2410 = {"presence": bool, "moving": bool, "stationary": bool, "distance_cm": int} | {
    f"{kind}_{what}": int for kind in ("moving", "stationary") for what in ("distance_cm", "energy")
}
GAS = {"gas_concentration": float, "unit": str, "state": str, "raw_uv": int, "rs_ohm": float, "ratio": float}
PAYLOAD = {"device_id": str, "timestamp": str, "boot_id": str, "seq": int, "firmware": str} | {
    "sensors": {"ld2410": LD2410, "pir": {"motion_detected": bool, "pulses": int}, "mq134": GAS},
    "health": {"rssi_dbm": int, "heap_free": int, "uptime_s": int},
}


async def test_payload_has_the_shape_of_the_wire(mosquitto: Mosquitto) -> None:
    collector = Collector(mosquitto.port)
    async with collector.running(), simulated(sensor(mosquitto.port)):
        readings = await collector.until(lambda seen: len(seen) >= 5)
    for reading in readings:
        assert shape(reading) == PAYLOAD
        assert re.fullmatch(r"[0-9a-f]{8}", reading["boot_id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", reading["timestamp"])


async def test_every_start_is_a_new_boot_and_counts_from_zero(mosquitto: Mosquitto) -> None:
    collector = Collector(mosquitto.port)
    async with collector.running():
        async with simulated(sensor(mosquitto.port)):
            await collector.until(lambda seen: len(seen) >= 5)
        async with simulated(sensor(mosquitto.port)):
            readings = await collector.until(lambda seen: len({one["boot_id"] for one in seen}) == 2)
    first, second = dict.fromkeys(one["boot_id"] for one in readings)
    for boot in (first, second):
        sequence = [one["seq"] for one in readings if one["boot_id"] == boot]
        assert sequence == list(range(len(sequence)))


async def test_no_seq_is_lost_by_a_broker_restart(mosquitto: Mosquitto) -> None:
    collector = Collector(mosquitto.port)
    boards = [sensor(mosquitto.port, f"sim-0{number}") for number in (1, 2, 3)]
    async with collector.running(), simulated(*boards):
        await collector.until(lambda seen: len(seen) >= 30)
        mosquitto.stop()
        last_before = {one["device_id"]: one["seq"] for one in collector.readings}
        await asyncio.sleep(0.5)  # the outage: boards go on measuring
        mosquitto.start()
        await collector.until(
            lambda seen: all(
                any(one["seq"] > last + 40 for one in seen if one["device_id"] == device)
                for device, last in last_before.items()
            )
        )
    for board in boards:
        mine = [one for one in collector.readings if one["device_id"] == board.device_id]
        first_seen = list(dict.fromkeys(one["seq"] for one in mine))  # QoS 1 may repeat, in order
        assert first_seen == list(range(len(first_seen)))
        assert board.dropped == 0
        times = [one["timestamp"] for one in mine]
        assert times == sorted(times), "a late reading keeps the time it was taken"


def test_backlog_is_bounded_and_counts_what_it_discards() -> None:
    board = sensor(port=1)
    board.backlog_max = 5
    for seq in range(8):
        board._keep(board._reading("9f3a61c2", seq, uptime_s=seq))
    assert board.dropped == 3
    assert [json.loads(one)["seq"] for one in board._backlog] == [3, 4, 5, 6, 7]


async def test_cancelling_ends_it_while_connected_and_while_not(mosquitto: Mosquitto) -> None:
    boards = [sensor(mosquitto.port), sensor(mosquitto.port, "sim-02")]
    for wait_s in (0.0, 0.2):
        task = asyncio.create_task(simulate(boards))
        await asyncio.sleep(wait_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


def test_room_repeats_by_seed() -> None:
    def hour(seed: int) -> list[Reading]:
        room = Room(random.Random(seed))
        return [room.sensors(1.0) for _ in range(3600)]

    assert hour(7) == hour(7)
    assert hour(7) != hour(8)


def test_room_is_plausible() -> None:
    room = Room(random.Random(3))
    seen = [room.sensors(1.0) for _ in range(3600)]
    occupied = sum(one["ld2410"]["presence"] for one in seen)
    assert 0.1 < occupied / len(seen) < 0.9
    for one in seen:
        radar, pir, gas = one["ld2410"], one["pir"], one["mq134"]
        assert radar["presence"] == (radar["moving"] or radar["stationary"]) == (radar["distance_cm"] > 0)
        assert radar["distance_cm"] in (radar["moving_distance_cm"], radar["stationary_distance_cm"])
        assert 0 <= radar["moving_energy"] <= 100
        assert 0 <= radar["stationary_energy"] <= 100
        assert pir["motion_detected"] == (pir["pulses"] > 0)
        assert 1 < gas["gas_concentration"] < 100
        assert 0 < gas["raw_uv"] < 3_300_000


def test_password_is_not_shown() -> None:
    assert "hunter2" not in repr(SimulatedSensor(device_id="a", username="a", password="hunter2"))
