"""The topics of devices, and which of them carry telemetry. Who may use them is said in rights.py.

Every device owns three prefixes:

    neurobuild/sensors/{device_id}/…              its data
    org_{organization_id}/devices/{device_id}/…   everything
    devices/{device_id}/…                         the short form, in the organisation of the credential
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

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


class KeptTopics(NamedTuple):
    """The topics of one device, where messages of all organisations are kept together."""

    filters: tuple[str, ...]
    """What matches all of them, and perhaps others."""
    includes: Callable[[str], bool]


def _none_else(_: str) -> bool:
    return False


def kept_topics(
    organization_id: str, device_id: str, name_it: Callable[[str], bool] = _none_else, filters: Iterable[str] = ()
) -> KeptTopics:
    """Return those that the device owns, and of those that match `filters` the ones that name it.

    There topics are as a client of the organisation has them.
    """
    space = f"{organization_id}/"
    owned = ("neurobuild/sensors", f"org_{organization_id}/devices", "devices")
    prefixes = tuple(f"{space}{above}/{device_id}/" for above in owned)
    others: dict[str, bool] = {}

    def includes(topic: str) -> bool:
        if topic.startswith(prefixes):
            return True
        if topic not in others:
            others[topic] = topic.startswith(space) and name_it(topic.removeprefix(space))
        return others[topic]

    return KeptTopics((*(f"{prefix}#" for prefix in prefixes), *(space + one for one in filters)), includes)


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


def command_topic(organization_id: str, device_id: str, command_id: str) -> str:
    """Return where a device is told a command; what it says to it comes on the same with `/ack` behind."""
    return f"org_{organization_id}/devices/{device_id}/commands/{command_id}"


def answered_command(organization_id: str, topic: str) -> tuple[str, str] | None:
    """Return which device of the organisation answers which command on a topic; None when none does."""
    match topic.split("/"):
        case [first, "devices", device_id, "commands", command_id, "ack"] if first == f"org_{organization_id}":
            return device_id, command_id
        case _:
            return None


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
    """Whether it is a topic filter: each wildcard is a level of its own, `#` the last one, and no NUL (3.1.1, 4.7)."""
    *levels, last = text.split("/")
    for level in levels:
        if "#" in level or ("+" in level and level != "+"):
            return False
    return bool(text) and "\0" not in text and (last in {"+", "#"} or not {"+", "#"} & set(last))


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
