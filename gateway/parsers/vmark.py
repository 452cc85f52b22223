"""The parser `vmark`: what a V-Mark hub reports of the devices behind it.

A hub publishes to `$sys/version/{version}/devices/{hub}/properties_report` and goes on only when it gets
`{"result": 0}` on the same topic with `_reply` behind it. The reply itself matches what one subscribes to for the
reports, so a bridge may bring it back: it is ignored, or the two would answer each other for ever.

The topics and the reply are all that is documented of the protocol. Of a report this is read, and the whole is kept:

- a report is an object about one device, or has a list of such objects in `devices`
- a device is named by `hardware_ids` (or `hardware_id`), then `serial_number`, then `device_id`; one that is not named
  is the hub itself
- its values are in `properties`, else in `params`, else what else is there: an object is a sensor of that name, all
  others are together the sensor `vmark`
- `timestamp`, else `time`, of the device or of the whole report, is when it was measured
"""

from typing import Any

from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, Parser, Reply, check_count, each_of
from gateway.parsers.standard import load_json

_REPORT, _REPLY = "properties_report", "_reply"
_SENSOR = "vmark"
_PROPERTIES = ("properties", "params")
_TIMES = ("timestamp", "time")
_ABOUT = {"hardware_ids", "hardware_id", "serial_number", "device_id", "devices", *_PROPERTIES, *_TIMES}
_LONGEST_ID = 200  # it is repeated in errors
_MOST_IDS = 20
_HINT = "A report is an object with properties; neurogate parser test FILE --topic TOPIC shows what comes of it."


def hub_of(topic: str) -> str | None:
    """Return whose topic it is: another device must not speak, nor get an answer, in the name of a hub."""
    match topic.split("/"):
        case ["$sys", "version", _, "devices", hub, *_]:
            return hub
        case _:
            return None


def is_report(topic: str) -> bool:
    """Whether a hub reports on the topic."""
    match topic.split("/"):
        case ["$sys", "version", _, "devices", _, last]:
            return last == _REPORT
        case _:
            return False


def is_reply(topic: str) -> bool:
    """Whether the topic is that of a reply."""
    return topic.endswith(_REPLY) and is_report(topic.removesuffix(_REPLY))


def reply_to(topic: str) -> Reply | None:
    """Return what a hub waits for after a report on the topic."""
    return Reply(topic + _REPLY, b'{"result":0}') if is_report(topic) else None


def heard_by(device_id: str | None) -> tuple[str, ...]:
    """Return where a hub, or whoever stands for all of them, hears its replies."""
    return ("$sys/version/+/devices/#" if device_id is None else f"$sys/version/+/devices/{device_id}/#",)


def parse_vmark(data: bytes, topic: str) -> list[Found]:
    """Return a reading for each device of a report. Raises BadInput."""
    report = load_json(data)
    hub = hub_of(topic)
    if hub is None or not is_report(topic):
        raise BadInput("invalid_vmark", f"{topic[:200]!r} is not the topic of a report.", hint=_HINT)
    if not isinstance(report, dict):
        raise BadInput("invalid_vmark", "A report is an object.", hint=_HINT)
    if "devices" not in report:
        return [_reading(report, report, hub)]
    devices = report["devices"]
    if not isinstance(devices, list) or not devices:
        raise BadInput("invalid_vmark", "devices must be a list of objects, at least one.", hint=_HINT)
    check_count(len(devices))
    return each_of(devices, lambda device: _reading(device, report, hub))


VMARK = Parser("vmark", parse_vmark, is_report, is_reply, hub_of, reply_to, heard_by)


def _reading(device: Any, report: dict[str, Any], hub: str) -> Found:  # noqa: ANN401 - JSON
    if not isinstance(device, dict):
        raise BadInput("invalid_vmark", "What stands in devices is no object.", hint=_HINT)
    fields: dict[str, Any] = {"sensors": _sensors(device)}
    times = [one[name] for one in (device, report) for name in _TIMES if type(one.get(name)) in (str, int, float)]
    if times:
        fields["timestamp"] = times[0]
    hardware_ids = device.get("hardware_ids", device.get("hardware_id"))
    ids = hardware_ids if isinstance(hardware_ids, list) else [hardware_ids]
    if len(ids) > _MOST_IDS:
        raise BadInput("invalid_vmark", f"A device has {len(ids)} hardware_ids, more than {_MOST_IDS}.", hint=_HINT)
    hardware = tuple(text for one in ids if (text := _as_id(one)))
    serial = _as_id(device.get("serial_number"))
    name = _as_id(device.get("device_id")) or next(iter(hardware), "") or serial
    return Found(fields, name or hub, hardware, serial, piece=device)


def _sensors(device: dict[str, Any]) -> dict[str, Any]:
    properties = next((device[name] for name in _PROPERTIES if isinstance(device.get(name), dict)), None)
    if properties is None:
        properties = {name: value for name, value in device.items() if name not in _ABOUT}
    if not properties:
        raise BadInput("invalid_vmark", "The report has no properties.", hint=_HINT)
    sensors = {name: value for name, value in properties.items() if isinstance(value, dict)}
    others = {name: value for name, value in properties.items() if not isinstance(value, dict)}
    if others:
        sensors[_SENSOR] = {**sensors.get(_SENSOR, {}), **others}
    return sensors


def _as_id(value: object) -> str:
    """Return an id as text, empty if it is none: a serial number may be a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()[:_LONGEST_ID]
