"""Simulated ESP32 boards: they speak MQTT over a real socket and behave as the firmware does.

Invariants
- every start has a fresh boot_id, and seq rises by one with every measurement
- a reading leaves the backlog when the broker has acknowledged it, oldest first, with its original timestamp
- the backlog is bounded; what it discards is counted in `dropped`, the oldest first

Not here: TLS, commands and updates.
"""

import asyncio
import json
import logging
import random
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from aiomqtt import Client, MqttError

from gateway.clock import Clock, SystemClock
from gateway.model.reading import rfc3339
from gateway.sources.room import Room

FIRMWARE = "0.0.0-simulated"
_BACKOFF_FIRST_S = 0.5
_BACKOFF_MAX_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SimulatedSensor:
    """One board with an LD2410 radar, a PIR and a gas sensor. `run` it until cancelled."""

    device_id: str
    username: str
    password: str = field(repr=False)
    _: KW_ONLY
    host: str = "127.0.0.1"
    port: int = 1883
    interval_s: float = 1.0
    seed: int | None = None
    """Makes the measured values repeat; boot_id and times never do."""
    backlog_max: int = 3_600
    """Readings kept while the broker is away."""
    clock: Clock = field(default_factory=SystemClock)

    acknowledged: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _rng: random.Random = field(init=False, repr=False)
    _room: Room = field(init=False, repr=False)
    _backlog: deque[bytes] = field(init=False, repr=False)
    _measured: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)  # noqa: S311  imitates nature, guards nothing
        self._room = Room(self._rng)
        self._backlog = deque()

    @property
    def topic(self) -> str:
        """Where it publishes."""
        return f"neurobuild/sensors/{self.device_id}/data"

    async def run(self) -> None:
        """Measure every `interval_s` and publish, also across outages of the broker, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure(), name=f"measure {self.device_id}")
            tasks.create_task(self._stay_connected(), name=f"publish {self.device_id}")

    async def _measure(self) -> None:
        boot_id = secrets.token_hex(4)
        started_ms = self.clock.monotonic_ms()
        await asyncio.sleep(self._rng.uniform(0, self.interval_s))  # boards do not start in step
        seq = 0
        while True:
            uptime_s = (self.clock.monotonic_ms() - started_ms) // 1000
            self._keep(self._reading(boot_id, seq, uptime_s))
            seq += 1
            await asyncio.sleep(self.interval_s)

    def _reading(self, boot_id: str, seq: int, uptime_s: int) -> dict[str, Any]:
        return {
            "device_id": self.device_id,
            "timestamp": rfc3339(self.clock.now_ms()),
            "boot_id": boot_id,
            "seq": seq,
            "firmware": FIRMWARE,
            "sensors": self._room.sensors(self.interval_s),
            "health": {
                "rssi_dbm": round(self._rng.gauss(-61, 3)),
                "heap_free": round(self._rng.gauss(61_000, 400)),
                "uptime_s": uptime_s,
            },
        }

    def _keep(self, reading: dict[str, Any]) -> None:
        if len(self._backlog) >= self.backlog_max:
            self._backlog.popleft()
            self.dropped += 1
        self._backlog.append(json.dumps(reading, separators=(",", ":")).encode())
        self._measured.set()

    async def _stay_connected(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            before = self.acknowledged
            try:
                await self._publish_while_connected()
            except* MqttError as failure:
                if self.acknowledged > before:
                    backoff_s = _BACKOFF_FIRST_S
                news = backoff_s == _BACKOFF_FIRST_S  # the rest of an outage is none
                level = logging.WARNING if news else logging.DEBUG
                said = {"device_id": self.device_id, "error": str(failure.exceptions[0])}
                _log.log(level, "A simulated sensor has no broker.", extra=said)
            if _being_cancelled():  # a TaskGroup drops a cancellation that meets an error of its own (before 3.13)
                raise asyncio.CancelledError
            await asyncio.sleep(self._rng.uniform(0.5, 1.0) * backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _publish_while_connected(self) -> None:
        """Connect and send the backlog as it fills; raise when the connection ends."""
        client = Client(self.host, self.port, identifier=self.device_id, username=self.username, password=self.password)
        async with client, asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(client), name=f"watch {self.device_id}")
            while True:
                await self._send_backlog(client)
                self._measured.clear()
                await self._measured.wait()

    async def _send_backlog(self, client: Client) -> None:
        while self._backlog:
            oldest = self._backlog[0]
            await client.publish(self.topic, oldest, qos=1)
            if _being_cancelled():  # before 3.12 wait_for loses a cancellation that meets its result
                raise asyncio.CancelledError
            self.acknowledged += 1
            if self._backlog and self._backlog[0] is oldest:  # else the bound took it meanwhile
                self._backlog.popleft()


async def _watch(client: Client) -> None:
    """Raise when the connection ends; a publish that waits for its PUBACK notices only by its timeout."""
    async for _ in client.messages:
        pass


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def simulate(sensors: Iterable[SimulatedSensor]) -> None:
    """Run every sensor until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for sensor in sensors:
            tasks.create_task(sensor.run(), name=f"simulate {sensor.device_id}")
