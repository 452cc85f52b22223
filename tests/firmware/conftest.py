"""The firmware's modules, laid out as on a board, for CPython as well: what runs on a board is tested under both."""

import asyncio
import shutil
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Literal

from gateway.provisioning.firmware_files import fixed_files, slot_files

SLOT = Path(tempfile.mkdtemp(prefix="firmware-"))


def _lay_out() -> None:
    for path, source in slot_files().items():
        place = SLOT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)
    shutil.copy(fixed_files()["main.py"], SLOT / "launcher.py")


def _speak_micropython() -> None:
    """Give CPython's asyncio the names that MicroPython has besides."""

    class ThreadSafeFlag(asyncio.Event):
        async def wait(self) -> Literal[True]:
            await super().wait()
            self.clear()
            return True

    for name, value in {
        "ThreadSafeFlag": ThreadSafeFlag,
        "sleep_ms": lambda ms: asyncio.sleep(ms / 1000),
        "wait_for_ms": lambda task, ms: asyncio.wait_for(task, ms / 1000),
    }.items():
        if not hasattr(asyncio, name):
            setattr(asyncio, name, value)
    vars(sys)["print_exception"] = lambda error, file: traceback.print_exception(error, file=file)
    micropython = types.ModuleType("micropython")
    vars(micropython)["const"] = lambda value: value
    sys.modules["micropython"] = micropython


_lay_out()
_speak_micropython()
sys.path[:0] = [str(SLOT), str(Path(__file__).with_name("pure"))]


def pytest_unconfigure() -> None:
    """Take away what was laid out."""
    shutil.rmtree(SLOT, ignore_errors=True)
