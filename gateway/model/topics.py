"""The topics of devices, and which of them carry telemetry. Who may use them is said in rights.py.

Every device owns three prefixes:

    neurobuild/sensors/{device_id}/…              its data
    org_{organization_id}/devices/{device_id}/…   everything
    devices/{device_id}/…                         the short form, in the organisation of the credential
"""

import re

DATA = "neurobuild/sensors/{device_id}/data"

FOR_DEVICES = ("commands", "config")
"""What a device is told, below its own prefixes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")


def is_name(text: str) -> bool:
    """Whether it can be the id of a device or an organisation, as it becomes a level of topics."""
    return _NAME.fullmatch(text) is not None


def telemetry_topics(organization_id: str, device_id: str) -> tuple[str, ...]:
    """Return the topics on which this device's readings arrive, the usual one first."""
    return (
        DATA.format(device_id=device_id),
        f"org_{organization_id}/devices/{device_id}/telemetry",
        f"devices/{device_id}/telemetry",
    )


def is_telemetry(topic: str) -> bool:
    """Whether a topic that lies under one of a device's prefixes carries its readings."""
    match topic.split("/"):
        case ["neurobuild", "sensors", _, "data"] | ["devices", _, "telemetry"]:
            return True
        case [first, "devices", _, "telemetry"]:
            return first.startswith("org_")
        case _:
            return False


def kept_prefixes(organization_id: str, device_id: str) -> tuple[str, ...]:
    """Return the prefixes of a device's topics where messages of all organisations are kept together."""
    return (
        f"{organization_id}/neurobuild/sensors/{device_id}/",
        f"{organization_id}/org_{organization_id}/devices/{device_id}/",
        f"{organization_id}/devices/{device_id}/",
    )


def addressed_device(organization_id: str, topic: str) -> str | None:
    """Return the id of the organisation's device under one of whose prefixes the topic lies; None if there is none."""
    match topic.split("/"):
        case ["neurobuild", "sensors", device_id, _, *_] | ["devices", device_id, _, *_]:
            pass
        case [first, "devices", device_id, _, *_] if first == f"org_{organization_id}":
            pass
        case _:
            return None
    return device_id if is_name(device_id) else None


def is_for_device(topic: str) -> bool:
    """Whether a topic that lies under one of a device's prefixes carries what the device is told."""
    match topic.split("/"):
        case ["neurobuild", "sensors", _, what, *_] | ["devices", _, what, *_]:
            return what in FOR_DEVICES
        case [first, "devices", _, what, *_]:
            return first.startswith("org_") and what in FOR_DEVICES
        case _:
            return False


def is_of_devices(topic: str) -> bool:
    """Whether a topic has the form of those that devices own, whoever it belongs to."""
    match topic.split("/"):
        case ["neurobuild", "sensors", *_] | ["devices", *_]:
            return True
        case [first, "devices", *_]:
            return first.startswith("org_")
        case _:
            return False


def is_topic_filter(text: str) -> bool:
    """Whether it is a topic filter: each wildcard is a level of its own, and `#` the last one (MQTT 3.1.1, 4.7.1)."""
    *levels, last = text.split("/")
    for level in levels:
        if "#" in level or ("+" in level and level != "+"):
            return False
    return bool(text) and (last in {"+", "#"} or not {"+", "#"} & set(last))


def matches(topic: str, topic_filter: str) -> bool:
    """Whether a topic matches a filter (MQTT 3.1.1, 4.7): `+` is one level, `#` the rest, neither of them `$…`."""
    if topic.startswith("$") and topic_filter[:1] in {"+", "#"}:
        return False
    levels = topic.split("/")
    filters = topic_filter.split("/")
    for index, part in enumerate(filters):
        if part == "#":
            return True
        if index >= len(levels) or part not in ("+", levels[index]):
            return False
    return len(levels) == len(filters)
