"""Calibrates an MQ-13x gas sensor. In memory only meanwhile."""

import asyncio

from micropython import const

_SAMPLES = const(30)
_EVERY_MS = const(500)


async def calibrate(sensor, params):
    """Take the air as clean from now on; returns R0 and how much the samples differed. Raises ValueError."""
    if not sensor.is_warm and not params.get("force"):
        raise ValueError("the heater is not warm yet: wait, or send force")
    found = []
    for _ in range(_SAMPLES):
        rs = sensor.channel.rs_ohm(sensor.measure_uv())
        if rs is None:
            raise ValueError("the voltage is at a rail: look at the wiring")
        found.append(rs)
        await asyncio.sleep_ms(_EVERY_MS)
    r0 = round(sensor.channel.calibrate(median(found)), 2)
    if sensor.keep is not None:
        sensor.keep(r0)
    sensor.changed = True
    return {"r0_ohm": r0, "spread_pct": round(100 * (max(found) - min(found)) / median(found), 1)}


def median(numbers):
    """Return the middle one, which a spike does not move."""
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]
