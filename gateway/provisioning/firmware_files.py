"""What of this project runs on a board, and where it lies there.

The sources are the folder `firmware/` of a checkout, or what the wheel carries of it beside this file. One file is
shared with the gateway: both read a radar's frames by the very same lines.
"""

from pathlib import Path

_PACKAGES = ("app", "drivers")
_SHARED = {"drivers/ld2410_frames.py": Path(__file__).parents[1] / "parsers" / "ld2410.py"}
_FIXED = ("boot.py", "main.py", "board.py")


def sources() -> Path:
    """Return the folder with the firmware's sources."""
    installed = Path(__file__).parent / "firmware"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "firmware"


def slot_files(root: Path | None = None) -> dict[str, Path]:
    """Return what a release consists of: path below its slot → source. An update replaces all of it."""
    root = root or sources()
    files = {f"{package}/{file.name}": file for package in _PACKAGES for file in sorted((root / package).glob("*.py"))}
    return files | _SHARED


def fixed_files(root: Path | None = None) -> dict[str, Path]:
    """Return what lies at the root and stays what it is until the board is flashed again: path → source."""
    return {name: (root or sources()) / name for name in _FIXED}
