"""What the sensors say, when something has happened and at least now and then."""

import asyncio
import json

from micropython import const

from app.supervisor import Part

_LOOK_MS = const(20)


class Readings(Part):
    """Asks all drivers at once when one of them has `changed`.

    `settings`: `min_interval_ms`, `heartbeat_s`; `health()`: fields about the board.
    """

    name = "readings"

    def __init__(self, clock, drivers, outbox, settings, health):
        super().__init__(clock)
        self._drivers = drivers
        self._outbox = outbox
        self._health = health
        self._min_interval_ms = settings["min_interval_ms"]
        self._heartbeat_ms = settings["heartbeat_s"] * 1000

    async def run(self):
        """Measure for ever."""
        since = self._clock.ticks_ms()
        first = True
        while True:
            self.beat()
            passed_ms = self._clock.ticks_diff(self._clock.ticks_ms(), since)
            if passed_ms < self._min_interval_ms and not first:
                await asyncio.sleep_ms(min(self._min_interval_ms - passed_ms, 1_000))
                continue
            if passed_ms >= self._heartbeat_ms or any(driver.changed for driver in self._drivers):
                since = self._clock.ticks_ms()
                first = not self.measure() and first
                continue
            await asyncio.sleep_ms(_LOOK_MS)

    def measure(self):
        """Take one reading; returns whether any sensor had something to say."""
        sensors = {}
        health = self._health()
        for driver in self._drivers:
            driver.changed = False
            fields = driver.read()
            if fields is not None:
                sensors[driver.name] = fields
            health.update(driver.health())
        if not sensors:
            return False  # the status says how they do
        self._outbox.add(json.dumps({"sensors": sensors, "health": health}).encode())
        return True
