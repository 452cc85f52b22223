"""A secret that is typed or handed in: never among the arguments, where every user of the machine could read it."""

import sys

import typer

from gateway.model.errors import BadInput
from gateway.storage.secrets import MOST_BYTES


def is_asked() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def ask_for(what: str) -> str:
    """Return what is typed, twice and unseen."""
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=True))


def from_stdin() -> str:
    """Return what is handed in, without the end of its last line. Raises BadInput."""
    return decoded(sys.stdin.buffer.read(MOST_BYTES + 2))


def decoded(content: bytes) -> str:
    """Return the text, without the end of its last line. Raises BadInput."""
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadInput("invalid_secret", "The value is not UTF-8 text.", hint="Encode it, as base64 say.") from None
