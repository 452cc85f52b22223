"""The parser `senml`: packs of Sensor Measurement Lists in JSON (RFC 8428).

Records are resolved (4.6) and then grouped into readings, one for each device and time, in the order of the pack:

- the device is the base name without its last separator, or the `urn:dev:` name a record has without one; a record
  with neither is the sender's own
- the sensor is the record's name: `temperature` becomes {"temperature": {"value": …, "unit": …}}, and `pir/pulses` the
  field `pulses` of the sensor `pir`, so that the gateway's own sensor types can be told in SenML, too
- a relative time is how long ago it was measured, when the message came; 0 is now

A label that is not known is ignored, unless it ends in `_`: then the pack is refused (4.4).
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, Parser, check_count
from gateway.parsers.standard import load_json

MEDIA_TYPE = "application/senml+json"

_VERSION = 10
_MOST_RECORDS = 10_000
_ABSOLUTE_FROM = 2**28
"""Smaller times are relative to now (4.5.3)."""
_BASES = {"bn": str, "bt": float, "bu": str, "bv": float, "bs": float, "bver": int}
_LABELS = {"n": str, "u": str, "v": float, "vs": str, "vb": bool, "vd": str, "s": float, "t": float, "ut": float}
_KNOWN = _BASES | _LABELS
_VALUES = ("v", "vs", "vb", "vd")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_SEPARATORS = ":./_-"
_NO_NAME = "value"
"""What a sensor is called whose record has no name but that of its device."""
_HINT = "See RFC 8428; neurogate parser test FILE --parser senml shows what comes of a pack."


class _Record(NamedTuple):
    """A resolved record, with its name in two parts."""

    device: str
    """Empty when it is the sender's own."""
    sensor: str
    time: float
    unit: str
    values: dict[str, Any]
    """`value`, perhaps `sum` and `update_time_s`."""


def parse_senml(data: bytes, _topic: str) -> list[Found]:
    """Return a reading for each device and time of a pack. Raises BadInput."""
    pack = load_json(data)
    if not isinstance(pack, list):
        raise BadInput("invalid_senml", "A SenML pack is an array of records.", hint=_HINT)
    if len(pack) > _MOST_RECORDS:
        raise BadInput("too_many_readings", f"{len(pack)} records in one pack.", hint=f"Send at most {_MOST_RECORDS}.")
    latest: dict[tuple[str, float], Found] = {}
    readings: list[Found] = []
    for record in _resolved(pack):
        sensor, _, field = record.sensor.rpartition("/")
        fields = _named(record, field) if sensor else _alone(record)
        key = (record.device, record.time)
        # The same name and time twice are two readings: nothing is lost.
        if key not in latest or not _add(latest[key], sensor or field, fields):
            readings.append(_reading(*key))
            check_count(len(readings))
            latest[key] = readings[-1]
            _add(latest[key], sensor or field, fields)
    if not readings:
        raise BadInput("invalid_senml", "The pack holds no measurement.", hint=_HINT)
    return readings


SENML = Parser("senml", parse_senml)


def _resolved(pack: list[Any]) -> Iterator[_Record]:
    base: dict[str, Any] = {}
    for index, record in enumerate(pack):
        where = f"Record {index}"
        if not isinstance(record, dict):
            raise BadInput("invalid_senml", f"{where} is no object.", hint=_HINT)
        for label, value in record.items():
            _check(where, label, value)
        base |= {label: value for label, value in record.items() if label in _BASES}
        if base.get("bver", _VERSION) > _VERSION:
            raise BadInput("invalid_senml", f"{where} is of version {base['bver']}, newer than {_VERSION}.", hint=_HINT)
        if not record.keys() & (_LABELS.keys() | {"bv", "bs"}):
            continue  # it only says what holds for those that follow
        yield _record(where, record, base)


def _check(where: str, label: str, value: Any) -> None:  # noqa: ANN401 - JSON
    kind = _KNOWN.get(label)
    if kind is None:
        if label.endswith("_"):
            raise BadInput(
                "invalid_senml", f"{where} has the label {label[:50]!r}, which must be understood.", hint=_HINT
            )
        return
    is_right = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not is_right or (isinstance(value, bool) and kind is not bool):
        what = {str: "a text", bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise BadInput("invalid_senml", f"{where}: {label} must be {what}.", hint=_HINT)


def _record(where: str, record: dict[str, Any], base: dict[str, Any]) -> _Record:
    given = [label for label in _VALUES if label in record]
    if len(given) > 1:
        raise BadInput("invalid_senml", f"{where} has several values: {', '.join(given)}.", hint=_HINT)
    values: dict[str, Any] = {}
    if given and given != ["v"]:
        values["value"] = record[given[0]]
    elif given or "bv" in base:
        values["value"] = _sum(where, base.get("bv"), record.get("v"))
    if "s" in record or "bs" in base:
        values["sum"] = _sum(where, base.get("bs"), record.get("s"))
    if not values:
        raise BadInput("invalid_senml", f"{where} has neither a value nor a sum.", hint=_HINT)
    if "ut" in record:
        values["update_time_s"] = record["ut"]
    device, sensor = _names(where, base.get("bn", ""), record.get("n", ""))
    time = float(_sum(where, base.get("bt"), record.get("t")))
    return _Record(device, sensor, time, record.get("u", base.get("bu", "")), values)


def _sum(where: str, base: float | None, value: float | None) -> float:
    """Add a base; what is missing is zero. What has no base stays the number it is."""
    try:
        total = (value or 0) if base is None else base + (value or 0)
        if math.isfinite(total):
            return total
    except OverflowError:
        pass
    raise BadInput("invalid_senml", f"{where} holds a number too large to be one.", hint=_HINT)


def _names(where: str, base: str, name: str) -> tuple[str, str]:
    """Return the names of device and sensor."""
    if _NAME.fullmatch(base + name) is None:
        words = "no name" if not base + name else f"the name {(base + name)[:100]!r}"
        raise BadInput(
            "invalid_senml",
            f"{where} has {words}.",
            hint="A name begins with a letter or digit, and holds only these and : . / _ - besides.",
        )
    if base:
        return base.rstrip(_SEPARATORS), name.strip("/") or _NO_NAME
    if name.startswith("urn:dev:"):
        device, _, sensor = name.partition("_")  # RFC 9039, 3: what belongs to a device follows an underscore
        return device, sensor.strip("/") or _NO_NAME
    return "", name.strip("/") or _NO_NAME


def _alone(record: _Record) -> dict[str, Any]:
    return record.values | ({"unit": record.unit} if record.unit else {})


def _named(record: _Record, field: str) -> dict[str, Any]:
    """Return what a record says of one field of a sensor."""
    fields = {field if name == "value" else f"{field}_{name}": value for name, value in record.values.items()}
    return fields | ({f"{field}_unit": record.unit} if record.unit else {})


def _add(reading: Found, sensor: str, fields: dict[str, Any]) -> bool:
    """Add a measurement to a reading, unless it has that one."""
    known: dict[str, Any] = reading.fields["sensors"].setdefault(sensor, {})
    if known.keys() & fields.keys():
        return False
    known.update(fields)
    return True


def _reading(device: str, time: float) -> Found:
    fields: dict[str, Any] = {"sensors": {}}
    if time >= _ABSOLUTE_FROM:
        fields["timestamp"] = time
    elif time < 0:
        fields["age_ms"] = -time * 1000
    return Found(fields, device or None)
