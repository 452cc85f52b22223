"""Looks for a lost LD2410 radar at every speed that it knows. In memory only meanwhile, which may be for days."""

import asyncio

from micropython import const

_BAUDS = (256_000, 115_200, 9_600, 19_200, 38_400, 57_600, 230_400, 460_800)
LEAVE = b"\xfd\xfc\xfb\xfa\x02\x00\xfe\x00\x04\x03\x02\x01"
"""The command that ends a configuration, if it was left in that."""
_LISTEN_MS = const(300)
_PAUSE_MS = const(500)


async def find(radar):
    """Listen at every speed, the last good one first; returns whether it is heard, at once when nobody listens."""
    while radar.state == "lost" and not radar.listening.done():
        for baud in (radar.baud,) + tuple(rate for rate in _BAUDS if rate != radar.baud):
            radar.open(baud)
            radar.uart.write(LEAVE)
            await radar.uart.drain()
            await asyncio.sleep_ms(_LISTEN_MS)
            radar.beat_ms = radar.clock.ticks_ms()
            if radar.state != "lost":
                radar.baud = baud
                return True
        radar.open(radar.baud)
        await asyncio.sleep_ms(_PAUSE_MS)
    return False
