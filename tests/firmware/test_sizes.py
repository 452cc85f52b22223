"""What a release needs on a board."""

import pytest

from tests.firmware.board_process import compiled

_MOST_BYTES = 10_000
"""Of one module: it is loaded in one piece into a heap that has holes."""

MODULES = sorted(path.relative_to(compiled()).as_posix() for path in compiled().glob("*/*.mpy"))


def test_the_program_is_there() -> None:
    assert {"app/main.mpy", "app/hardware.mpy", "drivers/ld2410_frames.mpy"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_too_large(module: str) -> None:
    assert (compiled() / module).stat().st_size <= _MOST_BYTES


def test_all_of_it_fits_into_a_slot() -> None:
    assert sum((compiled() / module).stat().st_size for module in MODULES) <= 100_000
