"""`neurogate buffer`: what the log holds, and how far each destination is. Works beside a running gateway, too."""

import asyncio
import json
import os
import time
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.options import ConfigFile, JsonOutput
from gateway.config import load
from gateway.model.status import BufferStatus
from gateway.storage.data_dir import DataDir
from gateway.storage.log_reader import LogReader

app = typer.Typer(no_args_is_help=True, help="What the log holds, and how far each destination is.")


@app.callback()
def buffer() -> None:
    """Stay a group while there is only one command."""


@app.command()
def status(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show the log's size, and for each destination what it still has to get."""
    settings = load(config, os.environ).settings
    log, destinations = asyncio.run(_status(DataDir(settings.gateway.data_dir)))
    if as_json:
        print(json.dumps({"buffer": asdict(log), "destinations": destinations}))
        return
    print(f"{log.readings:,} readings (rows {log.oldest_row} to {log.newest_row}), {log.bytes / 1e6:,.1f} MB on disk")
    print(f"{log.quarantined:,} in quarantine")
    table = Table("destination", "position", "undelivered", "oldest", box=None)
    for one in destinations:
        age = "" if one["oldest_seconds"] is None else f"{one['oldest_seconds']} s"
        table.add_row(str(one["name"]), str(one["position"]), f"{one['undelivered']:,}", age)
    if destinations:
        Console().print(table)


async def _status(data_dir: DataDir) -> tuple[BufferStatus, list[dict[str, str | int | None]]]:
    async with LogReader.open(data_dir.log_db) as log:
        destinations: list[dict[str, str | int | None]] = []
        for cursor in await log.cursors():
            undelivered, oldest_ms = await log.count_after(cursor.position)
            age = None if oldest_ms is None else round(time.time() - oldest_ms / 1000)
            destinations.append(
                {
                    "name": cursor.name,
                    "position": cursor.position,
                    "undelivered": undelivered,
                    "oldest_seconds": age,
                }
            )
        return await log.buffer(), destinations
