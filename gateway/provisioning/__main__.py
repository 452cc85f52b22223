"""`python -m gateway.provisioning flash|logs`: what scripts/flash runs, with nothing of the gateway installed."""

import argparse
import sys

from gateway.model.errors import NeurogateError
from gateway.provisioning.console import show_console
from gateway.provisioning.flash import flash
from gateway.provisioning.ports import AUTO
from gateway.provisioning.wishes import ask_wifi, named_gateway, order_of, outcome, parser

_PROG = "scripts/flash"
_EVERY_PERCENT = 10


class PlainShown:
    """Lines on standard error."""

    def __init__(self) -> None:
        self._shown = -1

    def step(self, words: str) -> None:
        """Print a line."""
        print(words, file=sys.stderr, flush=True)  # noqa: T201

    def progress(self, done: int, total: int) -> None:
        """Print a line now and then."""
        tenth = 100 * done // max(total, 1) // _EVERY_PERCENT
        if tenth > self._shown:
            self._shown = tenth
            self.step(f"copied: {done:,} of {total:,} bytes")


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    try:
        if arguments[:1] == ["logs"]:
            options = argparse.ArgumentParser(prog=f"{_PROG} logs", description="Show a board's console until Ctrl-C.")
            options.add_argument("--port", default=AUTO)
            show_console(options.parse_args(arguments[1:]).port)
            return 0
        asked = parser(_PROG, has_gateway=False).parse_args(arguments)
        named = named_gateway(asked)
        assert named is not None, "argparse asks for one"
        address, link = named
        shown = PlainShown()
        shown.step(outcome(flash(order_of(asked), address, link, shown, ask_wifi=ask_wifi)))
    except NeurogateError as error:
        print("\n".join(filter(None, (f"Error: {error.message}", error.hint))), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
