"""A board's clock for tests, in milliseconds that wrap around as those of MicroPython do."""

import time

PERIOD = 1 << 30


class Ticks:
    """A clock that only moves when it is told to."""

    def __init__(self, now=PERIOD - 5_000):
        self.now = now

    def ticks_ms(self):
        return self.now % PERIOD

    def ticks_add(self, ticks, ms):
        return (ticks + ms) % PERIOD

    def ticks_diff(self, one, other):
        return (one - other + PERIOD // 2) % PERIOD - PERIOD // 2

    def advance(self, ms):
        self.now += ms


class RealTicks(Ticks):
    """The machine's clock."""

    def ticks_ms(self):
        return int(time.time() * 1000) % PERIOD
