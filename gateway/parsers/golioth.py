"""What a pipeline of Golioth hands in: the data of one message of a device, or of several, as JSON.

- an object with `sensors` is a reading in the standard shape; if it names a `device_id`, it is that one's, as
  far as the sender may speak for it
- any other object is the fields of one sensor, which the stream's path names, as Golioth's own database has it:
  `{"latitude": 37.75}` at `.s/position` is `{"position": {"latitude": 37.75}}`. At `.s` itself each key is a sensor
- a number, a text or a truth is the field `value`
- an array is a message each
- what the transformer `inject-metadata` has wrapped is taken out of it, with its timestamp

A time is what Golioth takes for one: the first of `t`, `ts`, `time` and `timestamp` at the top that is a time.

Sources: https://docs.golioth.io/data-routing/destinations/webhook and its neighbours.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, Parser, check_count, each_of
from gateway.parsers.standard import load_json
from gateway.parsers.timestamp import unix_ms

TIME_KEYS = ("t", "ts", "time", "timestamp")

_TYPE = "io.golioth.data.v1/"
_STREAM = ".s"
_NO_NAME = "value"
_WRAPPED = {"data", "device_id", "project_id", "timestamp"}
_HINT = "A pipeline has to hand in JSON: objects, or values. For CBOR, put cbor-to-json before."


@dataclass(slots=True, frozen=True)
class Event:
    """What the headers of a request say."""

    source: str
    """Golioth's id of the device."""
    project_id: str
    type: str
    """`io.golioth.data.v1/` and the path."""

    @property
    def sensor(self) -> str:
        """What the path calls what was measured; nothing at the stream's own."""
        path = self.type.removeprefix(_TYPE).strip("/")
        return path.removeprefix(_STREAM).strip("/") if path.startswith(_STREAM) else path


def parser_of(event: Event, is_ours: Callable[[str], bool]) -> Parser:
    """Return what reads such a body; `is_ours` tells the ids of readings that this gateway has sent to Golioth."""

    def parse(data: bytes, _: str) -> list[Found]:
        value = load_json(data)
        if not isinstance(value, list):
            return [] if _is_echo(value, is_ours) else [_found(value, event)]
        check_count(len(value))
        if not value:
            raise BadInput("no_readings", "The array is empty.", hint=_HINT)
        return each_of((one for one in value if not _is_echo(one, is_ours)), lambda one: _found(one, event))

    return Parser("golioth", parse)


def is_echo(value: Any, is_ours: Callable[[str], bool]) -> bool:  # noqa: ANN401 - JSON
    """Whether all of it was sent to Golioth by this gateway: a pipeline hands back what it got."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(_is_echo(one, is_ours) for one in values)


def says_when(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether the data has a time of its own, so that the same data twice is the same measurement."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, dict) and _time_of(one) is not None for one in values)


def _is_echo(value: Any, is_ours: Callable[[str], bool]) -> bool:  # noqa: ANN401 - JSON
    data = value.get("data") if isinstance(value, dict) and value.keys() <= _WRAPPED else value
    name = data.get("id") if isinstance(data, dict) else None
    return isinstance(name, str) and is_ours(name)


def _found(value: Any, event: Event) -> Found:  # noqa: ANN401 - JSON
    source, time = event.source, None
    if isinstance(value, dict) and "data" in value and {"device_id", "project_id"} <= value.keys() <= _WRAPPED:
        source, time, value = str(value["device_id"]) or source, _time_of(value), value["data"]
    if isinstance(value, dict) and isinstance(value.get("sensors"), dict):
        fields, device_id = value, value.get("device_id")
        if isinstance(device_id, str) and device_id:
            return Found(fields, device_id)
        return _of(source, fields, time)
    if isinstance(value, dict):
        own = _time_of(value)
        values = {key: field for key, field in value.items() if own is None or key != own[0]}
        if not values:
            raise BadInput("no_readings", "The object holds no value.", hint=_HINT)
        return _of(source, {"sensors": _sensors(values, event.sensor)}, own or time)
    if value is None or isinstance(value, list):
        raise BadInput("invalid_golioth", "The data is neither an object nor a value.", hint=_HINT)
    return _of(source, {"sensors": {event.sensor or _NO_NAME: {"value": value}}}, time)


def _of(source: str, fields: dict[str, Any], time: tuple[str, Any] | None) -> Found:
    if time is not None and "timestamp" not in fields:
        fields = {**fields, "timestamp": time[1]}
    return Found(fields, source or None, (source,) if source else ())


def _sensors(values: dict[str, Any], sensor: str) -> dict[str, Any]:
    if sensor:
        return {sensor: values}
    return {key: value if isinstance(value, dict) else {"value": value} for key, value in values.items()}


def _time_of(value: dict[str, Any]) -> tuple[str, Any] | None:
    """Return the key that is a time, and the time."""
    for key in TIME_KEYS:
        time = value.get(key)
        if isinstance(time, dict) and isinstance(seconds := time.get("seconds"), int):  # of inject-metadata
            nanos = time.get("nanos")
            with suppress(OverflowError):  # such a number is no time
                time = seconds + (nanos / 1e9 if isinstance(nanos, int) else 0)
        if unix_ms(time) is not None:
            return key, time
    return None
