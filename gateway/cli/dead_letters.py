"""`neurogate buffer dead-letters`, `replay` and `drop`: what destinations refused."""

import asyncio
import json
import os
import sys
from contextlib import aclosing, suppress
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask, connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.progress import ProgressShown
from gateway.cli.table import one_line, show_table
from gateway.config import Settings, load
from gateway.model.reading import rfc3339
from gateway.operations.dead_letters import (
    RefusedReading,
    ReplayProgress,
    drop_dead_letters,
    list_dead_letters,
    replay_dead_letters,
    told,
)

Destination = Annotated[str | None, typer.Option(help="Only those of this destination.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them.")]
Rows = Annotated[list[int] | None, typer.Argument(metavar="[ROW]...", help="Rows, as `dead-letters` lists them.")]


def dead_letters(destination: Destination = None, as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show the readings that destinations refused, and why."""
    letters = asyncio.run(_list(load(config, os.environ).settings, destination))
    if as_json:
        print(json.dumps([told(letter) for letter in letters]))
        return
    if not letters:
        print("There are no dead letters.")
        return
    rows = []
    for letter in letters:
        state = " (provisional)" if letter.provisional else " (replay requested)" if letter.replay_requested else ""
        when, reason = rfc3339(letter.time_ms), one_line(letter.reason) + state
        rows.append((str(letter.row), letter.destination, letter.device_id, when, str(letter.attempts), reason))
    columns = ("row", "destination", "device", "time", "attempts", "reason")
    show_table(columns, rows)


def replay(
    rows: Rows = None,
    destination: Destination = None,
    everything: Everything = False,
    wait: Annotated[bool, typer.Option(help="Wait until the destination has answered.")] = True,
    config: ConfigFile = None,
) -> None:
    """Send refused readings again. Each stays until its destination has it; Ctrl-C ends only the watching."""
    _say_which(rows, everything=everything)
    settings = load(config, os.environ).settings
    raise typer.Exit(asyncio.run(_replay(settings, rows or [], destination, wait=wait)))


def drop(
    rows: Rows = None, destination: Destination = None, everything: Everything = False, config: ConfigFile = None
) -> None:
    """Give refused readings up for good; the log keeps them as long as it would anyway."""
    _say_which(rows, everything=everything)
    dropped = ask(load(config, os.environ).settings, drop_dead_letters, rows=rows or [], destination=destination)
    print(f"Dropped: {_readings(dropped)}.")


def _say_which(rows: list[int] | None, *, everything: bool) -> None:
    if bool(rows) == everything:
        raise typer.BadParameter("Name rows, or say --all.")


async def _list(settings: Settings, destination: str | None) -> list[RefusedReading]:
    async with connect(settings) as gateway:
        return [letter async for page in gateway.stream(list_dead_letters, destination=destination) for letter in page]


async def _replay(settings: Settings, rows: list[int], destination: str | None, *, wait: bool) -> int:
    """Ask for a replay, watch it, and return the exit code."""
    async with (
        connect(settings) as gateway,
        aclosing(gateway.stream(replay_dead_letters, rows=rows, destination=destination)) as steps,
    ):
        step = await anext(steps)
        if not step.total:
            print("There are no dead letters.")
            return 0
        print(f"Replay requested: {_readings(step.total)}.")
        for name in step.absent:
            print(f"There is no active integration {name}: its dead letters wait for one.", file=sys.stderr)
        if not gateway.is_live:
            print("The gateway is not running; they go out after its next start.")
        if not gateway.is_live or not wait:
            return 0
        interrupted = True
        with ProgressShown("replay", "readings settled") as shown, suppress(asyncio.CancelledError):
            shown.update(step.total - step.waiting, step.total)
            async for step in steps:
                shown.update(step.total - step.waiting, step.total)
            interrupted = False
    print(_result(step))
    return 130 if interrupted else 1 if step.refused or step.waiting or step.gone else 0


def _result(step: ReplayProgress) -> str:
    words = f"Delivered: {_readings(step.delivered)}."
    if step.refused:
        words += f" Refused again: {_readings(step.refused)}; see: neurogate buffer dead-letters"
    if step.gone:
        words += f" Given up meanwhile: {_readings(step.gone)}."
    if step.waiting:
        words += f" Still to go: {_readings(step.waiting)}; a running gateway goes on with them."
    return words


def _readings(count: int) -> str:
    return "1 reading" if count == 1 else f"{count:,} readings"
