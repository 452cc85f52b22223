"""What is asked of the LD2410 radar. In memory only while something is asked.

A command is tried three times and counts when its acknowledgement has come; whatever happens, the configuration is left
again, as the radar reports nothing within it.
"""

import asyncio

from app.on_demand import forget
from micropython import const

from drivers import RadarError
from drivers import ld2410_commands as commands

_BAUDS = (256_000, 115_200, 9_600, 19_200, 38_400, 57_600, 230_400, 460_800)
_ACK_MS = const(300)
_TRIES = const(3)
_LISTEN_MS = const(300)
_PAUSE_MS = const(500)
_TURN_MS = const(5)
_RESTART_MS = const(1_200)
_ENGINEERING_S = const(600)
_PARAMETERS = ("moving_gate", "stationary_gate", "nobody_s", "moving_sensitivity", "stationary_sensitivity")


async def find(radar, _):
    """Listen at every speed, the last good one first, until it is heard; then set it up."""
    while radar.state == "lost" and not radar.listening.done():
        for baud in (radar.baud,) + tuple(rate for rate in _BAUDS if rate != radar.baud):
            radar.open(baud)
            radar.uart.write(commands.encode(commands.END_CONFIGURATION))  # if it was left in that
            await radar.uart.drain()
            await asyncio.sleep_ms(_LISTEN_MS)
            radar.beat_ms = radar.clock.ticks_ms()
            if radar.state != "lost":
                radar.baud = baud
                await set_up(radar, None)
                return
        radar.open(radar.baud)
        await asyncio.sleep_ms(_PAUSE_MS)


async def set_up(radar, _):
    """Ask for the version, and set what is wanted to be set; a radar that does not answer is lost anyway."""
    try:
        (version,) = await _ask(radar, [commands.encode(commands.READ_VERSION)])
        radar.version = commands.version(version)
        await _apply(radar, radar.wanted)
    except (RadarError, ValueError) as error:
        print("radar:", error)


async def _ask(radar, asked):
    """Ask several commands within one configuration; returns the values that they were answered with.

    Raises RadarError.
    """
    dialogue = await _begin(radar)
    try:
        await dialogue.command(commands.enable())
        try:
            values = []
            for command in asked:
                values.append(await dialogue.command(command))
            return values
        finally:
            await dialogue.command(commands.encode(commands.END_CONFIGURATION))
    finally:
        dialogue.end()


async def _begin(radar):
    """Wait until nobody else asks."""
    while radar.is_configuring:
        await asyncio.sleep_ms(_TURN_MS)
    return _Dialogue(radar)


class _Dialogue:
    """One configuration: meanwhile the radar reports nothing, and answers."""

    def __init__(self, radar):
        self._radar = radar
        self._acks = commands.AckReader()
        self._acknowledged = []
        radar.is_configuring = True
        radar.hear_answer = self._hear

    def _hear(self, data):
        self._acknowledged += self._acks.feed(data)

    def end(self):
        """The radar reports again."""
        radar = self._radar
        radar.is_configuring = False
        radar.hear_answer = None
        radar.heard_ms = radar.clock.ticks_ms()  # it was silent because we asked

    async def command(self, frame):
        """Return the value that a command is answered with. Raises RadarError."""
        radar, clock = self._radar, self._radar.clock
        number = frame[6] | frame[7] << 8
        for _ in range(_TRIES):
            self._acknowledged.clear()
            radar.uart.write(frame)
            await radar.uart.drain()
            until = clock.ticks_add(clock.ticks_ms(), _ACK_MS)
            while clock.ticks_diff(until, clock.ticks_ms()) > 0:
                for command, status, value in self._acknowledged:
                    if command == number:
                        if status:
                            raise RadarError("the radar refused command %02X" % number)
                        return value
                radar.beat_ms = clock.ticks_ms()
                await asyncio.sleep_ms(_TURN_MS)
        raise RadarError("the radar does not answer command %02X" % number)


async def _read_parameters(radar, _):
    """Return what the radar is set to."""
    (value,) = await _ask(radar, [commands.encode(commands.READ_PARAMETERS)])
    return commands.parameters(value)


async def _set(radar, params):
    """Set gates, time and sensitivities; returns what the radar then says that it is set to."""
    await _apply(radar, params)
    return await _read_parameters(radar, None)


async def _apply(radar, wanted):
    """Set what differs from what the radar says: its memory does not last for ever."""
    if any(name in wanted for name in _PARAMETERS):
        asked = _differing(await _read_parameters(radar, None), wanted)
        if asked:
            await _ask(radar, asked)


def _differing(is_now, wanted):
    from drivers.ld2410_setting import differing

    forget("drivers.ld2410_setting")
    return differing(is_now, wanted)


async def _set_engineering(radar, params):
    """Report the energy of each gate for some minutes, or stop that."""
    on = bool(params.get("on", True))
    await _ask(radar, [commands.encode(commands.ENGINEERING_ON if on else commands.ENGINEERING_OFF)])
    radar.engineering_until = None
    if on:
        seconds = min(int(params.get("seconds", _ENGINEERING_S)), 86_400)
        radar.engineering_until = radar.clock.ticks_add(radar.clock.ticks_ms(), seconds * 1000)
    return {"engineering": on}


async def _end_engineering(radar, _):
    try:
        await _set_engineering(radar, {"on": False})
    except RadarError as error:
        print("radar:", error)


async def _restart(radar, _):
    """Restart the radar; it leaves its configuration by that."""
    dialogue = await _begin(radar)
    try:
        await dialogue.command(commands.enable())
        try:
            await dialogue.command(commands.encode(commands.RESTART))
        except RadarError:
            await dialogue.command(commands.encode(commands.END_CONFIGURATION))
            raise
        await asyncio.sleep_ms(_RESTART_MS)
    finally:
        dialogue.end()
    return {"restarted": True}


METHODS = {
    "find": find,
    "set_up": set_up,
    "end_engineering": _end_engineering,
    "radar_parameters": _read_parameters,
    "set_radar": _set,
    "radar_engineering": _set_engineering,
    "radar_restart": _restart,
}
"""What Ld2410.carry_out does."""
