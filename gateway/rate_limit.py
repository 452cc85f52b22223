"""Token buckets: so many a minute, with a burst. Kept as the moment at which the bucket is full again (GCRA)."""

from collections.abc import Callable
from math import ceil
from sys import maxsize

from gateway.clock import Clock

_KEYS_IN_MEMORY = 10_000


class TokenBucket:
    """One bucket. `per_minute` 0 lifts the limit; `now` is a monotonic clock that counts ticks of `tick_s` seconds."""

    __slots__ = ("_burst", "_full_at", "_now", "_slack", "_tick_s", "_token")

    def __init__(self, now: Callable[[], float], *, per_minute: int, burst: int, tick_s: float = 0.001) -> None:
        self._now = now
        self._tick_s = tick_s
        self._burst = burst
        self._token = 60 / tick_s / per_minute if per_minute else 0.0
        self._slack = self._token * (burst - 1)
        self._full_at = float(now())

    def wait_s(self) -> float:
        """Return how long it takes until there is a token; 0 when there is one."""
        return max(0.0, self._full_at - self._slack - self._now()) * self._tick_s

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        missing = self._full_at - self._now()
        if missing <= 0:
            return self._burst if self._token else maxsize
        return self._burst - ceil(missing / self._token)

    def take(self, count: int = 1) -> None:
        """Take tokens; nobody asks whether they are there."""
        self._full_at = max(self._full_at, self._now()) + count * self._token

    @property
    def is_full(self) -> bool:
        """Whether it has rested long enough to be as good as new."""
        return self._full_at <= self._now()


class RateLimits:
    """One bucket for each key, for example each client."""

    def __init__(self, clock: Clock, *, per_minute: int, burst: int) -> None:
        self._now_ms = clock.monotonic_ms
        self._per_minute = per_minute
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, key: str) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _KEYS_IN_MEMORY:
                self._buckets = {name: one for name, one in self._buckets.items() if not one.is_full}
                while len(self._buckets) >= _KEYS_IN_MEMORY:
                    del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[key] = TokenBucket(self._now_ms, per_minute=self._per_minute, burst=self._burst)
        wait_s = bucket.wait_s()
        if wait_s == 0:
            bucket.take()
        return wait_s
