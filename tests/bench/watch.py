"""Looks at a gateway while it works: its memory, its write-ahead log, and how fast it says how it is."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.cli.gateway_link import connect
from gateway.config import load
from gateway.operations.buffer import buffer_status
from tests.bench.answers import answer_ms
from tests.bench.site import Site

_LOOK_S = 0.05
_ASK_S = 1.0


@dataclass(slots=True)
class Seen:
    """What was seen."""

    memory_mb: list[float] = field(default_factory=list)
    wal_mb: list[float] = field(default_factory=list)
    answers_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """How long each question took: a path, or `buffer status`."""

    def slowest(self) -> str:
        """Return the slowest answer to each question, and of how many."""
        return ", ".join(f"{what} {max(times):.0f} ms" for what, times in self.answers_ms.items())


@asynccontextmanager
async def watch(gateway: Site, *, ask: bool = False) -> AsyncIterator[Seen]:
    """Look until the end of the context; with `ask` also put every question once a second."""
    seen = Seen()
    tasks = [asyncio.create_task(_look(gateway, seen))]
    if ask:
        tasks.append(asyncio.create_task(_keep_asking(gateway, seen)))
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def questions(gateway: Site, seen: Seen) -> None:
    """Put each question once."""
    for path in ("/ready", "/metrics"):
        seen.answers_ms[path].append(await answer_ms(gateway.http_port, path))
    settings = load(gateway.config, os.environ).settings
    async with connect(settings) as link:  # what the command does, without the start of its process
        started = time.perf_counter()
        await link.call(buffer_status)
        seen.answers_ms["buffer status"].append((time.perf_counter() - started) * 1000)


async def _look(gateway: Site, seen: Seen) -> None:
    wal = gateway.config.parent / "log.db-wal"
    while True:
        seen.memory_mb.append(gateway.memory_mb())
        seen.wal_mb.append(wal.stat().st_size / 1e6)
        await asyncio.sleep(_LOOK_S)


async def _keep_asking(gateway: Site, seen: Seen) -> None:
    while True:
        await questions(gateway, seen)
        await asyncio.sleep(_ASK_S)
