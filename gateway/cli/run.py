"""`neurogate run`: the gateway, until SIGTERM or Ctrl-C."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Annotated

import typer
import uvloop

from gateway import logs
from gateway.app import Gateway
from gateway.cli.boards import simulated_boards
from gateway.cli.interpreter import answer_in_time
from gateway.cli.options import ConfigFile
from gateway.config import Settings, load
from gateway.service_manager import ServiceManager
from gateway.sources.simulator import simulate
from gateway.wanted_integrations import check_integrations


def run(
    config: ConfigFile = None,
    boards: Annotated[int, typer.Option("--simulate", min=0, max=1_000, help="Simulated boards to add.")] = 0,
) -> None:
    """Run the gateway."""
    loaded = load(config, os.environ)
    settings = loaded.settings
    check_integrations(settings, loaded.origins)
    logs.configure(settings.log.level, settings.log.format)
    answer_in_time()
    uvloop.run(_run(settings, boards))


async def _run(settings: Settings, boards: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(settings)
    ready = asyncio.Event()
    simulation = asyncio.create_task(_simulate(gateway, ready, settings, boards), name="simulation")
    simulation.add_done_callback(lambda _: stop.set())  # it ends only by an error, or because we end it
    manager = ServiceManager(os.environ, gateway.makes_progress, gateway.status)
    telling = asyncio.create_task(manager.keep_told(ready, stop), name="service manager")
    try:
        await gateway.run(stop, ready=ready.set)
    finally:
        simulation.cancel()
        telling.cancel()
    with suppress(asyncio.CancelledError):
        await simulation


async def _simulate(gateway: Gateway, ready: asyncio.Event, settings: Settings, boards: int) -> None:
    """Let boards measure, once the gateway is ready for them; without boards, wait to be cancelled."""
    await ready.wait()
    sensors = await simulated_boards(gateway, settings.gateway.data_dir / "boards.json", boards) if boards else []
    await simulate(sensors)
    await asyncio.Event().wait()
