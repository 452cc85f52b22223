"""A passphrase, from a file or asked for."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.model.errors import BadInput

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Its first line is the passphrase.", show_default="ask")
]


def passphrase(file: Path | None, *, twice: bool) -> bytes:
    """Return the passphrase; `twice` where a slip of the finger would cost a backup. Raises BadInput."""
    if file is not None:
        try:
            text = file.read_text("utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("unusable_file", f"The passphrase file {file} cannot be read ({error}).") from None
    elif sys.stdin.isatty():
        text = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice)
    else:
        raise BadInput("no_passphrase", "There is no terminal to ask on.", hint="Use --passphrase-file.")
    if not text:
        raise BadInput("no_passphrase", "The passphrase is empty.", hint="Without it anybody could read the backup.")
    return text.encode()
