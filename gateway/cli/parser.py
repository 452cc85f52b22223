"""`neurogate parser`: which parsers there are, and what one makes of a sample. It stores nothing and asks nobody."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from gateway.cli.options import ConfigFile, JsonOutput
from gateway.cli.table import show_table
from gateway.config import Settings, load
from gateway.config.routes import ParserName
from gateway.model.errors import BadInput, ConfigError, NotFound, error_document
from gateway.model.reading import rfc3339_or_null
from gateway.model.topics import addressed_device, is_telemetry
from gateway.parsers.contract import Found, Parser, in_standard_shape
from gateway.parsers.routes import PARSERS, STANDARD, ParserRoutes, parser_of
from gateway.parsers.timestamp import unix_ms

app = typer.Typer(no_args_is_help=True, help="Try what becomes of a payload.")

_SENDER = "the-sender"
"""Stands for the device that a reading would be sent as."""
_READS = {
    "standard": "the gateway's own JSON, as in the README",
    "custom": "any JSON, by the mapping of its route",
    "senml": "SenML packs in JSON (RFC 8428)",
    "vmark": "reports of V-Mark hubs, which are answered",
}


@dataclass(slots=True, frozen=True)
class _Outcome:
    """What became of one reading of a sample."""

    device: str | None
    """What the message calls it; None when it would be the sender, if it is readable."""
    time: str | None
    """When it was measured; None for when it comes in."""
    age_ms: float | None
    sensors: dict[str, Any]
    hardware_ids: tuple[str, ...] = ()
    serial_number: str = ""
    problem: str = ""
    """Why it, or some sensor of it, would be quarantined."""
    readable: bool = True
    """False of an item of an array in which no reading was found: it names nobody, and no time."""


@app.command("list")
def list_parsers(as_json: JsonOutput = False, config: ConfigFile = None) -> None:
    """Show every parser, and the topics it is chosen for."""
    routes = load(config, os.environ).settings.ingest.routes
    rows = [
        {"parser": name, "reads": _READS[name], "topics": [route.topic for route in routes if route.parser == name]}
        for name in get_args(ParserName)
    ]
    if as_json:
        print(json.dumps(rows))
        return
    show_table(("parser", "reads", "topics"), [(row["parser"], row["reads"], "\n".join(row["topics"])) for row in rows])


@app.command("test")
def try_sample(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sample payload; - reads it from standard input.")],
    parser: Annotated[
        str | None, typer.Option(help="Which parser.", show_default="that of the topic's route, else standard")
    ] = None,
    topic: Annotated[str, typer.Option(help="What it would be published on.")] = "",
    organization: Annotated[
        str | None, typer.Option(help="Whose routes count.", show_default="gateway.organization_id")
    ] = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show the readings that a parser finds in a sample, or what is wrong with it."""
    settings = load(config, os.environ).settings
    chosen = _chosen(settings, parser, topic, organization or settings.gateway.organization_id)
    try:
        readings = _outcomes(chosen, _read(file), topic)
    except BadInput as error:
        if not as_json:
            raise
        print(json.dumps({"parser": chosen.name} | error_document(error.code, error.message, error.hint)))
        raise typer.Exit(1) from None
    failed = all(reading.problem and not reading.sensors for reading in readings)
    if as_json:
        print(json.dumps({"parser": chosen.name, "readings": [asdict(reading) for reading in readings]}))
    else:
        _show(chosen, readings)
    if failed:
        raise typer.Exit(1)


def _chosen(settings: Settings, name: str | None, topic: str, organization_id: str) -> Parser:
    by_topic = ParserRoutes.of(settings).parser(organization_id, topic) if topic else None
    if name is None:
        if topic and by_topic is None and not _is_read(organization_id, topic):
            raise NotFound(
                f"No route of {organization_id} matches {topic}, and devices send no readings there: nothing reads it.",
                hint="Correct the topic, add an [[ingest.routes]], or try a parser of your choice with --parser.",
            )
        return by_topic or STANDARD
    if name in PARSERS:
        return PARSERS[name]
    if name not in get_args(ParserName):
        raise NotFound(f"There is no parser {name}.", hint="neurogate parser list shows what there is.")
    if by_topic is not None and by_topic.name == name:
        return by_topic
    routes = [route for route in settings.ingest.routes if route.parser == name]
    if topic or len(routes) != 1:
        raise ConfigError(
            f"Which mapping is meant? {len(routes)} routes have the parser {name}"
            + (f", and none of them matches {topic}." if topic else "."),
            hint="Name a topic of the route with --topic, or add an [[ingest.routes]] with a mapping.",
        )
    return parser_of(routes[0])


def _is_read(organization_id: str, topic: str) -> bool:
    """Whether devices of the organisation send readings there that need no route."""
    return addressed_device(organization_id, topic) is not None and is_telemetry(topic)


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", hint="Name a file with a sample payload.") from None


def _outcomes(parser: Parser, data: bytes, topic: str) -> list[_Outcome]:
    """Return what becomes of each reading. Raises BadInput for a message of which nothing can be read."""
    if topic and not parser.reads(topic):
        raise BadInput(
            "not_read", f"The parser {parser.name} does not read {topic}.", hint="Try it with the topic it comes on."
        )
    return [_outcome(found) for found in parser.parse(data, topic)]


def _outcome(found: Found) -> _Outcome:
    if found.problem is not None:
        return _Outcome(None, None, None, {}, problem=str(found.problem), readable=False)
    names = (found.hardware_ids, found.serial_number)
    try:
        parsed = in_standard_shape(found, found.device_id or _SENDER)
    except BadInput as error:
        return _Outcome(found.device_id, None, None, {}, *names, problem=str(error))
    time_ms = unix_ms(parsed.body.get("timestamp"))
    return _Outcome(
        found.device_id,
        rfc3339_or_null(time_ms),
        parsed.body.get("age_ms") if time_ms is None else None,
        parsed.body["sensors"],
        *names,
        problem="; ".join(sensor.reason for sensor in parsed.bad_sensors),
    )


def _show(parser: Parser, readings: list[_Outcome]) -> None:
    print(f"parser    {parser.name}: {len(readings)} reading{'s' * (len(readings) != 1)}")
    for reading in readings:
        print()
        if not reading.readable:
            print("device    (it names nobody)")
            print(f"problem   {reading.problem}")
            continue
        print(f"device    {reading.device or '(the sender)'}")
        if reading.age_ms is not None:
            print(f"time      {reading.age_ms / 1000:g} s before it comes in")
        else:
            print(f"time      {reading.time or '(when it comes in)'}")
        for name, fields in reading.sensors.items():
            print(f"sensor    {name}  {json.dumps(fields, ensure_ascii=False)}")
        if reading.problem:
            print(f"problem   {reading.problem}")
