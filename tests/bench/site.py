"""A gateway to be measured: a process of its own, on a data directory that was filled before."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.credentials import Credentials
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.log import Log
from gateway.storage.state import State
from tests.bench import process
from tests.bench.load import payload

_START_S = 60
_FILL_AT_ONCE = 5_000

_CONFIG = """\
version = 1
[gateway]
data_dir = "{data_dir}"
[mqtt]
host = "127.0.0.1"
port = 0
websocket_port = 0
tls_port = 0
[http]
host = "127.0.0.1"
port = 0
tls_port = 0
[storage]
max_bytes = 20_000_000_000
commit_max_delay_ms = {commit_max_delay_ms}
[egress]
policy = "any"
[log]
format = "json"
"""

_WEBHOOK = """\
[[integrations]]
type = "webhook"
name = "{name}"
url = "http://127.0.0.1:{port}/"
secret = "${{file:{secret}}}"
rate_limit_per_minute = {rate_limit}
"""


@dataclass(slots=True, frozen=True)
class Destination:
    """A webhook that the gateway delivers to."""

    port: int
    name: str = "bench"
    rate_limit: int = 0
    """Requests per minute; 0 lifts the limit."""


@dataclass(slots=True, frozen=True)
class Site:
    """A running gateway."""

    pid: int
    mqtt_port: int
    http_port: int
    config: Path

    def cpu_seconds(self) -> float:
        """Return the processor time the gateway has used."""
        return process.cpu_seconds(self.pid)

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return process.memory_mb(self.pid)


async def prepare(folder: Path, *, devices: int, readings: int, age_s: float = 0, behind: Sequence[str] = ()) -> Path:
    """Register devices and fill the log with readings of theirs; returns the file with the devices' logins.

    The readings were received evenly over the last `age_s`; the destinations in `behind` have got none of them.
    """
    data_dir = DataDir(folder).ensure()
    key = load_or_create_key(data_dir.password_key)
    logins = []
    async with State.open(data_dir.state_db, key, clock=SystemClock()) as state:
        for number in range(devices):
            made = await state.add_device("default", f"bench-{number:04}", {"room": f"{number % 40}"})
            logins.append({"device_id": made.device_id, "username": made.username, "password": made.password})
    async with Log.create(data_dir.log_db, StorageSettings(), clock=SystemClock(), metrics=Metrics()) as log:
        for name in behind:
            await log.open_cursor(name, start="oldest")
        now_ms = SystemClock().now_ms()
        for first in range(0, readings, _FILL_AT_ONCE):
            batch = []
            for number in range(first, min(first + _FILL_AT_ONCE, readings)):
                received_ms = now_ms - round(age_s * 1000 * (1 - number / readings))
                batch.append(_reading(log, logins[number % devices]["device_id"], number, received_ms))
            await log.append(batch)
    logins_file = folder / "logins.json"
    logins_file.write_text(json.dumps(logins))
    return logins_file


@contextmanager
def copied(prepared: Path) -> Iterator[Path]:
    """A copy of a prepared folder, on disk, for one turn: no turn finds what another has left."""
    folder = prepared.with_name("turn")
    shutil.copytree(prepared, folder)
    try:
        for file in filter(Path.is_file, folder.rglob("*")):
            with file.open("rb") as copy:  # pages that are still to be written cost whoever writes to them nothing
                os.fsync(copy.fileno())
        yield folder
    finally:
        shutil.rmtree(folder)


async def add_hub(folder: Path) -> dict[str, str]:
    """Register a credential of the organisation, which may hear all of its devices; returns its login."""
    return await _add_credential(folder, "hub", "default")


async def add_owner(folder: Path) -> dict[str, str]:
    """Register a credential of the site, which may hear everything; returns its login."""
    return await _add_credential(folder, "owner", None)


async def _add_credential(folder: Path, name: str, organization_id: str | None) -> dict[str, str]:
    data_dir = DataDir(folder)
    key = load_or_create_key(data_dir.password_key)
    async with State.open(data_dir.state_db, key, clock=SystemClock()) as state:
        made = await Credentials(state).add(name, organization_id)
    return {"username": made.username, "password": made.password}


def _reading(log: Log, device_id: str, number: int, received_ms: int) -> NewReading:
    return NewReading(
        log.stream("default", device_id, "filled"),
        number,
        received_ms,
        TimeSource.DEVICE,
        received_ms,
        0,
        payload(device_id, "filled", number).encode(),
        metadata='{"room":"1"}',
    )


@asynccontextmanager
async def gateway(
    folder: Path,
    *destinations: Destination | None,
    commit_max_delay_ms: int = 0,
    integrations: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[Site]:
    """Run the gateway on a prepared folder."""
    config = folder / "neurogate.toml"
    text = _CONFIG.format(data_dir=folder, commit_max_delay_ms=commit_max_delay_ms)
    for destination in filter(None, destinations):
        text += _WEBHOOK.format(**asdict(destination), secret=folder / "webhook.secret")
    for settings in integrations:
        text += "[[integrations]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    config.write_text(text)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "run", "-c", str(config)), stderr=asyncio.subprocess.PIPE
    )
    reading = None
    try:
        site = await asyncio.wait_for(_started(running, config), _START_S)
        assert running.stderr is not None
        reading = asyncio.create_task(_read_away(running.stderr))
        yield site
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await process.stop(running)


async def _read_away(stderr: asyncio.StreamReader) -> None:
    """Take what it logs: when the pipe is full, it would wait."""
    while await stderr.read(65_536):
        pass


def write_secret(folder: Path) -> Path:
    """Write what signs the deliveries of a gateway on this folder; returns the file."""
    secret = folder / "webhook.secret"
    secret.write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=")
    return secret


@asynccontextmanager
async def receiver(folder: Path) -> AsyncIterator[int]:
    """Run the webhook receiver that verifies every signature; yields its port."""
    secret = write_secret(folder)
    async with process.listening("cloud_sync.receiver", "--port", 0, "--secret-file", secret) as port:
        yield port


async def load(port: int, logins_file: Path, **options: object) -> dict[str, float]:
    """Run the load generator as a process of its own, with these options of it; returns what it measured."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", f"--port={port}", f"--devices-file={logins_file}"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await running.communicate()
    measured: dict[str, float] = json.loads(output)
    return measured


async def _started(running: asyncio.subprocess.Process, config: Path) -> Site:
    assert running.stderr is not None
    while line := await running.stderr.readline():
        event = json.loads(line)
        if event.get("mqtt_port"):
            return Site(running.pid, event["mqtt_port"], event["http_port"], config)
    raise RuntimeError("the gateway did not start")
