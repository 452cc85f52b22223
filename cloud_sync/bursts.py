"""What of a burst of notifications goes alone, and when the rest goes together.

- of each priority so many go alone within a minute, as soon as they come: many `low` ones delay no `critical` one
- what is beyond that is gathered for a while, then it goes together; and so on while the burst lasts. So however many
  come, few messages a minute go out
"""

from gateway.clock import Clock
from gateway.model.priorities import PRIORITIES
from gateway.rate_limit import TokenBucket


class Bursts:
    """The decision for one integration; what waits, and its numbers, are told by whoever asks."""

    def __init__(self, clock: Clock, *, alone: int, digest_interval_s: float) -> None:
        self._clock = clock
        self._interval_ms = round(digest_interval_s * 1000)
        self._alone = [
            TokenBucket(clock.monotonic_ms, per_minute=max(alone, 1), burst=alone) if alone else None
            for _ in PRIORITIES
        ]
        self._gathers_until_ms: int | None = None
        self._gathers_urgency = -1
        self.through = -1
        """Everything up to this number goes together now."""

    def wait_s(self, urgency: int) -> float:
        """Return how long the most urgent of what waits is gathered with others; 0 when it is to go now, alone."""
        bucket = self._alone[urgency]
        now_ms = self._clock.monotonic_ms()
        if urgency > self._gathers_urgency and bucket is not None and bucket.wait_s() == 0:
            return 0.0
        self._gathers_urgency = max(urgency, self._gathers_urgency)
        if self._gathers_until_ms is None:
            self._gathers_until_ms = now_ms + self._interval_ms
        return max(self._gathers_until_ms - now_ms, 1) / 1000

    @property
    def is_gathered(self) -> bool:
        """Whether it is time for what was gathered."""
        return self._gathers_until_ms is not None and self._clock.monotonic_ms() >= self._gathers_until_ms

    def went_alone(self, urgency: int) -> None:
        """Count one that has gone alone."""
        bucket = self._alone[urgency]
        if bucket is not None:
            bucket.take()

    def go_together(self, through: int) -> None:
        """Let all up to this number go."""
        self.through = through
        self._gathers_until_ms, self._gathers_urgency = None, -1
