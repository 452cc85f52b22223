"""What can go wrong between a laptop and a board."""

from gateway.model.errors import NeurogateError


class FlashFailed(NeurogateError):
    """A step of flashing did not work. What was on the board stays, as far as it was not replaced yet."""

    code = "flash_failed"


class BoardLost(FlashFailed):
    """The board does not answer any more."""

    code = "board_lost"


class NoMicroPython(FlashFailed):
    """Nothing on the port speaks MicroPython."""

    code = "no_micropython"
