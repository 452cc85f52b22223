"""What repeats is counted, and said only once in a while."""

from gateway.clock import Clock

_PAUSE_MS = 60_000


class Seldom:
    """Whether something is worth a line in the log: the first in a minute is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[str, int] = {}

    def is_due(self, what: str) -> bool:
        """Whether to say it now; `what` is one of a few words."""
        now = self._clock.monotonic_ms()
        if now - self._said.get(what, now - _PAUSE_MS) < _PAUSE_MS:
            return False
        self._said[what] = now
        return True
