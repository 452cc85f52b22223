"""Our ingest and our writer, with default settings, for a peer that has a way in of its own."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from gateway.access import Device
from gateway.cli.interpreter import answer_in_time
from gateway.clock import SystemClock
from gateway.config import ClockSettings, IngestSettings, StorageSettings
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.storage.data_dir import DataDir
from gateway.storage.log import Log


class Devices(dict[str, Device]):
    """Whose readings come on a topic; nobody asks whether they may."""

    def __missing__(self, topic: str) -> Device:
        """Take the device id from `neurobuild/sensors/ID/data`."""
        device = self[topic] = Device("default", topic.split("/")[2], '{"room":"1"}')
        return device


@asynccontextmanager
async def own_ingest(folder: Path) -> AsyncIterator[Ingest]:
    """Open the log of a prepared folder, and an ingest into it."""
    clock, metrics = SystemClock(), Metrics()
    window_ms = IngestSettings().dedupe_window_s * 1000
    log_db = DataDir(folder).log_db
    async with Log.create(log_db, StorageSettings(), dedupe_window_ms=window_ms, clock=clock, metrics=metrics) as log:
        yield Ingest(log, clock, metrics, max_skew_ms=ClockSettings().max_skew_s * 1000)


def run(peer: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a peer as the gateway is run: the same event loop, the same interpreter. Ended by SIGTERM."""

    async def until_told() -> None:
        ends = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
        await peer(ends)

    logging.disable()
    answer_in_time()
    uvloop.run(until_told())


def tell_ready(port: int) -> None:
    """Tell who has started this process that it is ready, and by which port it is reached."""
    print(json.dumps({"listening": port}), flush=True)
