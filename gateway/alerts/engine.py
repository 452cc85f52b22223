"""Alerts: opened when something goes wrong, counted while it goes on, resolved by themselves when it is well again.

- one alert for each cause: what goes on is counted, and written no more often than every five minutes
- what comes back within a quarter of an hour opens the same alert again, and is not told anew
- one that somebody has resolved stays so until its cause has been away, or the gateway was started again
- whoever is to be told (`on_open`) hears of an alert when it is on disk, and again, also after a restart, if they could
  not take it
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.alerts.watch import KINDS, Looked
from gateway.clock import Clock
from gateway.model.errors import NeurogateError, StoreFailed, StoreFull
from gateway.storage.alerts import AlertRow, Alerts, Cause, Key

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 30.0
_WRITE_EVERY_MS = 5 * 60_000
REOPEN_MS = 15 * 60_000

OnOpen = Callable[[AlertRow], Awaitable[None]]
"""Hears of each alert that opens, once more if it was interrupted; may raise NeurogateError, and hears of it again."""


class AlertEngine:
    """See the module's own words."""

    def __init__(self, store: Alerts, look: Callable[[], Awaitable[Looked]], clock: Clock, *, on_open: OnOpen) -> None:
        self._store = store
        self._look = look
        self._clock = clock
        self._on_open = on_open
        self._present: dict[Key, int] = {}
        """What is wrong, and how often it had happened when that was last written."""
        self._written_ms: dict[Key, int] = {}

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            with suppress(StoreFailed):  # the state says so itself; what is wrong is still so in the next turn
                await self.turn()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def turn(self) -> None:
        """Look, and bring the alerts up to date. Raises StoreFailed."""
        looked = await self._look()
        unresolved = await self._store.unresolved()
        for cause in looked.causes.values():
            if cause.key not in self._present:
                await self._open(cause)
            elif (alert := unresolved.get(cause.key)) is not None:
                await self._goes_on(alert, cause)
        over = [
            alert
            for key, alert in unresolved.items()
            if alert.kind in KINDS and key not in looked.causes and not looked.unknown(key)
        ]
        await self._store.settle(over)
        for key in [key for key in self._present if key not in looked.causes]:
            del self._present[key], self._written_ms[key]
        for alert in over:
            logger.info("alert resolved: %s", alert.message, extra={"kind": alert.kind, "subject": alert.subject})
        await self._tell()

    async def _open(self, cause: Cause) -> None:
        alert, is_new = await self._store.open(cause, reopen_ms=REOPEN_MS)
        if is_new:
            logger.info("alert: %s", alert.message, extra={"kind": alert.kind, "severity": alert.severity})
        self._present[cause.key] = cause.count
        self._written_ms[cause.key] = self._clock.monotonic_ms()

    async def _goes_on(self, alert: AlertRow, cause: Cause) -> None:
        now_ms, counted = self._clock.monotonic_ms(), self._present[cause.key]
        more = cause.count - counted if cause.count >= counted else cause.count
        is_time = now_ms - self._written_ms[cause.key] >= _WRITE_EVERY_MS
        if cause.severity != alert.severity or (is_time and (more or cause.message != alert.message)):
            await self._store.update(alert, cause, more)
            self._present[cause.key], self._written_ms[cause.key] = cause.count, now_ms

    async def _tell(self) -> None:
        for alert in await self._store.untold():
            try:
                await self._on_open(alert)
            except NeurogateError as error:
                logger.warning("nobody could be told of an alert yet: %s", error)
                if isinstance(error, StoreFailed) and not isinstance(error, StoreFull):
                    return
                continue  # an organisation for which too much waits keeps no other from its alerts
            await self._store.was_told(alert)
