"""What a release needs on a board."""

from tests.firmware.board_process import compiled

_MOST_BYTES = 10_000
"""Of one module: it is loaded in one piece into a heap that has holes."""


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
