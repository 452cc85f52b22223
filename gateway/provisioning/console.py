"""What a board says on its serial line."""

import sys

import serial

from gateway.provisioning.errors import BoardLost
from gateway.provisioning.ports import check_port, find_port

BAUD = 115_200


def show_console(port: str) -> None:
    """Print what the board says until it is interrupted (KeyboardInterrupt). Raises FlashFailed."""
    port = find_port(port)
    check_port(port)
    try:
        line = serial.Serial(port, BAUD, timeout=0.2, exclusive=True)
    except OSError as error:
        raise BoardLost(f"{port} cannot be opened ({error}).", hint="Try again.") from None
    with line:
        while True:
            try:
                data = line.read(max(1, line.in_waiting))
            except OSError as error:
                raise BoardLost(f"The board is gone ({error}).", hint="Look at cable and supply.") from None
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
