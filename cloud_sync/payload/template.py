"""A body as the receiver wants it: a JSON tree with references to fields, and nothing that runs.

- `"{{device_id}}"` becomes the field's value with its type: a number, true, an object; null where a reading has no such
  field
- `"motion in {{device_metadata.location}}"` becomes a text; what is not there is left out
- `{"$each_reading": tree}` becomes a list with the tree filled in for each reading. Without it the whole template is
  filled in for one reading, and a request carries one
- so does a key, as a text: `{"{{device_id}}": [{"ts": "{{time_ms}}", "values": "{{values}}"}]}`; but not outside of
  `$each_reading`, where there is no reading
- all else stays as it is written
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue
from pydantic_core import from_json

from cloud_sync.contract import Batch
from cloud_sync.payload.readings_batch import as_json, one_by_one, wire_readings
from gateway.config.problems import did_you_mean, nearest

EACH = "$each_reading"

BATCH_FIELDS = ("gateway_id", "batch_id", "count")
"""What there is outside of `$each_reading`: `batch_id` is the `webhook-id`, `count` how many readings there are."""
READING_FIELDS = (
    *("id", "organization_id", "device_id", "time", "time_source", "received_at", "late", "historical"),
    *("boot_id", "seq", "firmware", "sensors", "health", "device_metadata"),
    *("time_ms", "values", "reading", "gateway_id", "batch_id"),
)
"""What there is for a reading; `values` are all values of its sensors, by `sensor.field`, and `time_ms` is its time in
Unix milliseconds; `reading` is all of it, with whatever else the device has sent."""

_REFERENCE = re.compile(r"\{\{\s*([^{}\s]*)\s*\}\}")
_TELLS_ID = re.compile(r"\{\{\s*(id|reading|reading\.id)\s*\}\}")
_INDEX_DIGITS = 6

_Fields = Mapping[str, Any]
_Fill = Callable[[_Fields], Any]
_Write = Callable[[_Fields, Sequence[_Fields]], bytes]


class Template:
    """A template that has been checked. Raises ValueError, which says what is wrong with it."""

    def __init__(self, template: object) -> None:
        """`template` is the tree, or its JSON text."""
        tree = _parsed(template) if isinstance(template, str) else template
        self.is_for_one_reading = not _repeats(tree)
        """Whether a request can carry one reading only."""
        self.tells_ids = any(map(_TELLS_ID.match, _texts(tree)))
        """Whether what it makes says which reading it is, so that we know our own when it comes back."""
        self.names_ids = all(_TELLS_ID.match(str(one.get("id"))) for one in _tables(tree) if "device_id" in one)
        """Whether that stands under `id` wherever a device is named, as in our own shape."""
        self._write = _item(tree, one_by_one) if self.is_for_one_reading else _frame(tree)

    def encode(self, batch: Batch) -> bytes:
        """Return the body."""
        common = {"gateway_id": batch.gateway_id, "batch_id": batch.id}
        wire = zip(batch.readings, wire_readings(batch), strict=True)
        readings = [
            {**one, **common, "time_ms": stored.time_ms, "values": _values(one["sensors"]), "reading": one}
            for stored, one in wire
        ]
        return self._write({**common, "count": len(readings)}, readings)


def _checked(template: JsonValue) -> JsonValue:
    Template(template)  # raises ValueError; null is one, too
    return template


PayloadTemplate = Annotated[JsonValue, AfterValidator(_checked)]
"""A setting that is a template, or null for none."""


def _values(sensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{sensor}.{name}": value
        for sensor, fields in sensors.items()
        if isinstance(fields, dict)
        for name, value in fields.items()
    }


def _parsed(text: str) -> object:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}.") from None


def _repeats(tree: object) -> bool:
    return any(EACH in table for table in _tables(tree))


def _texts(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    inner = [*tree, *tree.values()] if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        yield from _texts(value)


def _tables(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        yield from _tables(value)


# What is written once for each request


def _frame(tree: object) -> _Write:
    if isinstance(tree, dict):
        if EACH in tree:
            if len(tree) > 1:
                raise ValueError(f'"{EACH}" stands alone in its object.')
            return _item(tree[EACH], _all)
        pairs = [(as_json(_key(key)) + b":", _frame(value)) for key, value in tree.items()]
        return lambda batch, readings: b"{%b}" % b",".join(key + write(batch, readings) for key, write in pairs)
    if isinstance(tree, list):
        writers = [_frame(value) for value in tree]
        return lambda batch, readings: b"[%b]" % b",".join(write(batch, readings) for write in writers)
    fill = filled(tree, BATCH_FIELDS)
    return lambda batch, _: as_json(fill(batch))


def _item(tree: object, joined: Callable[[Iterator[bytes]], bytes]) -> _Write:
    fill = filled(tree, READING_FIELDS)
    return lambda _, readings: joined(as_json(fill(reading)) for reading in readings)


def _all(items: Iterator[bytes]) -> bytes:
    return b"[%b]" % b",".join(items)


# What is filled in


def filled(tree: object, known: Sequence[str]) -> _Fill:
    """Return what fills in a tree, with these fields. Raises ValueError."""
    if isinstance(tree, dict):
        pairs = [(filled_text(_no_command(key), known), filled(value, known)) for key, value in tree.items()]
        return lambda fields: {key(fields): fill(fields) for key, fill in pairs}
    if isinstance(tree, list):
        items = [filled(value, known) for value in tree]
        return lambda fields: [fill(fields) for fill in items]
    if isinstance(tree, str):
        return _text(tree, known)
    return lambda _: tree


def _text(text: str, known: Sequence[str]) -> _Fill:
    """Return what fills in one text: the value itself, if it is nothing but a reference."""
    constants, paths = _parts(text, known)
    if constants == ["", ""]:
        return lambda fields: _value(fields, paths[0])
    return filled_text(text, known)


def filled_text(text: str, known: Sequence[str], quote: Callable[[str], str] = str) -> Callable[[_Fields], str]:
    """Return what fills in a text with these fields, each as `quote` writes it. Raises ValueError."""
    constants, paths = _parts(text, known)

    def write(fields: _Fields) -> str:
        values = [quote(_as_text(_value(fields, path))) for path in paths]
        return constants[0] + "".join(a + b for a, b in zip(values, constants[1:], strict=True))

    return write


def _parts(text: str, known: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return what stands around the references of a text, and these."""
    pieces = _REFERENCE.split(text)
    paths = [_path(reference, known) for reference in pieces[1::2]]
    if any("{{" in constant for constant in pieces[::2]):
        shown = known[0]  # nothing of the text: it may hold a secret
        raise ValueError(f"a text has braces that are no reference; write one as {{{{{shown}}}}}.")
    return pieces[::2], paths


def _path(reference: str, known: Sequence[str]) -> list[str]:
    name, *steps = reference.split(".")
    if name not in known:
        shown = f"{{{{{reference}}}}}"
        if known is BATCH_FIELDS and name in READING_FIELDS:
            raise ValueError(f'{shown} is a field of a reading: it stands inside of "{EACH}".')
        hint = did_you_mean(nearest(name, known)) or f"There are: {', '.join(known)}."
        raise ValueError(f"{shown} is an unknown field. {hint}")
    if "" in steps:
        raise ValueError(f"{{{{{reference}}}}} has a dot too many.")
    return [name, *steps]


def _value(fields: _Fields, path: Sequence[str]) -> Any:  # noqa: ANN401 - whatever the device has sent
    value: Any = fields
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and len(step) <= _INDEX_DIGITS and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value).decode()


def _no_command(key: str) -> str:
    if key.startswith("$each"):
        raise ValueError(f'"{key}" cannot stand here; the readings are "{EACH}", which is not inside of another.')
    return key


def _key(key: str) -> str:
    if "{{" in _no_command(key):
        raise ValueError(f'"{key}" is a key outside of "{EACH}": there it stays as it is, and holds no reference.')
    return key
