"""What a LD2410 radar can be told to do. In memory only meanwhile, with ld2410_dialogue.py."""

import asyncio

from micropython import const

from drivers import RadarError
from drivers import ld2410_commands as commands
from drivers.ld2410_dialogue import apply, ask, begin, read_parameters

_RESTART_MS = const(1_200)
_ENGINEERING_S = const(600)


async def _set(radar, params):
    """Set gates, time and sensitivities; returns what the radar then says that it is set to."""
    await apply(radar, params)
    return await read_parameters(radar, None)


async def _set_engineering(radar, params):
    """Report the energy of each gate for some minutes, or stop that."""
    on = bool(params.get("on", True))
    await ask(radar, [commands.encode(commands.ENGINEERING_ON if on else commands.ENGINEERING_OFF)])
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
    dialogue = await begin(radar)
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
    "end_engineering": _end_engineering,
    "set_radar": _set,
    "radar_engineering": _set_engineering,
    "radar_restart": _restart,
}
"""What Ld2410.carry_out does."""
