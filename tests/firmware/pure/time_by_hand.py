"""A board's clock for tests, in milliseconds that wrap around as those of MicroPython do."""

import asyncio

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


class LoopTicks(Ticks):
    """The time of the event loop, in which waiting costs nothing: see `leap`."""

    def ticks_ms(self):
        if hasattr(asyncio, "core"):  # MicroPython
            return asyncio.core.ticks() % PERIOD
        return int(asyncio.get_running_loop().time() * 1000) % PERIOD


def leap():
    """From now on MicroPython's event loop does not wait until a task may run: its time leaps there."""
    core = asyncio.core
    look, ticks = core.IOQueue.wait_io_event, core.ticks
    leapt = [0]

    def wait_io_event(queue, ms):
        look(queue, 0)
        leapt[0] += max(ms, 0)

    core.ticks = lambda: ticks() + leapt[0]
    core.IOQueue.wait_io_event = wait_io_event
