"""The LD2410 radar on a UART: its reports become a presence, its commands are asked one at a time.

- what nobody sees is 0: the reports keep the last distances when everybody has left
- no report for two seconds: the radar is lost. That is said, and it is looked for on every speed that it knows
- a command is tried three times and counts when its acknowledgement has come; whatever happens, the configuration is
  left again, as the radar reports nothing within it
"""

import asyncio

from drivers import ld2410_commands as commands
from drivers.ld2410_commands import AckReader, RadarError
from drivers.ld2410_frames import FrameReader

BAUD = 256_000
_BAUDS = (256_000, 115_200, 9_600, 19_200, 38_400, 57_600, 230_400, 460_800)
_LOST_MS = 2_000
_ACK_MS = 300
_TRIES = 3
_LISTEN_MS = 300
_RESTART_MS = 1_200
_AT_ONCE = 256
_ENGINEERING_S = 600


class Ld2410:
    """See the module's own words.

    `open_uart` takes a speed and returns a stream with `read(n)`, `write(data)` and `drain()`; the one before is not
    used any more. `clock` has `ticks_ms()`, `ticks_add()` and `ticks_diff()`. `settings`: `dead_band_cm` (how far a
    distance must change to be news), and what the radar is to be set to, if given: `moving_gate`, `stationary_gate`,
    `nobody_s`, `moving_sensitivity`, `stationary_sensitivity` (lists, the nearest gate first).
    """

    name = "ld2410"

    def __init__(self, open_uart, settings, clock):
        self._open_uart = open_uart
        self._clock = clock
        self._dead_band_cm = settings.get("dead_band_cm", 20)
        self._wanted = settings
        self._baud = BAUD
        self._uart = None
        self._listening = None
        self._reader = FrameReader()
        self._acks = AckReader()
        self._acknowledged = []
        self._asking = asyncio.Lock()
        self._configuring = False
        self._report = None
        self._shown = None
        self.state = "lost"
        """`ok`, `calibrating` (it measures its background noise), `lost`."""
        self.version = ""
        self._engineering_until = None
        self._heard_ms = self.beat_ms = clock.ticks_ms()
        self.changed = asyncio.Event()
        self.methods = {
            "radar_parameters": self._read_parameters,
            "set_radar": self._set_radar,
            "radar_engineering": self._set_engineering,
            "radar_restart": self._restart,
        }

    async def run(self):
        """Listen for ever."""
        self._open(self._baud)
        try:
            await self._set_up()
            while not self._listening.done():  # pyright: ignore[reportOptionalMemberAccess] - `_open` has set it
                await asyncio.sleep_ms(_LOST_MS // 4)
                await self._look_after()
            await self._listening  # pyright: ignore[reportGeneralTypeIssues]
        finally:
            self._listening.cancel()  # pyright: ignore[reportOptionalMemberAccess]

    def _open(self, baud):
        """Listen at this speed from now on."""
        if self._listening is not None:
            self._listening.cancel()
        self._uart = self._open_uart(baud)
        self._reader, self._acks = FrameReader(), AckReader()
        self._listening = asyncio.create_task(self._listen(self._uart))

    async def _send(self, frame):
        if self._uart is not None:  # which `run` opens
            self._uart.write(frame)
            await self._uart.drain()

    async def _listen(self, uart):
        while True:
            data = await uart.read(_AT_ONCE)
            if not data:  # a line that is closed says so without end
                await asyncio.sleep_ms(50)
                continue
            self._acknowledged += self._acks.feed(data)
            for report in self._reader.feed(data):
                self._hear(report)

    def _hear(self, report):
        self._heard_ms = self._clock.ticks_ms()
        self._report = report
        self._become("ok" if report.is_measuring else "calibrating")
        if report.is_measuring and self._is_news(report):
            self._shown = report
            self.changed.set()

    def _is_news(self, report):
        shown = self._shown
        if shown is None or shown.state != report.state:
            return True
        old, new = _seen(shown), _seen(report)
        return any(abs(old[name] - new[name]) >= self._dead_band_cm for name in old if name.endswith("distance_cm"))

    def _become(self, state):
        if state != self.state:
            self.state = state
            self.changed.set()

    async def _look_after(self):
        """Notice a radar that is lost, and look for it."""
        self.beat_ms = now = self._clock.ticks_ms()
        if self._engineering_until is not None and self._clock.ticks_diff(now, self._engineering_until) >= 0:
            self._engineering_until = None
            await self._try_to_ask([commands.encode(commands.ENGINEERING_OFF)])
        if self._configuring or (self.state != "lost" and self._clock.ticks_diff(now, self._heard_ms) < _LOST_MS):
            return
        self._report = self._shown = None
        self._become("lost")
        if await self._scan():
            await self._set_up()

    async def _scan(self):
        """Listen at every speed, the last good one first; one left in its configuration is told to leave it."""
        for baud in (self._baud,) + tuple(rate for rate in _BAUDS if rate != self._baud):
            self._open(baud)
            await self._send(commands.encode(commands.END_CONFIGURATION))
            await asyncio.sleep_ms(_LISTEN_MS)
            self.beat_ms = self._clock.ticks_ms()
            if self.state != "lost":
                self._baud = baud
                return True
        self._open(self._baud)
        return False

    async def _set_up(self):
        """Ask for the version, and set what is wanted to be set; a radar that does not answer is lost anyway."""
        try:
            (version,) = await self._ask([commands.encode(commands.READ_VERSION)])
            self.version = commands.version(version)
            await self._apply(self._wanted)
        except (RadarError, ValueError) as error:
            print("radar:", error)

    # Commands

    async def _ask(self, asked):
        """Ask several commands within one configuration; returns the values that they were answered with.

        Raises RadarError.
        """
        async with self._asking:
            self._configuring = True
            try:
                await self._command(commands.enable())
                try:
                    values = []
                    for command in asked:
                        values.append(await self._command(command))
                    return values
                finally:
                    await self._command(commands.encode(commands.END_CONFIGURATION))
            finally:
                self._configuring = False
                self._heard_ms = self._clock.ticks_ms()  # it was silent because we asked

    async def _command(self, frame):
        number = frame[6] | frame[7] << 8
        for _ in range(_TRIES):
            self._acknowledged.clear()
            await self._send(frame)
            until = self._clock.ticks_add(self._clock.ticks_ms(), _ACK_MS)
            while self._clock.ticks_diff(until, self._clock.ticks_ms()) > 0:
                for command, status, value in self._acknowledged:
                    if command == number:
                        if status:
                            raise RadarError("the radar refused command %02X" % number)
                        return value
                self.beat_ms = self._clock.ticks_ms()
                await asyncio.sleep_ms(5)
        raise RadarError("the radar does not answer command %02X" % number)

    async def _try_to_ask(self, asked):
        try:
            await self._ask(asked)
        except RadarError as error:
            print("radar:", error)

    async def _read_parameters(self, _):
        """Return what the radar is set to."""
        (value,) = await self._ask([commands.encode(commands.READ_PARAMETERS)])
        return commands.parameters(value)

    async def _set_radar(self, params):
        """Set gates, time and sensitivities; returns what the radar then says that it is set to."""
        await self._apply(params)
        return await self._read_parameters({})

    async def _apply(self, wanted):
        """Set what differs from what the radar says: its memory does not last for ever."""
        if not any(name in wanted for name in _PARAMETERS):
            return
        is_now = await self._read_parameters({})
        new = dict(is_now)
        for name in _PARAMETERS:
            if name in wanted:
                new[name] = wanted[name]
        asked = []
        if any(new[name] != is_now[name] for name in _PARAMETERS[:3]):
            asked.append(commands.set_gates(new["moving_gate"], new["stationary_gate"], new["nobody_s"]))
        moving, stationary = new["moving_sensitivity"], new["stationary_sensitivity"]
        if len(moving) != len(is_now["moving_sensitivity"]) or len(stationary) != len(is_now["stationary_sensitivity"]):
            raise ValueError("a sensitivity is needed for each of the %d gates" % len(is_now["moving_sensitivity"]))
        for gate in range(len(moving)):
            old = is_now["moving_sensitivity"][gate], is_now["stationary_sensitivity"][gate]
            if (moving[gate], stationary[gate]) != old:
                asked.append(commands.set_sensitivity(gate, moving[gate], stationary[gate]))
        if asked:
            await self._ask(asked)

    async def _set_engineering(self, params):
        """Report the energy of each gate for some minutes, or stop that."""
        on = bool(params.get("on", True))
        await self._ask([commands.encode(commands.ENGINEERING_ON if on else commands.ENGINEERING_OFF)])
        self._engineering_until = None
        if on:
            seconds = min(int(params.get("seconds", _ENGINEERING_S)), 86_400)
            self._engineering_until = self._clock.ticks_add(self._clock.ticks_ms(), seconds * 1000)
        return {"engineering": on}

    async def _restart(self, _):
        """Restart the radar; it leaves its configuration by that."""
        async with self._asking:
            self._configuring = True
            try:
                await self._command(commands.enable())
                try:
                    await self._command(commands.encode(commands.RESTART))
                except RadarError:
                    await self._command(commands.encode(commands.END_CONFIGURATION))
                    raise
                await asyncio.sleep_ms(_RESTART_MS)
            finally:
                self._configuring = False
                self._heard_ms = self._clock.ticks_ms()
        return {"restarted": True}

    # What it says

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


_PARAMETERS = ("moving_gate", "stationary_gate", "nobody_s", "moving_sensitivity", "stationary_sensitivity")


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
