"""Which serial port a board is on, and whether it can be had."""

import errno
import stat
from pathlib import Path

import serial
from serial.tools import list_ports

from gateway.provisioning.errors import FlashFailed

AUTO = "auto"
_BRIDGES = {
    0x10C4: "Silicon Labs CP210x",
    0x1A86: "WCH CH340",
    0x0403: "FTDI",
    0x303A: "Espressif",
    0x067B: "Prolific",
}
"""The makers of what turns an ESP32's serial line into USB, by their USB vendor ids."""


def find_port(wanted: str) -> str:
    """Return the port of the board; `auto` means the only one that looks like one. Raises FlashFailed."""
    if wanted != AUTO:
        return wanted
    found = [port for port in list_ports.comports() if port.vid in _BRIDGES]
    if not found:
        raise FlashFailed(
            "No board is attached: no USB serial port that an ESP32 board has was found.",
            hint="Plug it in with a cable that carries data (many only charge), or name its port: --port /dev/ttyUSB0.",
        )
    if len(found) > 1:
        listed = ", ".join(f"{port.device} ({_BRIDGES[port.vid]})" for port in found)
        raise FlashFailed(f"Several boards are attached: {listed}.", hint=f"Name one: --port {found[0].device}")
    return found[0].device


def check_port(port: str) -> None:
    """Raise FlashFailed with the reason when the port cannot be opened."""
    try:
        if not stat.S_ISCHR(Path(port).stat().st_mode):
            raise FlashFailed(
                f"{port} is no serial port.", hint="Name the board's port, or let it be found: --port auto."
            )
        serial.Serial(port, exclusive=True).close()
    except FileNotFoundError:
        raise FlashFailed(
            f"There is no {port}.", hint="Is the board plugged in? `--port auto` finds it, if there is only one."
        ) from None
    except (OSError, ValueError) as error:  # pyserial's own are OSErrors too
        raise _refused(port, getattr(error, "errno", None), error) from None


def _refused(port: str, number: int | None, error: Exception) -> FlashFailed:
    if number in (errno.EACCES, errno.EPERM):
        return FlashFailed(
            f"This user may not open {port}.",
            hint="Once: sudo usermod -aG dialout $USER, then log out and in again.",
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return FlashFailed(
            f"Another program uses {port}.",
            hint=f"Close the terminal or `neurogate device logs` that has it open; lsof {port} shows which.",
        )
    return FlashFailed(f"{port} cannot be opened: {error}.", hint="Pull the board's cable, plug it in, and try again.")
