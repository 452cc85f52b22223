"""What a release needs on a board."""

import re
import subprocess

from tests.firmware.board_process import MICROPYTHON, compiled

_MOST_BYTES = 10_000
"""Of one module: it is loaded in one piece into a heap that has holes."""


_MOST_NAMES = 590
"""Of 630, after which MicroPython makes room for 640 more at once: 7 KB. Some come with settings and topics."""


def _sizes() -> dict[str, int]:
    return {
        f"{file.parent.name}/{file.name}": file.stat().st_size
        for folder in ("app", "drivers")
        for file in (compiled() / folder).glob("*.mpy")
    }


def test_the_program_is_there() -> None:
    assert {"app/main.mpy", "app/hardware.mpy", "drivers/fitted.mpy"} <= _sizes().keys()


def test_no_module_is_too_large() -> None:
    assert {name: size for name, size in _sizes().items() if size > _MOST_BYTES} == {}


def test_all_of_it_fits_into_a_slot() -> None:
    assert sum(_sizes().values()) <= 100_000


def test_its_names_need_no_larger_table() -> None:
    modules = sorted(name.removesuffix(".mpy").replace("/", ".") for name in _sizes())
    modules = [name for name in modules if name != "app.hardware" and not name.endswith("__init__")]
    program = "import sys, micropython, asyncio, asyncio.stream; sys.path.insert(0, '.')\n"
    program += "".join(f"import {name}\n" for name in modules) + "micropython.qstr_info()\n"
    command = [str(MICROPYTHON), "-c", program]
    done = subprocess.run(command, cwd=compiled(), capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"n_qstr=(\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert int(found[1]) <= _MOST_NAMES, found[1]
