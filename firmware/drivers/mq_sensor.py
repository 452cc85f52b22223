"""An MQ-13x gas sensor on a pin of the ESP32's first converter; ADC2 belongs to Wi-Fi."""

import asyncio

from app.on_demand import forget
from micropython import const

_PREHEAT_S = const(180)
"""After power on: until the heater is warm, what it says means nothing."""
_SAMPLES = const(33)
_EVERY_MS = const(1_000)


class MqSensor:
    """Reads the voltage every second and keeps what it means.

    `adc` has `read_uv()` (with the chip's own calibration); `clock` has `ticks_ms()` and `ticks_diff()`; `keep` is
    called with R0 in ohm when it is calibrated, to store it.
    """

    name = "mq134"
    methods = ("calibrate_gas",)
    is_configuring = False

    def __init__(self, adc, settings, clock, r0_ohm=None, keep=None):
        from drivers.mq_curves import channel

        self._adc = adc
        self._clock = clock
        self.keep = keep
        self.channel = channel(settings, r0_ohm)
        forget("drivers.mq_curves")
        self._preheat_ms = settings.get("preheat_s", _PREHEAT_S) * 1000
        self._started_ms = self.beat_ms = clock.ticks_ms()
        self.is_warm = False
        self._uv = None
        self._samples = [0] * _SAMPLES  # once: it would be grown and sorted every second
        self._state = ""
        self.changed = False

    async def run(self):
        """Sample for ever."""
        while True:
            self._sample()
            await asyncio.sleep_ms(_EVERY_MS)

    def _sample(self):
        self._uv = self.measure_uv()
        now = self.beat_ms
        if not self.is_warm:  # once: ticks wrap around
            self.is_warm = self._clock.ticks_diff(now, self._started_ms) >= self._preheat_ms
        state = self.channel.reading(self._uv, is_warm=self.is_warm)["state"]
        if state != self._state:
            self._state = state
            self.changed = True

    def measure_uv(self):
        """Return the voltage at the pin now."""
        self.beat_ms = self._clock.ticks_ms()
        for index in range(_SAMPLES):
            self._samples[index] = self._adc.read_uv()
        self._samples.sort()
        return self._samples[_SAMPLES // 2]

    def read(self):
        """Return the sensor's fields; None before the first sample."""
        return None if self._uv is None else self.channel.reading(self._uv, is_warm=self.is_warm)

    def health(self):
        """Return how the channel does."""
        return {"gas": self._state}

    async def carry_out(self, _, params):
        """Calibrate. Raises ValueError."""
        from drivers.mq_calibration import calibrate

        forget("drivers.mq_calibration")
        return await calibrate(self, params)
