"""How long this start lasts, and what time it is, if that is known.

Milliseconds, always whole numbers: an ESP32's floats are too short for a time of day, and its ticks wrap around every
twelve days.
"""


class Clock:
    """`ticks` has `ticks_ms()`, `ticks_add()` and `ticks_diff()`, as the module `time`; `set_rtc` takes unix seconds.

    It must be asked at least once in six days, or it misses that the ticks wrapped around.
    """

    def __init__(self, ticks, set_rtc):
        self.ticks_ms = ticks.ticks_ms
        self.ticks_add = ticks.ticks_add
        self.ticks_diff = ticks.ticks_diff
        self._set_rtc = set_rtc
        self._last_ms = self.ticks_ms()
        self._uptime_ms = 0
        self._offset_ms = None
        self.source = ""
        """Who told the time last: `ntp`, `gateway` or nobody."""

    def uptime_ms(self):
        """Return for how long the program runs."""
        now = self.ticks_ms()
        self._uptime_ms += self.ticks_diff(now, self._last_ms)
        self._last_ms = now
        return self._uptime_ms

    def set(self, unix_ms, source):
        """Learn what time it is now."""
        self._offset_ms = unix_ms - self.uptime_ms()
        self.source = source
        self.suppose(unix_ms)

    def suppose(self, unix_ms):
        """It may be so late: enough for TLS, which looks at the dates of certificates, and no time for a reading."""
        self._set_rtc(unix_ms // 1000)

    @property
    def is_set(self):
        """Whether the time is known."""
        return self._offset_ms is not None

    def unix_ms(self, uptime_ms=None):
        """Return the time now, or when the program had run for so long; None while it is not known."""
        if self._offset_ms is None:
            return None
        return self._offset_ms + (self.uptime_ms() if uptime_ms is None else uptime_ms)
