"""The parser `custom`: whatever JSON a device sends, by a mapping that its owner writes down.

Each field of a reading comes from a path into the message, a level of the topic, or a constant; numbers may be scaled.
A path that leads nowhere is an error that names it, unless its field is optional. Of several items each stands for
itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

from gateway.config.routes import FieldSource, Mapping
from gateway.model.errors import BadInput
from gateway.model.json_path import JsonPath, PathNotFound, parse_path
from gateway.parsers.contract import Found, Parser, check_count, each_of
from gateway.parsers.standard import load_json

_HINT = "Correct the mapping of the route, or set optional = true; neurogate parser test shows what comes of it."
_DIGITS = 12  # a scaled 214 is 21.4, not 21.400000000000002

_Get = Callable[[Any, Any, str], Any]
"""(the whole message, the item, the topic) → the value of a field; None when it is left out. Raises BadInput."""


def custom(mapping: Mapping) -> Parser:
    """Return the parser of a mapping."""
    envelope = {
        name: _getter(source)
        for name in ("timestamp", "age_ms", "boot_id", "seq", "firmware")
        if (source := getattr(mapping, name)) is not None
    }
    tables = {
        name: {field: _getter(source) for field, source in fields.items()} for name, fields in mapping.sensors.items()
    }
    health = {field: _getter(source) for field, source in mapping.health.items()}
    device_id = None if mapping.device_id is None else _getter(mapping.device_id)
    each = None if mapping.each is None else parse_path(mapping.each)

    def parse(data: bytes, topic: str) -> list[Found]:
        message = load_json(data)
        if each is None:
            return [reading(message, message, topic)]
        return each_of(_items(message, each), lambda item: reading(message, item, topic))

    def reading(message: Any, item: Any, topic: str) -> Found:  # noqa: ANN401 - JSON
        fields = dict(_values(envelope, message, item, topic))
        sensors = {name: dict(_values(table, message, item, topic)) for name, table in tables.items()}
        fields["sensors"] = {name: values for name, values in sensors.items() if values}
        if health and (values := dict(_values(health, message, item, topic))):
            fields["health"] = values
        name = None if device_id is None else device_id(message, item, topic)
        return Found(fields, None if name is None else _as_id(name), piece=item)

    def named(topic: str) -> str | None:
        assert device_id is not None
        try:
            return _as_id(device_id(None, None, topic))
        except BadInput:
            return None

    in_topic = mapping.device_id is not None and mapping.device_id.topic_level is not None
    return Parser("custom", parse, named=named if in_topic else None)


def _items(message: Any, each: JsonPath) -> list[Any]:  # noqa: ANN401 - JSON
    items = _find(each, message)
    if not isinstance(items, list):
        raise BadInput("no_readings", f"{each.text} is no array: there is no reading for each item.", hint=_HINT)
    if not items:
        raise BadInput("no_readings", f"The array {each.text} is empty.")
    check_count(len(items))
    return items


def _values(table: dict[str, _Get], message: Any, item: Any, topic: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for name, get in table.items():
        value = get(message, item, topic)
        if value is not None:
            yield name, value


def _getter(source: FieldSource) -> _Get:
    """Return what finds the value of a field."""
    if source.value is not None:
        return lambda _message, _item, _topic: source.value
    path = None if source.path is None else parse_path(source.path)

    def get(message: Any, item: Any, topic: str) -> Any:  # noqa: ANN401 - JSON
        value: Any
        try:
            if path is None:
                value = _level(topic, source.topic_level)
            else:
                value = path.find(message if path.from_root else item)
        except PathNotFound as error:
            if source.optional:
                return None
            raise _not_found(error) from None
        if value is None and not source.optional:
            raise BadInput("path_not_found", f"There is null at the path {source.path}.", hint=_HINT)
        return value if value is None else _scaled(value, source)

    return get


def _find(path: JsonPath, value: Any) -> Any:  # noqa: ANN401 - JSON
    try:
        return path.find(value)
    except PathNotFound as error:
        raise _not_found(error) from None


def _not_found(error: PathNotFound) -> BadInput:
    return BadInput("path_not_found", f"The path {error}.", hint=_HINT)


def _level(topic: str, level: int | None) -> str:
    levels = topic.split("/")
    if level is None or level > len(levels):
        raise PathNotFound(f"topic_level {level} was not found: {topic} has {len(levels)} levels")
    return levels[level - 1]


def _scaled(value: Any, source: FieldSource) -> Any:  # noqa: ANN401 - JSON
    if source.scale is None and source.offset is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput("not_a_number", f"{_name(source)} has a scale or offset, but is no number.", hint=_HINT)
    try:
        scaled = value * (1.0 if source.scale is None else source.scale) + (source.offset or 0.0)
    except OverflowError:
        raise BadInput("not_a_number", f"{_name(source)} is too large a number.", hint=_HINT) from None
    return float(f"{scaled:.{_DIGITS}g}")


def _name(source: FieldSource) -> str:
    return source.path or f"topic_level {source.topic_level}"


def _as_id(value: Any) -> str:  # noqa: ANN401 - JSON
    """A device may be named by a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput("invalid_device_id", "The device id is neither a text nor a whole number.", hint=_HINT)
    return str(value)[:_LONGEST_ID]


_LONGEST_ID = 200  # it is repeated in errors
