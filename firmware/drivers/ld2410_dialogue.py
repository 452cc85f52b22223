"""What is asked of the LD2410 radar, and answered by it. In memory only while something is asked.

A command is tried three times and counts when its acknowledgement has come; whatever happens, the configuration is left
again, as the radar reports nothing within it.
"""

import asyncio

from app.on_demand import forget
from micropython import const

from drivers import RadarError
from drivers import ld2410_commands as commands

_ACK_MS = const(300)
_TRIES = const(3)
_TURN_MS = const(5)
_PARAMETERS = ("moving_gate", "stationary_gate", "nobody_s", "moving_sensitivity", "stationary_sensitivity")


async def _set_up(radar, _):
    """Ask for the version, and set what is wanted to be set; a radar that does not answer is lost anyway."""
    try:
        (version,) = await ask(radar, [commands.encode(commands.READ_VERSION)])
        radar.version = commands.version(version)
        await apply(radar, radar.wanted)
    except (RadarError, ValueError) as error:
        print("radar:", error)


async def read_parameters(radar, _):
    """Return what the radar is set to. Raises RadarError."""
    (value,) = await ask(radar, [commands.encode(commands.READ_PARAMETERS)])
    return commands.parameters(value)


async def apply(radar, wanted):
    """Set what differs from what the radar says: its memory does not last for ever. Raises RadarError, ValueError."""
    if any(name in wanted for name in _PARAMETERS):
        asked = _differing(await read_parameters(radar, None), wanted)
        if asked:
            await ask(radar, asked)


def _differing(is_now, wanted):
    from drivers.ld2410_setting import differing

    forget("drivers.ld2410_setting")
    return differing(is_now, wanted)


async def ask(radar, asked):
    """Ask several commands within one configuration; returns the values that they were answered with.

    Raises RadarError.
    """
    dialogue = await begin(radar)
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


async def begin(radar):
    """Wait until nobody else asks; returns a dialogue, which must be ended."""
    while radar.is_configuring:
        await asyncio.sleep_ms(_TURN_MS)
    return _Dialogue(radar)


class _Dialogue:
    """One configuration: meanwhile the radar reports nothing, and answers."""

    def __init__(self, radar):
        self._radar = radar
        self.listen_for(0)
        radar.is_configuring = True
        radar.hear_answer = self._hear

    def listen_for(self, number):
        """Wait for the acknowledgement of this command from now on; `answer` is its status and value then."""
        self._number = number
        self._heard, self.answer = b"", None

    def _hear(self, data):
        heard = self._heard + data
        if self.answer is None:
            self.answer = commands.acknowledged(heard, self._number)
        self._heard = heard[-commands.LONGEST :]

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
            self.listen_for(number)
            radar.uart.write(frame)
            await radar.uart.drain()
            until = clock.ticks_add(clock.ticks_ms(), _ACK_MS)
            while clock.ticks_diff(until, clock.ticks_ms()) > 0:
                if self.answer is not None:
                    status, value = self.answer
                    if status:
                        raise RadarError("the radar refused command %02X" % number)
                    return value
                radar.beat_ms = clock.ticks_ms()
                await asyncio.sleep_ms(_TURN_MS)
        raise RadarError("the radar does not answer command %02X" % number)


METHODS = {"set_up": _set_up, "radar_parameters": read_parameters}
"""What Ld2410.carry_out does; the rest is in ld2410_orders.py."""
