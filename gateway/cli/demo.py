"""`neurogate demo`: the whole job on one machine, with simulated boards and a webhook receiver of its own.

- it lives in one folder, with an ordinary configuration in it: other commands work there with `--config`
- a second run in the same folder goes on where the first one ended
- everything listens on 127.0.0.1 only; a port that is taken is replaced by a free one
- it ends by Ctrl-C, SIGTERM or `--for`: boards first, the receiver last, so that the last readings arrive
"""

import asyncio
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.text import Text

from gateway import logs
from gateway.app import Gateway
from gateway.cli.boards import simulated_boards, write_private
from gateway.cli.live import show_live
from gateway.config import load
from gateway.model.errors import AlreadyExists, NeurogateError
from gateway.model.status import GatewayStatus
from gateway.sources.simulator import SimulatedSensor, simulate
from gateway.storage.data_dir import DataDir

_HOST = "127.0.0.1"
_START_S = 30.0  # a Pi with a slow card takes its time
_LAST_DELIVERY_S = 3.0

_SIGN = "# Written by `neurogate demo` at every start; other commands use it with --config."
_CONFIG = """\
{sign}
version = 1

[gateway]
id = "demo"
data_dir = "."

[mqtt]
host = "{host}"
port = {mqtt_port}
websocket_port = 0
tls_port = 0

[http]
host = "{host}"
port = {http_port}
tls_port = 0

[egress]
allow = ["{host}"]

[log]
level = "info"
format = "text"

[[integrations]]
type = "webhook"
name = "demo-receiver"
url = "http://{host}:{receiver_port}/"
secret = "${{file:webhook.secret}}"
rate_limit_per_minute = 0
"""


@dataclass(slots=True, frozen=True)
class Folder:
    """What the demo keeps; the gateway's own files are beside it."""

    path: Path

    @property
    def config(self) -> Path:
        """An ordinary configuration."""
        return self.path / "neurogate.toml"

    @property
    def log(self) -> Path:
        """What the gateway says of itself: on the terminal it would disturb the live view."""
        return self.path / "neurogate.log"

    @property
    def secret(self) -> Path:
        """Signs the webhooks."""
        return self.path / "webhook.secret"

    @property
    def boards(self) -> Path:
        """Username and password by device, as each board would keep its own in its flash."""
        return self.path / "boards.json"


def demo(
    sensors: Annotated[int, typer.Option(min=1, max=1_000, help="Simulated boards.")] = 8,
    data_dir: Annotated[Path, typer.Option(help="Its folder; made when missing.")] = Path("demo-data"),
    seconds: Annotated[float | None, typer.Option("--for", min=0, metavar="SECONDS", help="End by itself.")] = None,
    mqtt_port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 1883,
    http_port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 8080,
) -> None:
    """Run a whole gateway with simulated boards and a webhook receiver."""
    console = Console()
    folder = Folder(data_dir)
    _prepare(folder)
    ports = _free(mqtt_port, "MQTT", console), _free(http_port, "HTTP", console)
    with folder.log.open("a", encoding="utf-8") as log:
        logs.configure("info", "text", log)
        asyncio.run(_run(folder, ports, sensors, seconds, console))


def _prepare(folder: Folder) -> None:
    if folder.config.exists() and not folder.config.read_text("utf-8").startswith(_SIGN):
        raise AlreadyExists(
            f"{folder.config} is not of a demo, and the demo would overwrite it.",
            hint="Choose another --data-dir.",
        )
    DataDir(folder.path).ensure()
    if not folder.secret.exists():
        write_private(folder.secret, f"whsec_{b64encode(secrets.token_bytes(32)).decode()}\n")


def _write_config(folder: Folder, *, mqtt_port: int, http_port: int, receiver_port: int) -> None:
    ports = {"mqtt_port": mqtt_port, "http_port": http_port, "receiver_port": receiver_port}
    folder.config.write_text(_CONFIG.format(sign=_SIGN, host=_HOST, **ports), encoding="utf-8")


def _free(port: int, what: str, console: Console) -> int:
    """Return the port, or a free one when it is taken, and say so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener will
        try:
            probe.bind((_HOST, port))
        except OSError:
            probe.bind((_HOST, 0))
            console.print(f"{what} port {port} is taken; using {probe.getsockname()[1]}.", highlight=False)
        free: int = probe.getsockname()[1]
    return free


async def _run(folder: Folder, ports: tuple[int, int], sensors: int, seconds: float | None, console: Console) -> None:
    stop = _stop_signal(seconds)
    async with _receiver(folder.secret) as receiver_port:
        mqtt_port, http_port = ports
        _write_config(folder, mqtt_port=mqtt_port, http_port=http_port, receiver_port=receiver_port)
        gateway = Gateway(load(folder.config, os.environ).settings)
        async with _running(gateway, stop):
            status = await gateway.status()
            boards = await simulated_boards(gateway, folder.boards, sensors)
            _say_where_to_look(console, folder, status, boards[0], receiver_port)
            async with asyncio.TaskGroup() as tasks:
                simulation = tasks.create_task(simulate(boards), name="simulate")
                await show_live(gateway.status, console=console, stop=stop)
                simulation.cancel()
            status = await _delivered(gateway)
            stats = await _receiver_stats(receiver_port)
    _say_what_happened(console, folder, status, stats)


def _stop_signal(seconds: float | None) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if seconds is not None:
        loop.call_later(seconds, stop.set)
    return stop


@asynccontextmanager
async def _receiver(secret: Path) -> AsyncIterator[int]:
    """Run the webhook receiver as a process of its own; yield its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cloud_sync.receiver", "--port", "0", "--secret-file", str(secret)),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: it ends last
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        if not line:
            raise NeurogateError("The webhook receiver of the demo did not start.", hint="It said why above.")
        yield json.loads(line)["listening"]
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def _running(gateway: Gateway, stop: asyncio.Event) -> AsyncIterator[None]:
    """Run the gateway; one that ends by itself sets `stop`, and its error comes out here."""
    halt, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(gateway.run(halt, ready=ready.set), name="gateway")
    running.add_done_callback(lambda _: ready.set())
    running.add_done_callback(lambda _: stop.set())
    try:
        await asyncio.wait_for(ready.wait(), _START_S)
        if not running.done():
            yield
    finally:
        halt.set()
        await running


async def _delivered(gateway: Gateway) -> GatewayStatus:
    """Give the last readings a moment to arrive, then take stock."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_DELIVERY_S):
            while any(one.undelivered for one in (await gateway.status()).destinations):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a snapshot cannot be waited for
    return await gateway.status()


async def _receiver_stats(port: int) -> dict[str, int]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{_HOST}:{port}/stats") as answer:
        stats: dict[str, int] = await answer.json()
    return stats


def _say_where_to_look(
    console: Console, folder: Folder, status: GatewayStatus, board: SimulatedSensor, receiver_port: int
) -> None:
    http = f"http://{_HOST}:{status.http_port}"
    login = shlex.join(("-u", board.username, "-P", board.password, "-t", board.topic))
    program = "neurogate" if shutil.which("neurogate") else sys.argv[0]
    lines = (
        ("health", f"{http}/health"),
        ("ready", f"{http}/ready"),
        ("metrics", f"{http}/metrics"),
        ("receiver", f"http://{_HOST}:{receiver_port}/stats"),
        ("one board", f"mosquitto_sub -h {_HOST} -p {status.mqtt_port} {login}"),
        ("readings", f"{program} tail --config {shlex.quote(str(folder.config))}"),
        ("its log", f"tail -f {shlex.quote(str(folder.log))}"),
        ("stop", "Ctrl-C"),
    )
    for name, where in lines:
        console.print(Text.assemble((f" {name:<10}", "dim"), where), soft_wrap=True)


def _say_what_happened(console: Console, folder: Folder, status: GatewayStatus, stats: dict[str, int]) -> None:
    delivered = sum(one.delivered for one in status.destinations)
    undelivered = sum(one.undelivered for one in status.destinations)
    words = (
        f"{status.ingested:,} readings stored, {delivered:,} delivered, {status.duplicates:,} duplicates, "
        f"{undelivered:,} undelivered. The receiver counted {stats['unique']:,} different readings and "
        f"{stats['signature_failures']:,} bad signatures. Everything is in {folder.path}; "
        "the next demo goes on there."
    )
    console.print(words, soft_wrap=True, markup=False, highlight=False)
