"""`neurogate buffer erase`: removes what is stored of one board, for good."""

import asyncio
import os
from contextlib import aclosing
from typing import Annotated

import typer

from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile
from gateway.cli.progress import ProgressShown
from gateway.config import Settings, load
from gateway.operations.devices import list_devices
from gateway.operations.erase import erase_device
from gateway.parsers.routes import ParserRoutes
from gateway.storage.erase import Erased


def erase(
    device: Annotated[str, typer.Option(help="The board.")],
    organization: Annotated[
        str | None, typer.Option(help="Its organisation.", show_default="gateway.organization_id")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Erase what is stored of one board, also what is not delivered yet. Interrupted, run it again."""
    settings = load(config, os.environ).settings
    key = (organization or settings.gateway.organization_id, device)
    if not yes:
        question = f"Erase all readings of {device} in {key[0]}, for good? What is not delivered yet never will be."
        typer.confirm(question, abort=True)
    erased = asyncio.run(_erase(settings, *key))
    if erased.total:
        words = [f"{erased.readings:,} readings", f"{erased.dead_letters:,} dead letters"]
        words += [f"{erased.quarantined:,} quarantined and {erased.messages:,} kept MQTT messages"]
        print(f"Erased: {', '.join(words)}.")
    else:
        print(f"Nothing is stored of {device} in {key[0]}.")
    if nameless := ParserRoutes.of(settings).filters_that_name_no_device(key[0]):
        print(f"What the broker keeps under {', '.join(nameless)} stays: there topics do not say whose it is.")
    if asyncio.run(_has_access(settings, *key)):
        print(f"{device} still has access and may send more; to end that: neurogate device revoke {device}")


async def _erase(settings: Settings, organization_id: str, device_id: str) -> Erased:
    """Show how far it is, and return what was erased."""
    so_far = Erased()
    async with (
        connect(settings) as gateway,
        aclosing(gateway.stream(erase_device, organization_id=organization_id, device_id=device_id)) as steps,
    ):
        with ProgressShown("erase", "rows") as rows:
            async for so_far in steps:
                rows.update(so_far.count, so_far.total)
                if so_far.pages_left:
                    break
        pages = so_far.pages_left
        if pages:
            with ProgressShown("overwrite", "pages") as freed:
                async for so_far in steps:
                    freed.update(pages - so_far.pages_left, pages)
    return so_far


async def _has_access(settings: Settings, organization_id: str, device_id: str) -> bool:
    async with connect(settings) as gateway:
        devices = await gateway.call(list_devices)
    return any(
        (one.organization_id, one.device_id, one.status) == (organization_id, device_id, "active") for one in devices
    )
