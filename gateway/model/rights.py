"""What a client may publish to and subscribe to: pure functions over topic names and filters.

A right is a topic filter (MQTT 3.1.1, 4.7). A topic may be used when a right matches it; a filter may be subscribed to
when every topic it matches, whatever topics there may be, is matched by one of the rights.
"""

from dataclasses import dataclass, replace

from gateway.model.home_assistant.topics import births
from gateway.model.topics import FOR_DEVICES, is_topic_filter, matches


@dataclass(slots=True, frozen=True)
class Rights:
    """Where a client may publish and what it may hear, in the names that the client itself uses."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    unheard: tuple[str, ...] = ()
    """Where it may publish as well, and nobody hears it, nor is it kept."""

    def may_publish(self, topic: str) -> bool:
        """Whether a message may be published to the topic."""
        return any(matches(topic, right) for right in (*self.publish, *self.unheard))

    def is_unheard(self, topic: str) -> bool:
        """Whether nobody is to hear what is published to the topic."""
        return any(matches(topic, right) for right in self.unheard)

    def and_hear(self, filters: tuple[str, ...]) -> "Rights":
        """Return these rights, and that to hear what these filters match."""
        return replace(self, subscribe=(*self.subscribe, *filters)) if filters else self

    def __or__(self, other: "Rights") -> "Rights":
        """Return both together."""
        new = tuple(one for one in other.subscribe if not self.may_subscribe(one))
        return Rights(self.publish + other.publish, self.subscribe + new, self.unheard + other.unheard)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the filter is a filter at all, and lies inside one of the rights."""
        return is_topic_filter(topic_filter) and any(covers(right, topic_filter) for right in self.subscribe)

    def may_hear(self, topic: str) -> bool:
        """Whether a message on the topic may be sent to the client."""
        return any(matches(topic, right) for right in self.subscribe)


def rights_of(organization_id: str | None, device_id: str | None) -> Rights:
    """Return the rights of a credential: one device's, an organisation's (no device), or the site's (neither)."""
    if organization_id is None:
        return site_rights()
    return organization_rights(organization_id) if device_id is None else device_rights(organization_id, device_id)


def device_rights(organization_id: str, device_id: str) -> Rights:
    """Return the rights of one device: its own topics."""
    own = (
        f"neurobuild/sensors/{device_id}/#",
        f"org_{organization_id}/devices/{device_id}/#",
        f"devices/{device_id}/#",
    )
    return Rights(own, own)


def organization_rights(organization_id: str) -> Rights:
    """Return the rights of a hub or a bridge: the topics of every device of its organisation, known or not."""
    own = ("neurobuild/sensors/#", f"org_{organization_id}/devices/#", "devices/#")
    return Rights(own, own)


def site_rights() -> Rights:
    """Return the rights of the owner's tools, for which every topic begins with its organisation.

    They hear everything, and tell every device what to do; they cannot speak in a device's name.
    """
    told = tuple(
        f"+/{form}/+/{what}/#" for form in ("neurobuild/sensors", "+/devices", "devices") for what in FOR_DEVICES
    )
    return Rights(told, ("#", "$SYS/#"))


def home_assistant_rights(prefix: str, organization_id: str | None) -> Rights:
    """Return the rights of Home Assistant, an organisation's or (None) the site's; `prefix` is its discovery prefix.

    It hears what the gateway tells it and says that it has come; it speaks in nobody's name. When its owner removes a
    device there, it ends the retained message of that: it may, but what is told to it is the gateway's.
    """
    space = "" if organization_id is not None else "+/"
    return Rights(births(prefix), (f"{prefix}/#", f"{space}neurogate/#"), (f"{prefix}/device/+/config",))


def covers(right: str, topic_filter: str) -> bool:
    """Whether every topic that `topic_filter` matches is matched by `right`. Both are topic filters."""
    if topic_filter.startswith("$") and right[0] in "+#":
        return False
    if right == "+/#":  # `#` includes the level before it
        return True
    rights, levels = right.split("/"), topic_filter.split("/")
    for index, allowed in enumerate(rights):
        if allowed == "#":
            return True
        if index >= len(levels):
            return False
        wanted = levels[index]
        if wanted == "#" or (allowed not in {"+", wanted}):
            return False
    return len(levels) == len(rights)
