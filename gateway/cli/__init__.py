"""The command line `neurogate`. Each command is a function in a module of this folder and its name below.

Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration, 130 interrupted.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from gateway import __version__
from gateway.model.errors import NeurogateError

COMMANDS = (
    "init",
    "check",
    "doctor",
    "diag",
    "run",
    "demo",
    "tail",
    "backup",
    "restore",
    "config",
    "service",
    "device",
    "alert",
    "credential",
    "notify",
    "org",
    "token",
    "integration",
    "secrets",
    "certs",
    "buffer",
    "parser",
)
"""Each is a module of this folder, with a function of its name, or `app` if it has commands of its own."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"neurogate {__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def command_line(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the command line, with these commands only: what they all import takes seconds on a Raspberry Pi."""
    app = typer.Typer(
        help="On-site agent between ESP32 sensors and every cloud: never loses a reading.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,  # they would show local variables
    )
    app.callback()(_options)
    for name in names:
        module = import_module(f"{__name__}.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command()(getattr(module, name))
    return app


def _wanted(first: Sequence[str]) -> Sequence[str]:
    """Return the commands that have to be imported, by what was asked first."""
    if first == ["--version"]:
        return ()
    return [name for name in first if name in COMMANDS] or COMMANDS


def main() -> None:
    """Run a command and exit with its code; an error of ours is told without a traceback."""
    try:
        try:
            gc.disable()  # modules make no garbage: to look for it takes a tenth of the time until they are imported
            try:
                command = command_line(_wanted(sys.argv[1:2]))
            finally:
                gc.enable()
            command(prog_name="neurogate")
        finally:
            sys.stdout.flush()
    except NeurogateError as error:
        print("\n".join(filter(None, (f"Error: {error.message}", error.hint))), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `neurogate tail | head`; nothing may be written any more, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
