"""`neurogate device command` and `commands`: tell a board what to do, and see what came of it."""

import asyncio
import json
import os
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from gateway.cli.gateway_link import ask, connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.config import Settings, load
from gateway.model.command import Command
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.operations import commands

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE")]
Organization = Annotated[str | None, typer.Option(help="Its organisation.", show_default="gateway.organization_id")]

_EXIT_FAILED = 1


def send(
    device_id: DeviceId,
    method: Annotated[str, typer.Argument(metavar="NAME", help="What to do, as the board calls it: identify.")],
    params: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the method takes, as JSON or text; may be repeated."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Until when it may be done.")] = 30.0,
    command_id: Annotated[str | None, typer.Option("--id", help="One of your own: repeated, it is the same.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result; exit 1 if it is none.")] = False,
    organization: Organization = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Tell a board what to do, now or when it is back, until the time is over."""
    settings = load(config, os.environ).settings
    command = ask(
        settings,
        commands.send_command,
        organization_id=organization or settings.gateway.organization_id,
        device_id=device_id,
        method=method,
        params=dict(_pair(text) for text in params or []),
        timeout_ms=round(timeout_s * 1000),
        command_id=command_id,
    )
    if wait:
        command = asyncio.run(_outcome(settings, command))
    if as_json:
        print(json.dumps(_as_dict(command)))
    else:
        print(f"{command.id}  {command.state}{_result(command)}")
    if wait and command.state != "successful":
        raise typer.Exit(_EXIT_FAILED)


def list_commands(
    device_id: DeviceId, organization: Organization = None, as_json: JsonOutput = False, config: ConfigFile = None
) -> None:
    """Show what a board was told lately, and what came of it."""
    settings = load(config, os.environ).settings
    organization_id = organization or settings.gateway.organization_id
    known = ask(settings, commands.list_commands, organization_id=organization_id, device_id=device_id)
    if as_json:
        print(json.dumps([_as_dict(one) for one in known]))
        return
    rows = []
    for one in known:
        what = " ".join([one.method, *(f"{name}={json.dumps(value)}" for name, value in one.params.items())])
        rows.append((one.id, rfc3339(one.created_at_ms), what, one.state, _result(one).strip()))
    show_table(("id", "at", "command", "state", "result"), rows)


async def _outcome(settings: Settings, command: Command) -> Command:
    organization_id, device_id, command_id = command.key
    async with connect(settings) as gateway:
        changes = gateway.stream(
            commands.follow_command, organization_id=organization_id, device_id=device_id, command_id=command_id
        )
        async with aclosing(changes):
            return [state async for state in changes][-1]


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name or not text.isprintable():
        raise BadInput("invalid_params", f"{text!r} is not KEY=VALUE.", hint="For example: --set seconds=5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _result(command: Command) -> str:
    if command.late is not None:
        return f"  (too late: {command.late.state}{_shown(command.late.result)})"
    return _shown(command.result)


def _shown(result: object) -> str:
    if result is None:
        return ""
    return f"  {result if isinstance(result, str) and result.isprintable() else json.dumps(result)}"


def _as_dict(command: Command) -> dict[str, object]:
    fields = asdict(command)
    del fields["number"]
    if command.late is not None:
        fields["late"] = {
            "state": command.late.state,
            "result": command.late.result,
            "at": rfc3339_or_null(command.late.at_ms),
        }
    return {
        name.replace("_ms", ""): rfc3339_or_null(value) if name.endswith("_ms") else value
        for name, value in fields.items()
    }
