"""`neurogate service`: makes the gateway a service of this machine, says how it does, and takes it away again."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import JsonOutput
from gateway.cli.service_install import (
    UNIT_FILE,
    Place,
    carry_out,
    find_program,
    install_steps,
    is_installed,
    uninstall_steps,
)
from gateway.cli.service_status import service_status
from gateway.cli.service_unit import CONFIG, FOLDER, USER
from gateway.model.errors import NeurogateError

app = typer.Typer(help="The gateway as a service of this machine (systemd).", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Root = Annotated[Path, typer.Option(help="Another root, for example of an image; nothing is started there.")]


@app.command()
def install(
    program: Annotated[
        Path | None, typer.Option(help="The executable that is started.", show_default="this neurogate")
    ] = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a unit that was edited; it is kept.")] = False,
    root: Root = Path("/"),
) -> None:
    """Make the service, with a user of its own, and start it. After an upgrade, run it again."""
    place = _place(root, dry_run=dry_run)
    steps = list(install_steps(place, program or find_program(), force=force))
    carry_out(steps, only_say=dry_run)
    if place.is_live and not dry_run:
        print("It runs. How it does: neurogate service status")
        print(f"Its settings are in {CONFIG}; after a change: sudo systemctl restart {USER}")
        print(f"Commands run as its user: sudo -u {USER} neurogate device add esp32-kitchen")


@app.command()
def status(json_output: JsonOutput = False) -> None:
    """Say how the service does; exit code 1 unless it runs."""
    found = service_status(Place())
    if json_output:
        print(json.dumps(asdict(found), ensure_ascii=False))
    else:
        print(found.words)
        if found.says:
            print(f"It says: {found.says}")
        if found.restarts:
            print(f"systemd has started it again {found.restarts} times.")
        if found.installed and not found.starts_with_the_machine:
            print(f"It does not start with the machine; to change that: sudo systemctl enable {USER}")
        if found.edited:
            print(f"{UNIT_FILE} was edited: an upgrade will not replace it.")
    raise typer.Exit(0 if found.is_well else 1)


@app.command()
def uninstall(
    purge: Annotated[
        bool, typer.Option("--purge", help=f"Remove {FOLDER} and {CONFIG.parent} as well: readings, devices, keys.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    root: Root = Path("/"),
) -> None:
    """End the service and remove it; configuration and data stay."""
    place = _place(root, dry_run=dry_run)
    if purge and not (yes or dry_run):
        typer.confirm(f"Remove all readings, devices and keys in {FOLDER} and {CONFIG.parent}, for good?", abort=True)
    if not is_installed(place):
        print(f"There is no {UNIT_FILE}.")
    carry_out(list(uninstall_steps(place, purge=purge)), only_say=dry_run)


def _place(root: Path, *, dry_run: bool) -> Place:
    place = Place(root.absolute())
    if place.is_live and not dry_run:
        if os.geteuid() != 0:
            raise NeurogateError(
                "A service is made and removed by root.", hint="Run it with sudo, or see what it would do: --dry-run"
            )
        if not Path("/run/systemd/system").is_dir():
            raise NeurogateError(
                "This machine was not started by systemd.",
                hint="Let whatever starts services here run: neurogate run",
            )
    return place
