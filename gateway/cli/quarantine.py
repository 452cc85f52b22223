"""`neurogate buffer quarantine`: what came in and could not be used."""

import asyncio
import json
import os
from typing import Annotated

import typer

from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import one_line, show_table
from gateway.config import Settings, load
from gateway.model.reading import rfc3339
from gateway.operations.quarantine import QuarantinedInput, page_quarantine, told

_PAGE = 1_000


def quarantine(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    code: Annotated[str | None, typer.Option(help="Only for this kind of reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 50,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show what came in and could not be used, the newest first, and why; with --json also what it was."""
    found = asyncio.run(_newest(load(config, os.environ).settings, device, code, limit))
    if as_json:
        print(json.dumps([told(one) for one in found]))
        return
    if not found:
        print("There is nothing in quarantine.")
        return
    rows = [
        (str(one.id), rfc3339(one.received_at_ms), one.device_id or "", one.source, one.code, one.reason)
        for one in found
    ]
    show_table(("id", "received", "device", "from", "code", "reason"), [[*map(one_line, row)] for row in rows])


async def _newest(settings: Settings, device: str | None, code: str | None, limit: int) -> list[QuarantinedInput]:
    found: list[QuarantinedInput] = []
    before: int | None = None
    async with connect(settings) as gateway:
        while True:
            left = min(limit - len(found), _PAGE)
            page = await gateway.call(page_quarantine, device_id=device, code=code, before=before, limit=left)
            found += page.found
            before = page.before
            if before is None or len(found) >= limit:
                return found
