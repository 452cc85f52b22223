"""`neurogate tail`: readings as they are committed, from a running gateway; the newest stored ones when none runs."""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from typing import Annotated, Any

import typer

from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.config import Settings, load
from gateway.operations.tail import tail_readings

Devices = Annotated[list[str] | None, typer.Option("--device", help="Only this board; may be repeated.")]
Sensors = Annotated[list[str] | None, typer.Option("--sensor", help="Only readings with it; may be repeated.")]
Last = Annotated[int, typer.Option("--last", "-n", min=0, help="Start with this many that are stored already.")]
Count = Annotated[int | None, typer.Option("--count", min=1, help="End after this many.")]


def tail(
    device: Devices = None,
    sensor: Sensors = None,
    last: Last = 10,
    count: Count = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show readings as they arrive, until the gateway stops."""
    settings = load(config, os.environ).settings
    asyncio.run(_follow(settings, device or [], sensor or [], last, count, as_json=as_json))


async def _follow(
    settings: Settings, devices: list[str], sensors: list[str], last: int, count: int | None, *, as_json: bool
) -> None:
    left = count
    async with connect(settings) as gateway:
        async with aclosing(gateway.stream(tail_readings, devices=devices, sensors=sensors, last=last)) as pages:
            async for page in pages:
                if page.skipped:
                    print(
                        f"{page.skipped:,} readings were skipped: they came faster than they could be shown.",
                        file=sys.stderr,
                    )
                for reading in page.readings:
                    print(json.dumps(reading) if as_json else _line(reading), flush=True)
                    if left is not None and (left := left - 1) == 0:
                        return
        words = "The gateway has stopped." if gateway.is_live else "No gateway is running: nothing new can come."
        print(words, file=sys.stderr)


def _line(reading: dict[str, Any]) -> str:
    sensors = "  ".join(f"{name}({_fields(fields)})" for name, fields in reading["sensors"].items())
    late = "  LATE" if reading["late"] else ""
    line = f"{reading['time']}  {reading['device_id']}  {sensors}{late}"
    return "".join(character if character.isprintable() else "?" for character in line)  # boards send what they like


def _fields(fields: Any) -> str:  # noqa: ANN401 - a sensor we do not know may be any JSON
    if isinstance(fields, dict):
        return " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
    return json.dumps(fields)
