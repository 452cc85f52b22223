"""A limit in time for what is waited for. asyncio's own takes twice the memory."""

import asyncio

from micropython import const

_LOOK_MS = const(20)


async def within(ms, doing, beat=None):
    """Return what a coroutine returns; call `beat()` meanwhile. Raises its errors, and asyncio.TimeoutError."""
    outcome = []
    task = asyncio.create_task(_caught(doing, outcome))
    try:
        while not outcome:
            if ms <= 0:
                raise asyncio.TimeoutError
            if beat is not None:
                beat()
            await asyncio.sleep_ms(_LOOK_MS)
            ms -= _LOOK_MS
    finally:
        task.cancel()
    result, error = outcome
    if error is not None:
        raise error
    return result


async def _caught(doing, outcome):
    """Keep the error, or MicroPython tells it as one that nobody waits for."""
    try:
        outcome += (await doing, None)
    except Exception as error:  # noqa: BLE001 - raised again by who waits
        outcome += (None, error)
