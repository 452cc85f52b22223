"""The examples are run as they stand: they come in over TLS, and an outage of the gateway costs none of their readings.

MicroPython and mqtt.js are real; the sketch is compiled for this machine, and what it asks of the board is `arduino/`.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomqtt

from gateway.operations.certificates import show_certificates
from gateway.operations.credentials import add_credential
from gateway.storage.state import DeviceCredential
from tests.firmware.board_process import MICROPYTHON
from tests.gateway_process import ROOT
from tests.ports import free_port
from tests.site import Site, running_site
from tests.tls.site import present

EXAMPLES = ROOT / "firmware" / "examples"
BOARD = Path(__file__).parent / "arduino"
WAIT_S = 30
EVERY_S = 0.25
OUTAGE_S = 4 * EVERY_S

Command = tuple[str | Path, ...]


@dataclass
class Place:
    """A gateway's data and ports, and the folder in which an example runs."""

    folder: Path
    mqtt_port: int
    http_port: int
    devices: dict[str, DeviceCredential]
    authorities: list[str]
    """PEM."""

    def example(self, name: str, file: str, replaced: dict[str, str]) -> Path:
        """Put an example into a folder, with what it has to be told; each of these texts is in it once."""
        folder = self.folder / name
        folder.mkdir()
        text = (EXAMPLES / name / file).read_text("utf-8")
        for old, new in replaced.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        credential = self.devices[name]
        told = {key: getattr(credential, key) for key in ("device_id", "username", "password", "topics")}
        (folder / "device.json").write_text(json.dumps(told))
        (folder / "ca.pem").write_text("".join(self.authorities))
        for der, pem in zip(("ca.der", "ca-next.der"), self.authorities, strict=True):
            (folder / der).write_bytes(ssl.PEM_cert_to_DER_cert(pem))
        path = folder / Path(file).name
        path.write_text(text, "utf-8")
        return path


async def python(place: Place) -> Command:
    program = place.example(
        "python", "sensor.py", {"PORT = 8883": f"PORT = {place.mqtt_port}", "EVERY_S = 10": f"EVERY_S = {EVERY_S}"}
    )
    return sys.executable, program, "127.0.0.1", "device.json", "ca.pem"


async def node(place: Place) -> Command:
    program = place.example(
        "node", "sensor.js", {"PORT = 8883": f"PORT = {place.mqtt_port}", "EVERY_S = 10": f"EVERY_S = {EVERY_S}"}
    )
    return "node", program, "127.0.0.1", "device.json", "ca.pem"


async def micropython(place: Place) -> Command:
    address = 'HOST, PORT = "raspberrypi.local", 8883'
    replaced = {address: f'HOST, PORT = "127.0.0.1", {place.mqtt_port}', "EVERY_S = 10": f"EVERY_S = {EVERY_S}"}
    return MICROPYTHON, place.example("micropython", "main.py", replaced)


async def arduino(place: Place) -> Command:
    credential = place.devices["arduino"]
    sketch = place.example(
        "arduino",
        "sensor/sensor.ino",
        {
            "raspberrypi.local:8443": f"127.0.0.1:{place.http_port}",
            "esp32-hall": credential.device_id,
            'DEVICE_PASSWORD = "PASSWORD"': f'DEVICE_PASSWORD = "{credential.password}"',
            "what `neurogate certs show --ca` prints, all of it\n": "".join(place.authorities),
            "EVERY_MS = 10000": f"EVERY_MS = {EVERY_S * 1000:.0f}",
        },
    )
    board = sketch.with_name("board")
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", BOARD, f'-DSKETCH="{sketch}"')
    compiler = await asyncio.create_subprocess_exec("g++", *flags, BOARD / "board.cpp", "-o", board)
    assert await asyncio.wait_for(compiler.wait(), 60) == 0
    return (board,)


PREPARED = {"python": python, "node": node, "micropython": micropython, "arduino": arduino}
NAMES = tuple(PREPARED)


@asynccontextmanager
async def running(folder: Path, *command: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    libraries = os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), "/usr/share/nodejs"]))  # Debian's
    with (folder / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=os.environ | {"NODE_PATH": libraries}, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def gateway(place: Place) -> AsyncIterator[Site]:
    async with running_site(
        place.folder / "data",
        kitchen=place.devices.get("python"),
        clock=present(),
        mqtt={"tls_port": place.mqtt_port},
        http={"tls_port": place.http_port, "rate_limit_per_minute": 0},
    ) as site:
        yield site


async def stored(site: Site) -> dict[str, list[int]]:
    """Return of each device the numbers of its readings, in the order of the log."""
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    boots: dict[str, set[str | None]] = {name: set() for name in NAMES}
    for one in await site.log.read(0, limit=100_000):
        assert one.seq is not None
        found[one.device_id].append(one.seq)
        boots[one.device_id].add(one.boot_id)
    assert all(len(of_one) <= 1 for of_one in boots.values())
    return found


async def await_each(site: Site, more_than: dict[str, list[int]], count: int) -> dict[str, list[int]]:
    """Return what is stored once there are `count` more of each."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await stored(site)
            if all(len(found[name]) >= len(more_than[name]) + count for name in NAMES):
                return found
            await asyncio.sleep(0.1)


async def heard(statuses: aiomqtt.Client, status: str) -> None:
    """Return when the three that speak MQTT have said that."""
    missing = {f"devices/{name}/status" for name in NAMES if name != "arduino"}
    async with asyncio.timeout(WAIT_S):
        async for message in statuses.messages:
            assert isinstance(message.payload, bytes)
            if json.loads(message.payload) == {"status": status}:
                missing.discard(str(message.topic))
            if not missing:
                return


async def test_an_outage_costs_no_reading_and_who_is_gone_is_said_to_be_offline(tmp_path: Path) -> None:
    place = Place(tmp_path, free_port(), free_port(), {}, [])
    async with AsyncExitStack() as stack:
        async with gateway(place) as site:
            place.devices |= {name: await site.gateway.add_device(name) for name in NAMES}
            known = await site.command(show_certificates)
            place.authorities += [one.pem for one in known if one.role != "server"]
            hub = await site.command(add_credential, name="panel", organization_id="default")
            examples = []
            for name, prepare in PREPARED.items():
                command = await prepare(place)
                examples.append(await stack.enter_async_context(running(place.folder / name, *command)))
            before = await await_each(site, {name: [] for name in NAMES}, 2)
        await asyncio.sleep(OUTAGE_S)
        async with gateway(place) as site:
            found = await await_each(site, before, 6)
            async with aiomqtt.Client(
                "127.0.0.1", site.mqtt_port, username=hub.username, password=hub.password
            ) as statuses:
                await statuses.subscribe("devices/+/status", qos=1)
                await heard(statuses, "online")
                for example in examples:
                    example.kill()
                await heard(statuses, "offline")
    for name, numbers in found.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), name
