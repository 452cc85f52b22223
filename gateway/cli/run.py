"""`neurogate run`: the gateway, until SIGTERM or Ctrl-C."""

import asyncio
import os
import signal
from typing import Annotated

import typer
import uvloop

from gateway import logs
from gateway.app import Gateway
from gateway.cli.boards import simulated_boards
from gateway.cli.options import ConfigFile
from gateway.config import Settings, load
from gateway.sources.simulator import simulate


def run(
    config: ConfigFile = None,
    boards: Annotated[int, typer.Option("--simulate", min=0, max=1_000, help="Simulated boards to add.")] = 0,
) -> None:
    """Run the gateway."""
    settings = load(config, os.environ).settings
    logs.configure(settings.log.level, settings.log.format)
    uvloop.run(_run(settings, boards))


async def _run(settings: Settings, boards: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(settings)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gateway.run(stop, ready=ready.set), name="gateway")
        if boards:
            simulation = tasks.create_task(_simulate(gateway, ready, settings, boards), name="simulation")
            running.add_done_callback(lambda _: simulation.cancel())


async def _simulate(gateway: Gateway, ready: asyncio.Event, settings: Settings, boards: int) -> None:
    await ready.wait()
    await simulate(await simulated_boards(gateway, settings.gateway.data_dir / "boards.json", boards))
