"""What a release needs on a board."""

import pytest

from gateway.provisioning.firmware_files import slot_files
from tests.firmware.board_process import compiled

_MOST_BYTES = 10_000
"""Of one module: it is loaded in one piece into a heap that has holes."""

MODULES = sorted(path.removesuffix(".py") + ".mpy" for path in slot_files())


def test_the_program_is_there() -> None:
    assert {"app/main.mpy", "app/hardware.mpy", "drivers/ld2410_frames.mpy"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_too_large(module: str) -> None:
    assert (compiled() / module).stat().st_size <= _MOST_BYTES


def test_all_of_it_fits_into_a_slot() -> None:
    assert sum((compiled() / module).stat().st_size for module in MODULES) <= 100_000
