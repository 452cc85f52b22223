"""What all connections together hold in memory: packets that are not complete, and what their clients have not read.

One connection has its own bounds, but all of them at their bounds are gigabytes. So there is one for the sum: before it
is exceeded those who hold most leave, until a quarter of it is free. A client that sends and reads like others holds
next to nothing, and is never the one.

What is held is not counted byte by byte, as a socket does not tell when it has sent something. What comes is added, and
only when that might be too much everybody is asked what is left of it: the sum is never too low, and as a quarter is
free then, asking is rare, whatever clients do.
"""

from collections.abc import Iterable
from typing import Protocol


class Holder(Protocol):
    """A connection."""

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        ...

    def give_up(self) -> None:
        """Let go of all of it, at once."""
        ...


class Buffers:
    """See the module's own words."""

    def __init__(self, max_bytes: int, holders: Iterable[Holder]) -> None:
        self._max_bytes = max_bytes
        self._holders = holders
        self._at_most = 0
        """What they hold, and perhaps less by now."""

    def grew(self, size: int) -> None:
        """Hear that some connection holds so much more."""
        self._at_most += size
        if self._at_most > self._max_bytes:
            self._count()

    def _count(self) -> None:
        held = sorted(((one.held_bytes, one) for one in self._holders), key=lambda pair: pair[0])
        total = sum(size for size, _ in held)
        while total > self._max_bytes * 3 // 4:
            size, largest = held.pop()
            largest.give_up()
            total -= size
        self._at_most = total
