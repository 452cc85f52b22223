"""Commands that the board carries out itself. In memory only meanwhile."""

import asyncio

from micropython import const

_LAST_WORDS_MS = const(5_000)
_IDENTIFY_S = const(10)
_CRASH_LOG_BYTES = const(2_048)


async def _identify(application, params):
    """Blink for some seconds."""
    seconds = params.get("seconds", _IDENTIFY_S)
    if not isinstance(seconds, int) or not 1 <= seconds <= 60:
        raise ValueError("seconds must be a whole number from 1 to 60")
    for on in (True, False) * (2 * seconds):
        application.hardware.led(on)
        await asyncio.sleep_ms(250)
    return {"seconds": seconds}


async def _restart(application, _):
    """Restart when the answer has arrived."""
    application.restarting = asyncio.create_task(_restart_later(application))
    return {"restarting": True}


async def _restart_later(application):
    for _ in range(_LAST_WORDS_MS // 100):
        await asyncio.sleep_ms(100)
        if not application.client.waiting:
            break
    application.restart("command", is_wanted=True)


async def _crash_log(application, _):
    log = application.crash_log
    return {"text": crash_text(log.path, _CRASH_LOG_BYTES), "since_start": log.count}


def crash_text(path, most_bytes):
    """Return the newest of the crash log."""
    data = b""
    for name in (path + ".old", path):
        try:
            with open(name, "rb") as file:
                data += file.read()
        except OSError:
            pass
    return "".join(chr(byte) if byte < 128 else "?" for byte in data[-most_bytes:])  # a character may be cut


METHODS = {"identify": _identify, "restart": _restart, "crash_log": _crash_log}
"""What Application.carry_out does; read_back is in a file of its own."""
