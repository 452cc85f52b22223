"""What the gateway takes in from somebody else's broker: messages/s, on disk and acknowledged, and memory.

mosquitto gets readings of 100 boards at QoS 1 by mosquitto_pub, as fast as it takes them, and keeps what we have not
acknowledged. The gateway listens with MQTT 3.1.1, where mosquitto is 20 messages ahead of our answers, and with MQTT 5,
where it is as far ahead as we allow. Memory is of the gateway, before the first message and behind the last one.
"""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

import aiohttp

from tests.bench import site
from tests.bench.brokers import MOSQUITTO, Broker, NotInstalled, broker
from tests.bench.load import payload
from tests.bench.measurements import Row

_BOARDS = 100
_PATIENCE_S = 600
_KEEPS_ALL = "max_queued_messages 0\nset_tcp_nodelay true\n"
_TOPICS = "neurobuild/sensors/+/data"
_INTEGRATION = {"type": "mqtt_external", "name": "bench", "brokerUrl": "127.0.0.1", "topics": _TOPICS}


async def external(folder: Path, *, messages: int, rounds: int) -> list[Row]:
    """Measure it. Raises NotInstalled."""
    if shutil.which("mosquitto_pub") is None:
        raise NotInstalled("mosquitto_pub is not here (Debian: apt install mosquitto-clients); nothing was measured.")
    files = _write(folder, messages)
    table: list[Row] = [("messages in each turn", f"{messages:,} of {_BOARDS} boards")]
    for version in ("3.1.1", "5"):
        turns = [await _turn(folder / f"{version}-{number}", files, messages, version) for number in range(rounds)]
        rates, before, behind, cpu = zip(*turns, strict=True)
        table += [
            (f"MQTT {version}: stored and acknowledged", f"{median(rates):,.0f}/s"),
            ("  CPU for 1,000 messages", f"{median(cpu):.0f} ms"),
            ("  memory before, behind", f"{median(before):.0f}, {median(behind):.0f} MB"),
        ]
    return table


async def _turn(data: Path, files: list[Path], messages: int, version: str) -> tuple[float, float, float, float]:
    await site.prepare(data, devices=_BOARDS, readings=0)
    async with broker(MOSQUITTO, data, mosquitto=_KEEPS_ALL) as running:
        integration = _INTEGRATION | {"port": running.port, "version": version}
        async with site.gateway(data, integrations=[integration]) as gateway, aiohttp.ClientSession() as http:
            await _until(http, gateway, state="receiving")
            before, cpu, began = gateway.memory_mb(), gateway.cpu_seconds(), time.monotonic()
            await asyncio.gather(*(_publish(running, file) for file in files))
            await _until(http, gateway, received=messages)
            took = time.monotonic() - began
            return messages / took, before, gateway.memory_mb(), (gateway.cpu_seconds() - cpu) / messages * 1e6


async def _until(http: aiohttp.ClientSession, gateway: site.Site, **wanted: object) -> None:
    """Ask until it says so."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            async with http.get(f"http://127.0.0.1:{gateway.http_port}/ready") as answer:
                (found,) = (await answer.json())["receiving"]
            if found | wanted == found:
                return
            await asyncio.sleep(0.05)


def _write(folder: Path, messages: int) -> list[Path]:
    """Write what each board publishes, a message a line; return the files, which have the names of their boards."""
    folder.mkdir(parents=True)
    files = [folder / f"bench-{board:04}" for board in range(_BOARDS)]
    for file in files:
        file.write_text("".join(payload(file.name, "b", seq) + "\n" for seq in range(messages // _BOARDS)))
    return files


async def _publish(running: Broker, file: Path) -> None:
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(running.port), "-q", "1", "-l"]
    with file.open() as lines:
        publishing = await asyncio.create_subprocess_exec(
            *command, "-t", f"neurobuild/sensors/{file.name}/data", stdin=lines
        )
    if await publishing.wait():
        raise subprocess.CalledProcessError(publishing.returncode or 1, command)
