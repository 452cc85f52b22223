"""How often one destination may be asked: a token bucket, and a least time between two requests."""

from collections.abc import Awaitable, Callable

from gateway.clock import Clock

BURST = 20
"""Requests that may follow each other at once after a quiet time, if the limit is not lower."""


class RateLimit:
    """A token bucket with one waiter, kept as the moment when it will be full again (GCRA).

    `per_minute` 0 lifts the limit; `min_interval_s` applies all the same.
    """

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
        self._min_interval_ms = min_interval_s * 1000
        self._token_ms = 60_000 / per_minute if per_minute else 0.0
        self._slack_ms = self._token_ms * (min(BURST, per_minute) - 1)
        now = clock.monotonic_ms()
        self._full_at = float(now)
        self._not_before = float(now)

    def delay_s(self) -> float:
        """Return how long it takes until a request is allowed; 0 when it is now."""
        allowed_at = max(self._full_at - self._slack_ms, self._not_before)
        return max(0.0, allowed_at - self._clock.monotonic_ms()) / 1000

    async def ready(self) -> None:
        """Wait until a request is allowed, without taking it."""
        while (delay := self.delay_s()) > 0:
            await self._sleep(delay)

    async def take(self) -> None:
        """Wait until a request is allowed, and count it."""
        await self.ready()
        now = self._clock.monotonic_ms()
        self._full_at = max(self._full_at, now) + self._token_ms
        self._not_before = now + self._min_interval_ms
