"""The parser `standard`: one JSON object, validated strictly; one bad sensor does not spoil the others."""

from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from gateway.model.errors import BadInput
from gateway.model.json_values import is_finite
from gateway.model.sensors import SENSORS
from gateway.model.telemetry import Envelope, Telemetry
from gateway.model.topics import is_name

_validate = TypeAdapter(Telemetry).validator.validate_json
_validate_envelope = TypeAdapter(Envelope).validator.validate_python
_validate_sensor = {name: TypeAdapter(kind).validator.validate_python for name, kind in SENSORS.items()}

_HINT = "See the payload in the README: device_id and at least one sensor are required."


class BadSensor(NamedTuple):
    """A sensor of a reading that cannot be used."""

    name: str
    reason: str


class Parsed(NamedTuple):
    """A reading in the standard shape."""

    body: dict[str, Any]
    """The object: `device_id`, `sensors`, perhaps `timestamp`, `age_ms`, `boot_id`, `seq` and others."""
    payload: bytes
    """The object as JSON; the very bytes that arrived, if they were it."""
    raw: bytes | None
    """What arrived, if `payload` is not that."""
    bad_sensors: tuple[BadSensor, ...]


def parse_standard(data: bytes) -> Parsed:
    """Read one standard reading. Raises BadInput when nothing of it can be used."""
    try:
        body = _validate(data)
    except ValidationError:
        body = None
    if body is None or not body["sensors"]:  # find out what exactly is wrong, and what can be saved
        return parse_object(load_json(data), data)
    return Parsed(body, data, None, ())


def load_json(data: bytes) -> Any:
    """Parse JSON that may come from anywhere. Raises BadInput."""
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise BadInput("invalid_json", f"Not JSON: {error}.", hint="Send one JSON object in UTF-8.") from None


def named_device(value: Any) -> str:
    """Return which device one parsed JSON value says it is from. Raises BadInput."""
    device_id = value.get("device_id") if isinstance(value, dict) else None
    if not isinstance(device_id, str) or not is_name(device_id):
        raise BadInput("invalid_device_id", "The reading names no device.", hint='Add "device_id".')
    return device_id


def parse_object(value: Any, data: bytes | None) -> Parsed:
    """Validate one parsed JSON value; `data` is what it came from, when it was the whole of it. Raises BadInput."""
    if not isinstance(value, dict):
        raise BadInput("not_an_object", f"A reading is a JSON object, not {_json_type(value)}.", hint=_HINT)
    if not is_finite({name: field for name, field in value.items() if name != "sensors"}):
        raise BadInput("not_finite", "The reading holds a number too large to be one.", hint="Leave the field out.")
    try:
        _validate_envelope(value)
    except ValidationError as error:
        raise BadInput("invalid_reading", explain(error), hint=_HINT) from None
    bad = tuple(_bad_sensors(value["sensors"]))
    if not bad:
        payload = to_json(value) if data is None else data
        return Parsed(value, payload, None, ())
    names = {sensor.name for sensor in bad}
    good = {name: fields for name, fields in value["sensors"].items() if name not in names}
    if not good:
        reasons = "; ".join(sensor.reason for sensor in bad)
        raise BadInput("invalid_sensors", f"No sensor of the reading is valid: {reasons}", hint=_HINT)
    body = {**value, "sensors": good}
    return Parsed(body, to_json(body), to_json(value) if data is None else data, bad)


def explain(error: ValidationError) -> str:
    """Say in one line which fields are wrong and why, without repeating what was sent."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'reading'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _bad_sensors(sensors: dict[str, Any]) -> list[BadSensor]:
    bad = []
    for name, fields in sensors.items():
        if not is_finite(fields):
            bad.append(BadSensor(name, f"{name}: holds a number too large to be one"))
            continue
        validate = _validate_sensor.get(name)
        try:
            if validate is not None:
                validate(fields)
        except ValidationError as error:
            bad.append(BadSensor(name, f"{name}: {explain(error)}"))
    return bad


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    return {str: "a string", list: "an array", bool: "a boolean"}.get(type(value), "a number")
