"""The command line `neurogate`. Each command is a function in a module of this folder and one line below.

Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration, 130 interrupted.
"""

import os
import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import (
    backup,
    buffer,
    certs,
    check,
    config,
    credential,
    demo,
    device,
    diag,
    doctor,
    init,
    org,
    parser,
    restore,
    run,
    secrets,
    service,
    tail,
    token,
)
from gateway.model.errors import NeurogateError

app = typer.Typer(
    help="On-site agent between ESP32 sensors and every cloud: never loses a reading.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they would show local variables
)

app.command()(init.init)
app.command()(check.check)
app.command()(doctor.doctor)
app.command()(diag.diag)
app.command()(run.run)
app.command()(demo.demo)
app.command()(tail.tail)
app.command()(backup.backup)
app.command()(restore.restore)
app.add_typer(config.app, name="config")
app.add_typer(service.app, name="service")
app.add_typer(device.app, name="device")
app.add_typer(credential.app, name="credential")
app.add_typer(org.app, name="org")
app.add_typer(token.app, name="token")
app.add_typer(secrets.app, name="secrets")
app.add_typer(certs.app, name="certs")
app.add_typer(buffer.app, name="buffer")
app.add_typer(parser.app, name="parser")


def main() -> None:
    """Run a command and exit with its code; an error of ours is told without a traceback."""
    try:
        try:
            app(prog_name="neurogate")
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


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"neurogate {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
