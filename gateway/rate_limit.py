"""Token buckets: so many a minute, with a burst (as GCRA, which keeps one number a key)."""

from gateway.clock import Clock

_KEYS_IN_MEMORY = 10_000


class RateLimits:
    """One bucket for each key. `per_minute` 0 lifts the limit."""

    def __init__(self, clock: Clock, *, per_minute: int, burst: int) -> None:
        self._clock = clock
        self._token_ms = 60_000 / per_minute if per_minute else 0.0
        self._slack_ms = self._token_ms * (burst - 1)
        self._full_at: dict[str, float] = {}

    def take(self, key: str) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = self._clock.monotonic_ms()
        full_at = max(self._full_at.get(key, 0.0), now)
        wait_ms = full_at - self._slack_ms - now
        if wait_ms > 0:
            return wait_ms / 1000
        if len(self._full_at) >= _KEYS_IN_MEMORY:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        self._full_at[key] = full_at + self._token_ms
        return 0.0
