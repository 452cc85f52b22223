"""The LD2410 radar on a UART: its reports become a presence, its commands are asked one at a time.

- what nobody sees is 0: the reports keep the last distances when everybody has left
- no report for two seconds: the radar is lost. That is said, and it is looked for on every speed that it knows
- how it is looked for and what is asked of it is in files of their own, in memory only meanwhile
"""

import asyncio

from app.on_demand import forget
from micropython import const

from drivers import RadarError
from drivers.ld2410_frames import FrameReader

_BAUD = const(256_000)
_LOST_MS = const(2_000)
_AT_ONCE = const(256)


class Ld2410:
    """See the module's own words.

    `open_uart` takes a speed and returns a stream with `read(n)`, `write(data)` and `drain()`; the one before is not
    used any more. `clock` has `ticks_ms()`, `ticks_add()` and `ticks_diff()`. `settings`: `dead_band_cm` (how far a
    distance must change to be news), and what the radar is to be set to, if given: `moving_gate`, `stationary_gate`,
    `nobody_s`, `moving_sensitivity`, `stationary_sensitivity` (lists, the nearest gate first).
    """

    name = "ld2410"
    methods = ("radar_parameters", "set_radar", "radar_engineering", "radar_restart")

    def __init__(self, open_uart, settings, clock):
        self._open_uart = open_uart
        self.clock = clock
        self._dead_band_cm = settings.get("dead_band_cm", 20)
        self.wanted = settings
        self.baud = _BAUD
        self.uart = None
        self.listening = None
        self._reader = FrameReader()
        self.hear_answer = None
        """Whoever waits for an answer gets all bytes, too."""
        self.is_configuring = self._is_searched = False
        self._report = None
        self._shown = None
        self.state = "lost"
        """`ok`, `calibrating` (it measures its background noise), `lost`."""
        self.version = ""
        self.engineering_until = None
        self.heard_ms = self.beat_ms = clock.ticks_ms()
        self.changed = False

    async def run(self):
        """Listen for ever."""
        self.open(self.baud)
        try:
            await self.carry_out("set_up")
            while not self.listening.done():  # pyright: ignore[reportOptionalMemberAccess] - `open` has set it
                await asyncio.sleep_ms(_LOST_MS // 4)
                await self._look_after()
            await self.listening  # pyright: ignore[reportGeneralTypeIssues]
        finally:
            self.listening.cancel()  # pyright: ignore[reportOptionalMemberAccess]

    def open(self, baud):
        """Listen at this speed from now on."""
        if self.listening is not None:
            self.listening.cancel()
        self.uart = self._open_uart(baud)
        self._reader = FrameReader()
        self.listening = asyncio.create_task(self._listen(self.uart))

    async def _listen(self, uart):
        while True:
            data = await uart.read(_AT_ONCE)
            if not data:  # a line that is closed says so without end
                await asyncio.sleep_ms(50)
                continue
            if self.hear_answer is not None:
                self.hear_answer(data)
            for report in self._reader.feed(data):
                self._hear(report)

    def _hear(self, report):
        self.heard_ms = self.clock.ticks_ms()
        self._report = report
        self._become("ok" if report.is_measuring else "calibrating")
        if report.is_measuring and self._is_news(report):
            self._shown = report
            self.changed = True

    def _is_news(self, report):
        shown = self._shown
        if shown is None or shown.state != report.state:
            return True
        old, new = _seen(shown), _seen(report)
        return any(abs(old[name] - new[name]) >= self._dead_band_cm for name in old if name.endswith("distance_cm"))

    def _become(self, state):
        if state != self.state:
            self.state = state
            self.changed = True

    async def _look_after(self):
        """Notice a radar that is lost, and look for it."""
        self.beat_ms = now = self.clock.ticks_ms()
        if self.engineering_until is not None and self.clock.ticks_diff(now, self.engineering_until) >= 0:
            self.engineering_until = None
            await self.carry_out("end_engineering")
        if self.is_configuring or (self.state != "lost" and self.clock.ticks_diff(now, self.heard_ms) < _LOST_MS):
            return
        self._report = self._shown = None
        self._become("lost")
        from drivers.ld2410_search import find

        forget("drivers.ld2410_search")
        self._is_searched = True
        try:
            is_found = await find(self)
        finally:
            self._is_searched = False
        if is_found:
            await self.carry_out("set_up")

    async def carry_out(self, method, params=None):
        """Do what is in ld2410_dialogue.py or ld2410_orders.py. Raises RadarError, ValueError."""
        if self._is_searched:
            raise RadarError("the radar is lost")
        if method in ("set_up", "radar_parameters"):
            from drivers.ld2410_dialogue import METHODS
        else:
            from drivers.ld2410_orders import METHODS
        try:
            return await METHODS[method](self, params)
        finally:
            for name in ("orders", "dialogue", "commands"):
                forget("drivers.ld2410_" + name)

    def read(self):
        """Return the sensor's fields; None while nobody knows who is there."""
        report = self._report
        if report is None or not report.is_measuring:
            return None
        self._shown = report
        return _seen(report)

    def health(self):
        """Return how the radar does."""
        return {"radar": self.state, "radar_version": self.version, "radar_skipped": self._reader.skipped}


def _seen(report):
    """Return what a report says, in the wire's shape."""
    moving_cm = report.moving_distance_cm if report.moving else 0
    stationary_cm = report.stationary_distance_cm if report.stationary else 0
    is_there = report.moving or report.stationary
    seen = {
        "presence": is_there,
        "moving": report.moving,
        "stationary": report.stationary,
        # some firmware leaves the detection distance 0
        "distance_cm": (report.detection_distance_cm or moving_cm or stationary_cm) if is_there else 0,
        "moving_distance_cm": moving_cm,
        "moving_energy": report.moving_energy if report.moving else 0,
        "stationary_distance_cm": stationary_cm,
        "stationary_energy": report.stationary_energy if report.stationary else 0,
    }
    if report.moving_gates:
        seen["moving_gate_energies"] = list(report.moving_gates)
        seen["stationary_gate_energies"] = list(report.stationary_gates)
    return seen
