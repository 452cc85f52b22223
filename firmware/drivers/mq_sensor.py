"""An MQ-13x gas sensor on a pin of the ESP32's first converter; ADC2 belongs to Wi-Fi."""

import asyncio

from drivers.mq import PREHEAT_MS, Channel, median

_SAMPLES = 33
_CALIBRATE_SAMPLES = 30
_EVERY_MS = 1_000


class MqSensor:
    """Reads the voltage every second and keeps what it means.

    `adc` has `read_uv()` (with the chip's own calibration); `clock` has `ticks_ms()` and `ticks_diff()`; `keep` is
    called with R0 in ohm when it is calibrated, to store it.
    """

    name = "mq134"

    def __init__(self, adc, settings, clock, r0_ohm=None, keep=None):
        self._adc = adc
        self._clock = clock
        self._keep = keep
        self._channel = Channel(settings, r0_ohm)
        self._preheat_ms = settings.get("preheat_s", PREHEAT_MS // 1000) * 1000
        self._started_ms = self.beat_ms = clock.ticks_ms()
        self._warm = False
        self._uv = None
        self._state = ""
        self.changed = asyncio.Event()
        self.methods = {"calibrate_gas": self._calibrate}

    async def run(self):
        """Sample for ever."""
        while True:
            self._sample()
            await asyncio.sleep_ms(_EVERY_MS)

    def _sample(self):
        self._uv = median([self._adc.read_uv() for _ in range(_SAMPLES)])
        self.beat_ms = now = self._clock.ticks_ms()
        if not self._warm:  # once: ticks wrap around
            self._warm = self._clock.ticks_diff(now, self._started_ms) >= self._preheat_ms
        state = self._channel.reading(self._uv, is_warm=self._warm)["state"]
        if state != self._state:
            self._state = state
            self.changed.set()

    def read(self):
        """Return the sensor's fields; None before the first sample."""
        return None if self._uv is None else self._channel.reading(self._uv, is_warm=self._warm)

    def health(self):
        """Return how the channel does."""
        return {"gas": self._state}

    async def _calibrate(self, params):
        """Take the air as clean from now on; returns R0 and how much the samples differed."""
        if not self._warm and not params.get("force"):
            raise ValueError("the heater is not warm yet: wait, or send force")
        found = []
        for _ in range(_CALIBRATE_SAMPLES):
            rs = self._channel.rs_ohm(median([self._adc.read_uv() for _ in range(_SAMPLES)]))
            if rs is None:
                raise ValueError("the voltage is at a rail: look at the wiring")
            found.append(rs)
            self.beat_ms = self._clock.ticks_ms()
            await asyncio.sleep_ms(_EVERY_MS // 2)
        r0 = self._channel.calibrate(median(found))
        if self._keep is not None:
            self._keep(round(r0, 2))
        self.changed.set()
        return {"r0_ohm": round(r0, 2), "spread_pct": round(100 * (max(found) - min(found)) / median(found), 1)}
