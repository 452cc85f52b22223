"""MicroPython itself onto a chip, by esptool. Files that a board has stay: only the image's own place is written."""

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from gateway.provisioning.errors import FlashFailed

_MAGIC = 0xE9
_CHIP_AT = 12
_ESP32 = 0
_PLACE = "0x1000"
"""Where an ESP32's image begins; other chips have another place."""
_MOST_BYTES = 0x200000 - 0x1000
"""Behind it are the files."""
_TIMEOUT_S = 300


def check_image(path: Path, sha256: str) -> None:
    """Raise FlashFailed unless the file is what its source says, and for this chip."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FlashFailed(f"{path} cannot be read: {error.strerror}.", hint="Name the image: --image FILE.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.strip().lower():
        raise FlashFailed(
            f"{path} is not the image that was meant: its SHA-256 is {found}.",
            hint="Load it again from micropython.org/download/ESP32_GENERIC, and compare it with the sum there.",
        )
    if len(content) <= _CHIP_AT + 1 or content[0] != _MAGIC:
        raise FlashFailed(f"{path} is no image for an ESP chip.", hint="Take the file that ends in .bin.")
    chip = int.from_bytes(content[_CHIP_AT : _CHIP_AT + 2], "little")
    if chip != _ESP32:
        raise FlashFailed(
            f"{path} is for another chip (its number is {chip}, not that of the ESP32).", hint="Take ESP32_GENERIC."
        )
    if len(content) > _MOST_BYTES:
        raise FlashFailed(f"{path} would overwrite the board's files.", hint="Take the image for 4 MB of flash.")


def write_image(port: str, path: Path) -> None:
    """Write a checked image. Raises FlashFailed with what esptool said."""
    if find_spec("esptool") is None:
        raise FlashFailed(
            "esptool is not installed; it writes MicroPython itself onto a board.",
            hint="Install it: pipx inject neurogate 'esptool>=5,<6' (or pip install 'neurogate[image]').",
        )
    command = [sys.executable, "-m", "esptool", "--chip", "esp32", "--port", port, "--baud", "460800"]
    command += ["--connect-attempts", "3", "write-flash", _PLACE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        said = (done.stdout + done.stderr).strip().splitlines()
    except subprocess.TimeoutExpired:
        raise FlashFailed(
            f"esptool did not end within {_TIMEOUT_S} s.", hint="Pull the cable, and try again."
        ) from None
    if done.returncode == 0:
        return
    reason = next((line for line in said if "error" in line.lower()), said[-1] if said else "without a word")
    if "This chip is" in reason:
        raise FlashFailed(
            f"Another chip is on {port}: {reason.strip()}", hint="The pins are those of an ESP32 (WROOM-32)."
        )
    raise FlashFailed(
        f"The image was not written: {reason.strip()}",
        hint="Hold BOOT, press EN shortly, let BOOT go, and try again. Nothing else may use the port.",
    )
