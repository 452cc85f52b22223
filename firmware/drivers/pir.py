"""A PIR motion sensor with a digital output, for example the HC-SR501.

Its interrupt only sets a flag, which ends the pause of `run`. While it warms up its pulses mean nothing. It holds its
output for seconds by itself, and a radio beside it triggers it: what is shorter than the debounce is no motion, and an
output that is high for hours is stuck.
"""

import asyncio

from micropython import const

_WARM_UP_S = const(60)
_DEBOUNCE_MS = const(50)
_HOLD_S = const(5)
_STUCK_S = const(3_600)
_EVERY_MS = const(500)
_STEP_MS = const(20)


class Pir:
    """Motion seen by one sensor. `pin` has `value()` and `irq(handler)`; `clock` has `ticks_ms()` and `ticks_diff()`.

    `settings`: `warm_up_s`, `debounce_ms`, `hold_s` (motion lasts so long after the last pulse), `stuck_s`.
    """

    name = "pir"
    methods = ()
    is_configuring = False

    def __init__(self, pin, settings, clock):
        self._pin = pin
        self._clock = clock
        self._warm_up_ms = settings.get("warm_up_s", _WARM_UP_S) * 1000
        self._debounce_ms = settings.get("debounce_ms", _DEBOUNCE_MS)
        self._hold_ms = settings.get("hold_s", _HOLD_S) * 1000
        self._stuck_ms = settings.get("stuck_s", _STUCK_S) * 1000
        self._started_ms = self.beat_ms = clock.ticks_ms()
        self._warm = False
        self._edge = False
        self._high_ms = None
        self._counted = False
        self._seen_ms = None
        self._pulses = 0
        self._stuck = False
        self._moves = False
        self.changed = False
        pin.irq(self._on_edge)

    def _on_edge(self, _):
        self._edge = True

    async def run(self):
        """Watch for ever."""
        while True:
            self._edge = False
            self.look()
            is_new = self._high_ms is not None and not self._counted
            left_ms = self._debounce_ms if is_new else _EVERY_MS
            while left_ms > 0 and not self._edge:
                await asyncio.sleep_ms(min(left_ms, _STEP_MS))
                left_ms -= _STEP_MS

    def look(self):
        """Look at the pin once, and at what has happened since."""
        self.beat_ms = now = self._clock.ticks_ms()
        if not self._warm:
            if self._clock.ticks_diff(now, self._started_ms) < self._warm_up_ms:
                return
            self._warm = True
            self.changed = True
        if self._pin.value():
            self._is_high(now)
        else:
            self._high_ms = None
            self._become_stuck(stuck=False)
        moves = self._seen_ms is not None and not self._stuck
        moves = moves and self._clock.ticks_diff(now, self._seen_ms) <= self._hold_ms
        if self._seen_ms is not None and not moves:
            self._seen_ms = None  # ticks wrap around
        if moves != self._moves:
            self._moves = moves
            self.changed = True

    def _is_high(self, now):
        if self._high_ms is None:
            self._high_ms, self._counted = now, False
        high_ms = self._clock.ticks_diff(now, self._high_ms)
        if not self._counted and high_ms >= self._debounce_ms:
            self._counted = True
            self._pulses += 1
        if high_ms >= self._stuck_ms:
            self._become_stuck(stuck=True)
        if self._counted:
            self._seen_ms = now

    def _become_stuck(self, stuck):
        if stuck != self._stuck:
            self._stuck = stuck
            self.changed = True

    def read(self):
        """Return the fields of the sensor, with the pulses since it was read last; None while it warms up."""
        if not self._warm:
            return None
        pulses, self._pulses = self._pulses, 0
        return {"motion_detected": self._moves, "pulses": pulses}

    def health(self):
        """Return how the sensor does."""
        return {"pir": "stuck_high" if self._stuck else "ok" if self._warm else "warming"}
