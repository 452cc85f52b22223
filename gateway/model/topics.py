"""The topics a device may use, and which of them carry telemetry.

Every device owns three prefixes, and nothing else:

    neurobuild/sensors/{device_id}/…              its data
    org_{organization_id}/devices/{device_id}/…   everything
    devices/{device_id}/…                         the short form, in the organisation of its credential
"""

DATA = "neurobuild/sensors/{device_id}/data"


def owned_prefixes(organization_id: str, device_id: str) -> tuple[str, ...]:
    """Return the prefixes under which a device publishes and subscribes, each with its closing slash."""
    return (
        f"neurobuild/sensors/{device_id}/",
        f"org_{organization_id}/devices/{device_id}/",
        f"devices/{device_id}/",
    )


def telemetry_topics(organization_id: str, device_id: str) -> tuple[str, ...]:
    """Return the topics on which this device's readings arrive, the usual one first."""
    return (
        DATA.format(device_id=device_id),
        f"org_{organization_id}/devices/{device_id}/telemetry",
        f"devices/{device_id}/telemetry",
    )


def is_inside(topic_filter: str, prefixes: tuple[str, ...]) -> bool:
    """Whether every topic that `topic_filter` matches lies under one of the prefixes.

    The prefixes hold no wildcards, so a filter that starts with one, letter for letter, cannot reach outside it.
    """
    return topic_filter.startswith(prefixes)


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
