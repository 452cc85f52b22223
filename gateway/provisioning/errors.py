"""What can go wrong between a laptop and a board."""

from gateway.model.errors import NeurogateError


class FlashFailed(NeurogateError):
    """A step of flashing did not work; the hint says what to do. What was not replaced yet is still on the board."""

    code = "flash_failed"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)


class BoardLost(FlashFailed):
    """The board does not answer any more."""

    code = "board_lost"


class NoMicroPython(FlashFailed):
    """Nothing on the port speaks MicroPython."""

    code = "no_micropython"
