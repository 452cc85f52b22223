"""Receives through one integration, for ever: connects, takes in what comes, and connects again when that has ended.

Promises
- a message is acknowledged to the other side only when it is on disk; until then it comes again (`window.py`)
- after an end it waits longer and longer, with jitter, at most 5 min. Only a connection that has held for a while is a
  success: two clients of one name that end each other's connections do so less and less often
- while the store takes nothing there is no connection: what comes is kept by the other side, as far as it does so
- engines share nothing: one that hangs delays no other
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from cloud_sync.backoff import Backoff
from cloud_sync.contract import Gone, IntegrationConfig, NotConnected, Ok, Outcome, Receives, RetryAfter
from cloud_sync.health import Health
from gateway.access import Access
from gateway.clock import Clock
from gateway.config import Settings
from gateway.inbound.reader import Reader
from gateway.inbound.window import Window
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.status import ReceivingStatus

_HOLDS_MS = 30_000
"""A connection that has held for so long was a success."""
_LOOK_FOR_ROOM_S = 1.0
_ENDS_WITHIN_S = 10.0


class Source(Receives, Protocol):
    """An integration that receives, while it is entered."""

    @property
    def config(self) -> IntegrationConfig:
        """Its settings."""
        ...


def receiver(
    settings: Settings, access: Access, ingest: Ingest, clock: Clock, metrics: Metrics
) -> Callable[["Source", str, Health], "Inbound"]:
    """Return what makes an engine: (integration, whose readings it brings, how it does) → it."""

    def receive(integration: Source, organization_id: str, health: Health) -> Inbound:
        gateway_id = settings.gateway.id
        return Inbound(
            integration,
            access,
            ingest,
            clock,
            metrics,
            gateway_id=gateway_id,
            organization_id=organization_id,
            health=health,
        )

    return receive


class Inbound:
    """See the module's own words; every integration that receives runs its own, in its own task."""

    def __init__(
        self,
        integration: Source,
        access: Access,
        ingest: Ingest,
        clock: Clock,
        metrics: Metrics,
        *,
        gateway_id: str,
        organization_id: str,
        health: Health,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        """What comes is that organisation's."""
        self._config = config = integration.config
        # A logger of its own: equal warnings are counted by logger, and two may fail at once.
        self._logger = logging.getLogger(f"{__name__}.{config.name}")
        self._integration = integration
        self._reader = Reader(access, organization_id, integration.hears(), self._hear_unasked)
        self._ingest = ingest
        self._clock = clock
        self._gateway_id = gateway_id
        self._sleep = sleep
        self._backoff = Backoff(random)
        self._health = health
        self._received = 0
        self._received_total = metrics.received.labels(config.name)
        self._unasked_total = metrics.received_unasked.labels(config.name)
        self._has_told_of_unasked = False
        metrics.receiving.labels(config.name).set_function(lambda: float(self._state == "receiving"))
        self._state = "connecting"
        self._problem = ""
        self._failures = 0
        self._began_ms = 0
        self._opened_ms: int | None = None
        """Since when messages can come; None when they cannot."""
        self._next_attempt_ms: int | None = None

    @property
    def error(self) -> str:
        """What its owner must mend; empty when nothing."""
        return self._problem if self._state == "error" or self._opened_ms is not None else ""

    def status(self) -> ReceivingStatus:
        """Say how it goes."""
        waits_ms = self._next_attempt_ms
        return ReceivingStatus(
            self._config.name,
            self._config.type,
            self._state,
            self._received,
            self._failures,
            None if waits_ms is None else max(0.0, (waits_ms - self._clock.monotonic_ms()) / 1000),
            self._problem,
            health=self._health.figures(),
        )

    def forget(self) -> None:
        """Let go of its logger, which would stay for ever; for one that has ended."""
        logging.Logger.manager.loggerDict.pop(self._logger.name, None)

    async def run(self) -> None:
        """Receive until cancelled."""
        while True:
            await self._wait_for_room()
            outcome = await self._receive()
            if isinstance(outcome, StoreFailed):
                self._logger.warning("not stored, so not acknowledged; it will come again: %s", outcome)
                self._state, self._problem = "full", str(outcome)
                await self._sleep(_LOOK_FOR_ROOM_S)
            else:
                await self._wait_after(outcome)

    async def _wait_for_room(self) -> None:
        """Wait while nothing could be stored: what is not asked for is not refused."""
        while self._ingest.is_full:
            self._state, self._problem = "full", "There is no room for anything more: see storage.max_bytes."
            await self._sleep(_LOOK_FOR_ROOM_S)

    async def _receive(self) -> Outcome | StoreFailed:
        """Receive by one connection; returns why it has ended."""
        self._state, self._began_ms, self._opened_ms = "connecting", self._clock.monotonic_ms(), None
        window = Window(
            self._reader,
            self._ingest,
            self._clock,
            self._gateway_id,
            opened=self._hear_opened,
            stored=self._hear_stored,
        )
        receiving = asyncio.ensure_future(self._integration.receive(window))
        answering = asyncio.ensure_future(window.run())
        try:
            await asyncio.wait({receiving, answering}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            return answering.result() or NotConnected("It did not take what its messages are answered with.")
        finally:
            receiving.cancel()  # first: it may still have something to settle
            await asyncio.wait({receiving}, timeout=_ENDS_WITHIN_S)
            window.end()
            answering.cancel()
            await asyncio.wait({answering})

    def _hear_opened(self, problem: str) -> None:
        now_ms = self._clock.monotonic_ms()
        if self._failures or problem:
            self._logger.log(
                logging.WARNING if problem else logging.INFO,
                "receiving%s",
                f", but: {problem}" if problem else " again",
            )
        self._state, self._problem, self._opened_ms = "receiving", problem, now_ms
        self._health.succeeded((now_ms - self._began_ms) / 1000, 0)

    def _hear_stored(self, messages: int, seconds: float) -> None:
        self._received += messages
        self._received_total.inc(messages)
        self._health.succeeded(seconds, messages)

    def _hear_unasked(self, topic: str) -> None:
        self._unasked_total.inc()
        if not self._has_told_of_unasked:
            self._has_told_of_unasked = True
            self._logger.warning(
                "left out what came on %r: none of its topics matches. Name what the broker makes of topics, if it "
                "rewrites them; more of such is only counted",
                topic[:200],
            )

    async def _wait_after(self, outcome: Outcome) -> None:
        """Remember why a connection has ended, and wait as long as it deserves."""
        assert not isinstance(outcome, Ok)
        has_held = self._opened_ms is not None and self._clock.monotonic_ms() - self._opened_ms >= _HOLDS_MS
        self._failures = 1 if has_held else self._failures + 1
        self._health.failed(outcome)
        state = "retrying" if isinstance(outcome, NotConnected | RetryAfter) else "error"
        wait_s = self._backoff.seconds(outcome, self._failures)
        self._logger.log(
            logging.DEBUG if self._failures > 1 and outcome.reason == self._problem else logging.WARNING,
            "not receiving: %s",
            outcome.reason,
            extra={"next_attempt_s": None if isinstance(outcome, Gone) else round(wait_s, 1)},
        )
        self._state, self._problem, self._opened_ms = state, outcome.reason, None
        if isinstance(outcome, Gone):
            await asyncio.get_running_loop().create_future()
        self._next_attempt_ms = self._clock.monotonic_ms() + round(wait_s * 1000)
        try:
            await self._sleep(wait_s)
        finally:
            self._next_attempt_ms = None
