"""The brokers that are compared, each a process of its own on a free port of 127.0.0.1.

neurogate as it is run, with its default settings, on disk; mosquitto and stock amqtt for anybody, storing nothing.
amqtt gets what makes it fastest: uvloop, and no plugin but the one that lets everybody in.
"""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench import process, site

NEUROGATE, MOSQUITTO, AMQTT = "neurogate", "mosquitto", "amqtt"
BROKERS = (NEUROGATE, MOSQUITTO, AMQTT)

_START_S = 20
_MOSQUITTO_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest none
"""
QUEUES_LIFTED = """\
max_queued_messages 0
max_inflight_messages 20000
set_tcp_nodelay true
"""
"""Lines for a mosquitto that keeps whatever its subscriber has not taken yet, and sends far ahead of its answers."""


class NotInstalled(Exception):
    """A broker is missing; the message says which, and where it comes from."""


@dataclass(slots=True, frozen=True)
class Broker:
    """A running broker."""

    pid: int
    port: int


def find_mosquitto() -> str:
    """Return the path of mosquitto. Raises NotInstalled."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise NotInstalled("mosquitto is not here (Debian: apt install mosquitto); nothing was measured.")
    return found


def versions() -> str:
    """Return what it is compared to."""
    told = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout
    return f"{told.splitlines()[0].replace(' version', '')}, amqtt {version('amqtt')} with uvloop {version('uvloop')}"


@asynccontextmanager
async def broker(name: str, folder: Path, *, mosquitto: str = "") -> AsyncIterator[Broker]:
    """Run one of the BROKERS; neurogate in a prepared folder, mosquitto with these lines too. Raises NotInstalled."""
    if name == NEUROGATE:
        async with site.gateway(folder) as gateway:
            yield Broker(gateway.pid, gateway.mqtt_port)
        return
    port = _free_port()
    if name == MOSQUITTO:
        config = folder / "mosquitto.conf"
        config.write_text(_MOSQUITTO_CONFIG.format(port=port) + mosquitto)
        command = [find_mosquitto(), "-c", str(config)]
    else:
        command = [sys.executable, "-m", "tests.bench.stock_amqtt", str(port)]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _listens(port)
        yield Broker(running.pid, port)
    finally:
        await process.stop(running)


def _free_port() -> int:
    """Return a port that nobody has; neither broker tells which one it took."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def _listens(port: int) -> None:
    ends = time.monotonic() + _START_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
