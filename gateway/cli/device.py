"""`neurogate device`: register boards, list them, take their access away. Works beside a running gateway, too."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.options import ConfigFile, JsonOutput
from gateway.clock import SystemClock
from gateway.config import Settings, load
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.state import DeviceCredential, DeviceRow, State

app = typer.Typer(no_args_is_help=True, help="Register boards, list them, take their access away.")

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE")]
Organization = Annotated[str | None, typer.Option(help="Its organisation.", show_default="gateway.organization_id")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Goes out with its readings; may be repeated."),
]


@app.command()
def add(
    device_id: DeviceId,
    organization: Organization = None,
    metadata: Metadata = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Register a board and show its username and password, this once."""
    settings = load(config, os.environ).settings
    pairs = dict(_pair(text) for text in metadata or [])
    credential = asyncio.run(_add(settings, organization or settings.gateway.organization_id, device_id, pairs))
    if as_json:
        fields = {name: getattr(credential, name) for name in ("device_id", "username", "password", "topics")}
        print(json.dumps(fields))
        return
    print(f"device    {credential.device_id}")
    print(f"username  {credential.username}")
    print(f"password  {credential.password}   (kept nowhere else: note it now)")
    print(f"topic     {credential.topics[0]}")


@app.command("list")
def list_devices(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every board."""
    devices = asyncio.run(_list(load(config, os.environ).settings))
    if as_json:
        print(json.dumps([_as_dict(device) for device in devices]))
        return
    table = Table("organisation", "device", "status", "metadata", "registered", box=None)
    for device in devices:
        pairs = ", ".join(f"{name}={value}" for name, value in device.metadata.items())
        registered = rfc3339(device.created_at_ms)
        table.add_row(device.organization_id, device.device_id, device.status, pairs, registered)
    Console().print(table)


@app.command()
def revoke(device_id: DeviceId, organization: Organization = None, config: ConfigFile = None) -> None:
    """Take a board's access away; its readings stay. A running gateway ends its session within a second."""
    settings = load(config, os.environ).settings
    asyncio.run(_revoke(settings, organization or settings.gateway.organization_id, device_id))
    print(f"{device_id} has no access any more.")


async def _add(settings: Settings, organization: str, device_id: str, metadata: dict[str, str]) -> DeviceCredential:
    async with _state(settings) as state:
        return await state.add_device(organization, device_id, metadata)


async def _list(settings: Settings) -> list[DeviceRow]:
    async with _state(settings) as state:
        return await state.devices()


async def _revoke(settings: Settings, organization: str, device_id: str) -> None:
    async with _state(settings) as state:
        await state.revoke_device(organization, device_id)


@asynccontextmanager
async def _state(settings: Settings) -> AsyncIterator[State]:
    data_dir = DataDir(settings.gateway.data_dir).ensure()
    key = load_or_create_key(data_dir.password_key)
    async with State.open(data_dir.state_db, key, clock=SystemClock()) as state:
        yield state


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadInput("invalid_metadata", f"{text!r} is not KEY=VALUE.", hint="For example: --metadata room=kitchen")
    return name, value


def _as_dict(device: DeviceRow) -> dict[str, object]:
    return {
        "organization_id": device.organization_id,
        "device_id": device.device_id,
        "status": device.status,
        "metadata": device.metadata,
        "created_at": rfc3339(device.created_at_ms),
    }
