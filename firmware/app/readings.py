"""What the sensors say, when something has happened and at least now and then."""

import asyncio
import json

from app.supervisor import Part


class Readings(Part):
    """Asks all drivers at once. `settings`: `min_interval_ms`, `heartbeat_s`; `health()`: fields about the board."""

    name = "readings"

    def __init__(self, clock, drivers, outbox, settings, health):
        super().__init__(clock)
        self._drivers = drivers
        self._outbox = outbox
        self._health = health
        self._min_interval_ms = settings["min_interval_ms"]
        self._heartbeat_ms = settings["heartbeat_s"] * 1000
        self._news = asyncio.Event()
        for driver in drivers:
            driver.changed = self._news

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
            if self._news.is_set() or passed_ms >= self._heartbeat_ms:
                self._news.clear()
                since = self._clock.ticks_ms()
                first = not self.measure() and first
                continue
            try:
                await asyncio.wait_for_ms(self._news.wait(), max(1, min(self._heartbeat_ms - passed_ms, 1_000)))
            except asyncio.TimeoutError:
                pass

    def measure(self):
        """Take one reading; returns whether any sensor had something to say."""
        sensors = {}
        health = self._health()
        for driver in self._drivers:
            fields = driver.read()
            if fields is not None:
                sensors[driver.name] = fields
            health.update(driver.health())
        if not sensors:
            return False  # the status says how they do
        self._outbox.add(json.dumps({"sensors": sensors, "health": health}).encode())
        return True
