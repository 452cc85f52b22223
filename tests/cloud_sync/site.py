"""A forwarder's surroundings: a log on disk, a time that passes only in sleeps, and destinations."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import Batch, IntegrationConfig, NotConnected, Ok, Outcome, TooLarge
from cloud_sync.forwarder import Destination, Forwarder
from cloud_sync.integrations.webhook import Webhook
from gateway.clock import ManualClock, SystemClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.storage.log import Log
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, STANDARD_SECRET

DOWN = NotConnected("away")


class Scripted:
    """A destination that answers as it was told, and Ok after that."""

    def __init__(self, *answers: Outcome, takes_at_most: int | None = None, **settings: Any) -> None:
        settings = {
            "type": "scripted",
            "name": "cloud",
            "start": "oldest",
            "rate_limit_per_minute": 0,
        } | settings
        self.config = IntegrationConfig.model_validate(settings)
        self.sent: list[tuple[Batch, bytes]] = []
        self.accepted: list[int] = []
        self.dialect = b""
        self._answers = list(answers)
        self._takes_at_most = takes_at_most

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def encode(self, batch: Batch) -> bytes:
        return self.dialect + b",".join(b"%d" % reading.row for reading in batch.readings)

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        self.sent.append((batch, body))
        if self._takes_at_most is not None and len(batch.readings) > self._takes_at_most:
            return TooLarge("too much")
        outcome = self._answers.pop(0) if self._answers else Ok()
        if outcome == Ok():
            self.accepted += [reading.row for reading in batch.readings]
        return outcome

    @property
    def ids(self) -> list[str]:
        return [batch.id for batch, _ in self.sent]

    @property
    def sizes(self) -> list[int]:
        return [len(batch.readings) for batch, _ in self.sent]


@dataclass
class Site:
    """What a forwarder gets: a log on disk, metrics, and a time that passes only in sleeps."""

    log: Log
    metrics: Metrics = field(default_factory=Metrics)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW_MS))
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(math.ceil(seconds * 1000))
        await asyncio.sleep(0)

    def forwarder(self, destination: Destination) -> Forwarder:
        return Forwarder(
            destination, self.log, self.clock, self.metrics, "site-1", sleep=self.sleep, random=lambda: 1.0
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"destination": "cloud"} | labels)


@asynccontextmanager
async def open_site(path: Path) -> AsyncIterator[Site]:
    metrics = Metrics()
    async with Log.create(
        path, StorageSettings(), clock=ManualClock(NOW_MS), metrics=metrics, tell=lambda _: None
    ) as log:
        yield Site(log, metrics)


@asynccontextmanager
async def running(forwarder: Forwarder) -> AsyncIterator[Forwarder]:
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def deliver_all(site: Site, destination: Scripted) -> Forwarder:
    """Run until everything is delivered and return the forwarder, stopped."""
    async with running(site.forwarder(destination)) as forwarder:
        await until(
            lambda: (
                forwarder._standing.state == "idle"
                and forwarder._backlog is None
                and forwarder._live.position == site.log.last_row
            )
        )
    return forwarder


def webhook(name: str, server: TestServer, **settings: Any) -> Webhook:
    settings = {"type": "webhook", "name": name, "start": "oldest", "secret": STANDARD_SECRET} | settings
    return Webhook(
        Webhook.Config.model_validate(settings | {"url": str(server.make_url("/hook"))}), SystemClock(), ANYWHERE
    )


@asynccontextmanager
async def serving(post: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_post("/hook", post)
    server = TestServer(app)
    async with server:
        yield server
