"""`neurogate buffer export`: stored readings as JSON lines or CSV.

With `--output` an interrupted export goes on where the file ends: the last complete line's id says where that is. A
line, or in CSV a reading, that is not whole is cut off first. So the same command, run again later, adds what is new.
"""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from gateway.cli.gateway_link import connect
from gateway.cli.options import ConfigFile
from gateway.cli.progress import ProgressShown
from gateway.cli.table import one_line
from gateway.config import Settings, load
from gateway.model.errors import BadInput
from gateway.operations.export import ExportPage, export_readings

_COLUMNS = ("id", "organization_id", "device_id", "time", "time_source", "sensor", "fields")
_HEADER = (",".join(_COLUMNS) + "\n").encode()
_BLOCK = 65_536

From = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Readings of this time and later: RFC 3339 or a date, UTC.")
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Readings before this time.")]


class Format(StrEnum):
    """How an export is written."""

    jsonl = "jsonl"
    csv = "csv"


def export(
    as_format: Annotated[Format, typer.Option("--format", help="One JSON object a reading, or a row a sensor.")] = (
        Format.jsonl
    ),
    device: Annotated[list[str] | None, typer.Option("--device", help="Only this board; may be repeated.")] = None,
    since: From = None,
    until: To = None,
    output: Annotated[
        Path | None, typer.Option(help="Write here, and go on where it ends.", show_default="standard output")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write stored readings as JSON lines or CSV."""
    settings = load(config, os.environ).settings
    asked = {"devices": device or [], "from_ms": _unix_ms(since), "to_ms": _unix_ms(until)}
    if output is None:
        count = asyncio.run(_export(settings, as_format, asked, None, sys.stdout.buffer))
    else:
        with _opened(output) as file:
            after_id = _take_up(file, as_format, output)
            count = asyncio.run(_export(settings, as_format, asked, after_id, file))
            file.flush()
            os.fsync(file.fileno())
    print(f"{count:,} readings exported.", file=sys.stderr)


async def _export(
    settings: Settings, as_format: Format, asked: dict[str, Any], after_id: str | None, file: IO[bytes]
) -> int:
    lines = _WRITERS[as_format]
    count = 0
    if as_format == Format.csv and after_id is None:
        file.write(_HEADER)
    async with connect(settings) as gateway:
        pages = gateway.stream(export_readings, **asked, after_id=after_id)
        async with aclosing(pages):
            first: ExportPage | None = None
            with ProgressShown("export", "rows") as shown:
                async for page in pages:
                    first = first or page
                    for reading in page.readings:
                        file.write(lines(reading))
                    count += len(page.readings)
                    shown.update(page.row - first.row, first.last_row - first.row)
    return count


def _json_line(reading: dict[str, Any]) -> bytes:
    return json.dumps(reading, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _csv_rows(reading: dict[str, Any]) -> bytes:
    """Return one row for each sensor; names come from boards, so what is no printable character becomes a space."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    same = [reading[name] for name in _COLUMNS[:5]]
    for sensor, fields in reading["sensors"].items():
        rows.writerow([*same, one_line(sensor), json.dumps(fields, separators=(",", ":"))])
    return text.getvalue().encode()


_WRITERS: dict[Format, Callable[[dict[str, Any]], bytes]] = {Format.jsonl: _json_line, Format.csv: _csv_rows}


def _unix_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time.") from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _opened(path: Path) -> IO[bytes]:
    """Open for reading and writing; a new file is its owner's alone."""
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise BadInput("unusable_file", f"{path} cannot be written ({error.strerror}).") from None


def _take_up(file: IO[bytes], as_format: Format, path: Path) -> str | None:
    """Cut off what is not whole, stand at the end, and return the last reading's id; None to begin anew."""
    if as_format == Format.csv and not _HEADER.startswith(file.read(len(_HEADER))):
        raise _no_export(path)
    end, last_id = _whole_end(file, as_format, path)
    file.truncate(end)
    file.seek(end)
    return last_id


def _whole_end(file: IO[bytes], as_format: Format, path: Path) -> tuple[int, str | None]:
    """Return where the last reading ends that is whole for certain, and its id."""
    last_id: str | None = None
    for start, line in _lines_backwards(file):
        if as_format == Format.csv and start == 0:
            break  # the header
        reading_id = _id_of(line, as_format, path)
        if as_format == Format.jsonl or last_id not in (None, reading_id):
            return start + len(line), reading_id
        last_id = reading_id  # some of its rows may be missing: they are written again
    return 0, None


def _lines_backwards(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is whole, the last first, with where it starts."""
    at = file.seek(0, os.SEEK_END)
    rest = b""
    is_torn = True
    while at > 0:
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        rest = file.read(size) + rest
        if is_torn:
            rest = rest[: rest.rfind(b"\n") + 1]
            is_torn = not rest
        while (newline := rest.rfind(b"\n", 0, max(0, len(rest) - 1))) >= 0:
            yield at + newline + 1, rest[newline + 1 :]
            rest = rest[: newline + 1]
    if rest:
        yield 0, rest


def _id_of(line: bytes, as_format: Format, path: Path) -> str:
    try:
        text = line.decode()
        found = json.loads(text)["id"] if as_format == Format.jsonl else next(csv.reader([text]))[0]
    except (ValueError, KeyError, TypeError, IndexError, StopIteration):
        raise _no_export(path) from None
    return str(found)


def _no_export(path: Path) -> BadInput:
    return BadInput(
        "no_export",
        f"{path} is no export in this format.",
        hint="Name another file; this one is untouched.",
    )
