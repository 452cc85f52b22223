"""`neurogate tail`: readings as they arrive. Works beside a running gateway: it reads the log."""

import asyncio
import json
import os
from typing import Annotated, Any

import typer

from gateway.cli.options import ConfigFile, JsonOutput
from gateway.config import Settings, load
from gateway.model.reading import StoredReading, rfc3339, wire_reading
from gateway.storage.data_dir import DataDir
from gateway.storage.log_reader import LogReader

_LOOK_AGAIN_S = 0.2  # another process cannot be waited for; this is how late a line may be
_AT_ONCE = 500

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
    """Show readings as they arrive."""
    settings = load(config, os.environ).settings
    wanted_devices, wanted_sensors = set(device or ()), set(sensor or ())

    def is_wanted(reading: StoredReading) -> bool:
        return (not wanted_devices or reading.device_id in wanted_devices) and (
            not wanted_sensors or not wanted_sensors.isdisjoint(reading.body["sensors"])
        )

    async def follow() -> None:
        left = count
        async with LogReader.open(DataDir(settings.gateway.data_dir).log_db) as log:
            uuid = await log.log_uuid()
            position = max(0, await log.newest_row() - last)
            while True:
                readings = await log.read(position, limit=_AT_ONCE)
                for reading in filter(is_wanted, readings):
                    print(_json_line(reading, settings, uuid) if as_json else _line(reading), flush=True)
                    if left is not None and (left := left - 1) == 0:
                        return
                if readings:
                    position = readings[-1].row
                else:
                    await asyncio.sleep(_LOOK_AGAIN_S)

    asyncio.run(follow())


def _json_line(reading: StoredReading, settings: Settings, uuid: str) -> str:
    return json.dumps(wire_reading(reading, gateway_id=settings.gateway.id, log_uuid=uuid))


def _line(reading: StoredReading) -> str:
    sensors = "  ".join(f"{name}({_fields(fields)})" for name, fields in reading.body["sensors"].items())
    late = "  LATE" if reading.late else ""
    line = f"{rfc3339(reading.time_ms)}  {reading.device_id}  {sensors}{late}"
    return "".join(character if character.isprintable() else "?" for character in line)  # boards send what they like


def _fields(fields: Any) -> str:  # noqa: ANN401 - a sensor we do not know may be any JSON
    if isinstance(fields, dict):
        return " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
    return json.dumps(fields)
