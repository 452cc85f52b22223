"""How much heap the program of a board needs on this machine: `python -m tests.firmware.heap [--tls]`, some minutes.

The real program, compiled as for a board, on simulated hardware (programs/application.py), with Debian's mosquitto and
a clock to ask. It connects, carries out commands, calibrates, refuses settings, is without its broker until readings
lie on the flash, loses its radar, sends them and answers a command meanwhile; all that again with its radar, and takes
new settings. Three tables: each module; what was in use after each of these steps; and with which `-X heapsize` no step
failed.
"""

import asyncio
import json
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt

from tests.firmware.board_process import Board, mosquitto, running, told
from tests.firmware.site_certificates import SiteCA
from tests.ports import free_port

NAME = "gateway.site"
_AMPLE_KB = 300
_LOST_S = 3
TOPIC = "org_default/devices/kitchen/"
STAY = ["app.base", "app.link", "app.main", "drivers.fitted"]
GO = [
    "app.assembly",
    "app.config",
    "app.settings_start",
    "app.settings_rules",
    "app.settings_check",
    "drivers.mq_curves",
    "app.settings_change",
    "app.time_sources",
    "app.connecting",
    "app.mqtt_login",
    "app.command_check",
    "app.own_commands",
    "app.read_back",
    "app.crash_entry",
    "app.spill_file",
    "drivers.mq_calibration",
    "drivers.ld2410_commands",
    "drivers.ld2410_setting",
    "drivers.ld2410_dialogue",
    "drivers.ld2410_orders",
    "drivers.ld2410_search",
]
SETTINGS: dict[str, Any] = {
    "version": 3,
    "readings": {"min_interval_ms": 100, "heartbeat_s": 2},
    "connection": {"ntp_host": "127.0.0.1", "keepalive_s": 20},
    "pir": {"warm_up_s": 0, "debounce_ms": 40, "hold_s": 5, "stuck_s": 3600},
    "ld2410": {"moving_gate": 8, "nobody_s": 5, "moving_sensitivity": [50] * 9, "stationary_sensitivity": [40] * 9},
    "mq134": {"part": "mq135", "gas": "co2", "load_ohm": 1000},
}


class FailedError(Exception):
    """A step did not work with so little memory."""


class Life:
    """One start of a board, with all that may happen to it."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self._root = folder / "flash"
        self._folder = folder
        self._ca = SiteCA(folder / "ca") if tls else None
        self._port = free_port()
        self._heard: list[tuple[str, Any]] = []
        self._root.mkdir()
        self.steps: list[tuple[str, int]] = []
        self.names = ""
        """What MicroPython says of the names that it keeps."""

    async def live(self, heap: str) -> int:
        """Return how much was in use at most. Raises FailedError."""
        clock = await asyncio.start_server(_tell_the_time, "127.0.0.1", 0)
        self._write_flash(clock.sockets[0].getsockname()[1])
        async with clock, running("application", {"root": str(self._root)}, heap=heap) as board:
            await self._with_broker(lambda person: self._commands(board, person))
            await self._until(board, "without the broker", lambda: len(self._spilled()) > 1)
            (self._root / "radar_lost").touch()
            await asyncio.sleep(_LOST_S)
            await self._with_broker(lambda person: self._catch_up(board, person, "without a radar"))
            (self._root / "radar_lost").unlink()
            await self._until(board, "without the broker again", lambda: len(self._spilled()) > 1)
            await self._with_broker(lambda person: self._catch_up(board, person, "with one", SETTINGS))
            self.steps[:0] = [(f"start: {stage}", used) for stage, used in board.of("heap")]
            self.names = next(line for line in board.console if line.startswith("qstr pool"))
            return max(int(most) for _, most in board.of("memory"))

    def _write_flash(self, http_port: int) -> None:
        gateway = {"host": "here", "port": self._port, "http_port": http_port, "server_name": NAME}
        files = {
            "config.json": {
                "device_id": "kitchen",
                "organization_id": "default",
                "gateway": {**gateway, "tls": self._ca is not None},
                "wifi": {"ssid": "home", "password": "secret"},
                "mqtt": {"username": "u", "password": "p"},
            },
            "slot.json": {"active": "a", "confirmed": True, "starts": 1},
            "settings.json": {**SETTINGS, "version": 1, "readings": {"min_interval_ms": 100, "heartbeat_s": 1}},
        }
        for name, value in files.items():
            (self._root / name).write_text(json.dumps(value))
        if self._ca is not None:
            shutil.copy(self._ca.der, self._root / "ca.der")

    async def _with_broker(self, story: Callable[[aiomqtt.Client], Awaitable[None]]) -> None:
        context = None
        if self._ca is not None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate = None if self._ca is None else self._ca.issue(NAME)
        with mosquitto(self._folder / "m", tls=certificate, port=self._port):
            async with aiomqtt.Client("127.0.0.1", self._port, tls_context=context) as person:
                await person.subscribe("#", qos=1)
                listening = asyncio.create_task(self._listen(person))
                try:
                    await story(person)
                finally:
                    listening.cancel()

    async def _listen(self, person: aiomqtt.Client) -> None:
        async for message in person.messages:
            self._heard.append((str(message.topic), json.loads(bytes(message.payload) or b"null")))

    async def _commands(self, board: Board, person: aiomqtt.Client) -> None:
        await self._until(board, "connected", lambda: self._count() >= 5)
        for method in ("read_back", "identify", "crash_log", "radar_parameters", "calibrate_gas"):
            command = {"method": method, "params": {"seconds": 1, "force": True}}
            await person.publish(f"{TOPIC}commands/{method}", json.dumps(command), qos=1)
            await self._until(board, method, partial(self._is_answered, f"{method}/ack"))
        await person.publish(f"{TOPIC}config", b'{"version": 2, "readings": {"heartbeat_s": 0}}', qos=1, retain=True)
        await self._until(board, "settings refused", lambda: "refused" in json.dumps(self._heard))

    async def _catch_up(
        self, board: Board, person: aiomqtt.Client, radar: str, settings: dict[str, Any] | None = None
    ) -> None:
        count = self._count()
        await self._until(board, "connected again", lambda: self._count() > count)
        name = f"again-{radar.replace(' ', '-')}"
        await person.publish(f"{TOPIC}commands/{name}", b'{"method": "read_back"}', qos=1)
        await self._until(board, f"read_back {radar}", partial(self._is_answered, f"{name}/ack"))
        await self._until(board, "caught up", lambda: self._count() > count + 5 and not self._spilled())
        if settings is not None:
            await person.publish(f"{TOPIC}config", json.dumps(settings), qos=1, retain=True)
            await self._until(board, "settings taken", lambda: ["reset"] in board.events)

    def _count(self) -> int:
        return sum(topic.endswith("/telemetry") for topic, _ in self._heard)

    def _spilled(self) -> list[Path]:
        return list((self._root / "spill").glob("*"))

    def _is_answered(self, topic: str) -> bool:
        return any(name.endswith(topic) and body["state"] != "executing" for name, body in self._heard)

    async def _until(self, board: Board, step: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            lines = [line for line in board.console if "MemoryError" in line or "crash log" in line]
            if lines or time.monotonic() > deadline or board.process.returncode is not None:
                raise FailedError(f"{step}: {lines or board.console[-3:]}")
            await asyncio.sleep(0.05)
        used = [now for now, _ in board.of("memory")]
        self.steps.append((step, used[-1] if used else 0))


async def _tell_the_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    told = {"status": "ok", "time_ms": time.time_ns() // 1_000_000, "time_is_right": True}
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(told).encode())
    await writer.drain()
    writer.close()


async def live(heap_kb: int, *, tls: bool) -> tuple[int, list[tuple[str, int]]]:
    """Return what was in use at most, and after each step. Raises FailedError."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), tls=tls)
        return await life.live(f"{heap_kb}k"), life.steps


async def measure(*, tls: bool) -> None:
    """Print the tables."""
    modules = await told("modules", {"stay": STAY, "go": GO})
    for kind, name, size in modules.of("module"):
        print(f"{size:8,}  {name}{' (now and then)' if kind == 'goes' else ''}")
    most, steps = await live(_AMPLE_KB, tls=tls)
    for step, used in [*steps, ("at most, looked at twice a second", most)]:
        print(f"{used:8,}  {step}")
    least, too_little = _AMPLE_KB, 0
    while least - too_little > 2:
        heap_kb = (least + too_little) // 2 if least < _AMPLE_KB else max(too_little, most // 1024) + 8
        try:
            await live(heap_kb, tls=tls)
            least = heap_kb
        except FailedError as error:
            print(f"-X heapsize={heap_kb}k is too little: {error}")
            too_little = heap_kb
    print(f"-X heapsize={least}k is enough")


if __name__ == "__main__":
    asyncio.run(measure(tls="--tls" in sys.argv))
