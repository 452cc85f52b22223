"""Counts what happened lately, in two numbers: for thousands of clients, however often it happens."""

from dataclasses import dataclass

WINDOW_MS = 10 * 60 * 1000


@dataclass(slots=True)
class RecentCount:
    """How often something happened in this window of ten minutes and in the one before."""

    _began_ms: int = -WINDOW_MS
    _now: int = 0
    _before: int = 0

    def add(self, monotonic_ms: int) -> None:
        """Count one."""
        self._move(monotonic_ms)
        self._now += 1

    def count(self, monotonic_ms: int) -> int:
        """Return how many there were in the last ten to twenty minutes."""
        self._move(monotonic_ms)
        return self._now + self._before

    def _move(self, monotonic_ms: int) -> None:
        windows = (monotonic_ms - self._began_ms) // WINDOW_MS
        if windows > 0:
            self._before = self._now if windows == 1 else 0
            self._now = 0
            self._began_ms += windows * WINDOW_MS
