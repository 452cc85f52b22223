"""A token that is made here, used for most of its time, and made anew before it ends."""

from collections.abc import Callable

from gateway.clock import Clock

LASTS_S = 3600
"""How long a token is good for."""
_RENEWED_BEFORE_S = 600


class LastingToken:
    """See the module's own words. A clock that was set makes a new one: the old one has its times."""

    def __init__(self, clock: Clock, make: Callable[[int, int], str]) -> None:
        """`make` writes a token that is good from and until these unix seconds."""
        self._clock = clock
        self._make = make
        self._token = ""
        self._ends_s = 0

    def current(self) -> str:
        """Return one that is good for a while."""
        now_s = self._clock.now_ms() // 1000
        if not _RENEWED_BEFORE_S <= self._ends_s - now_s <= LASTS_S:
            self._ends_s = now_s + LASTS_S
            self._token = self._make(now_s, self._ends_s)
        return self._token
