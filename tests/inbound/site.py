"""What an engine that receives gets: a log and a state on disk, a time that passes only in sleeps, and another side."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_sync.contract import Hearing, Inbox, Incoming, IntegrationConfig, NotConnected, Outcome
from cloud_sync.health import Health
from gateway.access import Access
from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.inbound.engine import Inbound, Source
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.reading import NewQuarantine, StoredReading
from gateway.storage.log import Log
from gateway.storage.state import State

KEY = bytes(range(32))
ORGANIZATION = "acme"


class OtherSide:
    """A broker with a session that lasts: what was not acknowledged comes again by the next connection."""

    def __init__(self, *outcomes: Outcome, hearing: Hearing | None = None, at_once: int = 50) -> None:
        self.config = IntegrationConfig(type="scripted", name="plant")
        self.hearing = hearing or Hearing(("#", "$sys/#"))
        self.outcomes = list(outcomes)
        self.at_once = at_once
        self.queued: list[Incoming] = []
        self.acknowledged: list[bytes] = []
        self.replies: list[tuple[str, bytes]] = []
        self.log: list[str] = []
        """`reply` and `ack`, as they came."""
        self.takes_replies = True
        self.connections = 0
        self.handed_in = 0
        self._more = asyncio.Event()
        self._cut = asyncio.Event()

    def publish(self, payload: bytes, topic: str = "plant/hall", *, cut_bytes: int = 0) -> None:
        self.queued.append(Incoming(topic, payload, cut_bytes=cut_bytes))
        self._more.set()

    def cut(self) -> None:
        """Let the connection end."""
        self._cut.set()

    def hears(self) -> Hearing:
        return self.hearing

    async def receive(self, inbox: Inbox) -> Outcome:
        self.connections += 1
        if self.outcomes:
            return self.outcomes.pop(0)
        inbox.opened(self)
        self._cut.clear()
        sent: list[Incoming] = []
        ending = asyncio.create_task(self._cut.wait())
        try:
            while not ending.done():
                new = [one for one in self.queued if one not in sent][: self.at_once]
                if new:
                    sent += new
                    self.handed_in += len(new)
                    taking = asyncio.create_task(inbox.take(new))
                    await asyncio.wait({taking, ending}, return_when=asyncio.FIRST_COMPLETED)
                    taking.cancel()
                    continue
                self._more.clear()
                waiting = asyncio.create_task(self._more.wait())
                await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        except asyncio.CancelledError:
            await inbox.settled()
            raise
        finally:
            ending.cancel()
        return NotConnected("cut")

    async def acknowledge(self, messages: Sequence[Incoming]) -> bool:
        for one in messages:
            assert self.queued.pop(0) is one, "acknowledged out of order"
            self.acknowledged.append(one.payload)
            self.log.append("ack")
        return True

    async def reply(self, topic: str, payload: bytes) -> bool:
        if self.takes_replies:
            self.replies.append((topic, payload))
            self.log.append("reply")
        return self.takes_replies


@dataclass
class Site:
    """See the module's own words."""

    log: Log
    access: Access
    clock: ManualClock
    ingest: Ingest
    metrics: Metrics
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(math.ceil(seconds * 1000))
        await asyncio.sleep(0.001)

    def inbound(self, source: Source, **more: Any) -> Inbound:
        return Inbound(
            source,
            self.access,
            self.ingest,
            self.clock,
            self.metrics,
            gateway_id="site-1",
            organization_id=ORGANIZATION,
            health=Health("plant", self.clock, self.metrics),
            **({"sleep": self.sleep, "random": lambda: 1.0} | more),
        )

    @asynccontextmanager
    async def receiving(self, source: Source, **more: Any) -> AsyncIterator[Inbound]:
        inbound = self.inbound(source, **more)
        task = asyncio.create_task(inbound.run())
        try:
            yield inbound
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def stored(self) -> list[StoredReading]:
        return await self.log.read(0, limit=10_000)

    async def quarantined(self) -> list[NewQuarantine]:
        return [entry for _, entry in await self.log.quarantined()]


@asynccontextmanager
async def open_site(folder: Path, **storage: Any) -> AsyncIterator[Site]:
    clock, metrics = ManualClock(), Metrics()
    settings = StorageSettings.model_validate(storage)
    create = Log.create(folder / "log.db", settings, dedupe_window_ms=60_000, clock=clock, metrics=metrics)
    async with create as log, State.open(folder / "state.db", KEY, clock=clock) as state:
        access = Access(state, KEY, clock)
        await access.refresh()
        yield Site(log, access, clock, Ingest(log, clock, metrics, max_skew_ms=300_000), metrics)
