"""Keeps a long-lived part running: a part that crashes is restarted with backoff, and everybody can see it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.metrics import Metrics

logger = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_HEALTHY_AFTER_S = 60.0


class Supervisor:
    """Runs parts as named tasks. `failing` says which of them wait for their next start, and why.

    It says the kind of error and not its words: anybody may ask, and there might be anything in them.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.failing: dict[str, str] = {}

    async def keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part until it returns or is cancelled; a crash is logged, counted and followed by a restart."""
        wait_s = _FIRST_WAIT_S
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self.failing.pop(name, None)
            try:
                await run()
            except Exception as error:
                logger.exception("part crashed: %s", name)
                self.failing[name] = f"{type(error).__name__}; the log says more"
            else:
                return
            if loop.time() - started > _HEALTHY_AFTER_S:
                wait_s = _FIRST_WAIT_S
            self._metrics.restarts.labels(name).inc()
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:  # it is not wanted any more
                del self.failing[name]
                raise
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
