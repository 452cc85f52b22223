"""How often one destination may be asked: a token bucket, and a least time between two requests."""

from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.rate_limit import TokenBucket

BURST = 20
"""Requests that may follow each other at once after a quiet time, if the limit is not lower."""


class RateLimit:
    """A token bucket with one waiter. `per_minute` 0 lifts the limit; `min_interval_s` applies all the same."""

    def __init__(
        self,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        *,
        per_minute: int,
        min_interval_s: float = 0.0,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._bucket = TokenBucket(clock.monotonic_ms, per_minute=per_minute, burst=min(BURST, per_minute))
        self._min_interval_ms = min_interval_s * 1000
        self._not_before = float(clock.monotonic_ms())

    def delay_s(self) -> float:
        """Return how long it takes until a request is allowed; 0 when it is now."""
        return max(self._bucket.wait_s(), (self._not_before - self._clock.monotonic_ms()) / 1000)

    async def ready(self) -> None:
        """Wait until a request is allowed, without taking it."""
        while (delay := self.delay_s()) > 0:
            await self._sleep(delay)

    async def take(self) -> None:
        """Wait until a request is allowed, and count it."""
        await self.ready()
        self._bucket.take()
        self._not_before = self._clock.monotonic_ms() + self._min_interval_ms
