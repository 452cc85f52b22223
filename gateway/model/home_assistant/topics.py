"""Where Home Assistant is told what, and the names by which it knows a device.

    {prefix}/device/{object id}/config       what a device is; retained, empty when it is no more
    {prefix}/status, homeassistant/status    its own word: `online` when it has come
    neurogate/devices/{device}/state         the device's last known state
    neurogate/status                         `online`, and `offline` when the gateway stops

That is how a client of one organisation has them. Whoever hears several has something before `neurogate`, or behind it.
"""

from dataclasses import dataclass

BIRTH = b"online"
"""What Home Assistant says when it has come, unless its owner has changed that."""
ONLINE, OFFLINE = "online", "offline"
"""What is said of a device, and of the gateway: Home Assistant's own defaults."""
OWN = "neurogate"

_USUAL = "homeassistant"
_ESCAPED = {"_": "__", ".": "_d", ":": "_c"}
_BETWEEN = "_-"  # a `_` of a name is never alone, so no two triples become the same


@dataclass(slots=True, frozen=True)
class Topics:
    """The topics as one audience has them."""

    prefix: str = _USUAL
    """Home Assistant's discovery prefix."""
    before: str = ""
    """What stands before `neurogate/`: an organisation and a slash for whoever hears several of one broker of ours."""
    behind: str = ""
    """What stands behind `neurogate/`: a gateway and a slash, in a broker that others use as well."""
    within: str = ""
    """What stands behind that for a device: an organisation and a slash, in a broker that knows none."""

    @property
    def status(self) -> str:
        """Whether the gateway runs."""
        return f"{self.before}{OWN}/{self.behind}status"

    def state(self, device_id: str) -> str:
        """Return where a device's state is."""
        return f"{self.before}{OWN}/{self.behind}{self.within}devices/{device_id}/state"

    def config(self, object_id: str) -> str:
        """Return where it is said what a device is."""
        return f"{self.prefix}/device/{object_id}/config"


def object_id(gateway_id: str, organization_id: str, device_id: str) -> str:
    """Return a device's name in Home Assistant: of `[a-zA-Z0-9_-]` only, and never that of another device."""
    return _BETWEEN.join(map(_escaped, (gateway_id, organization_id, device_id)))


def _escaped(name: str) -> str:
    return "".join(_ESCAPED.get(one, one) for one in name)


def is_for_home_assistant(organization_id: str, topic: str, prefix: str) -> bool:
    """Whether a topic of an organisation's client is one of these, or would be behind the door, for the whole site.

    There an organisation may be called like the prefix.
    """
    if topic.startswith((f"{prefix}/", f"{OWN}/")) or topic in births(prefix):
        return True
    behind = f"{organization_id}/{topic}"
    return behind in births(prefix) or behind.startswith(f"{prefix}/device/")


def births(prefix: str) -> tuple[str, ...]:
    """Return where Home Assistant says that it has come, by its discovery prefix.

    With another prefix than its own it says so where it always does, unless its owner has changed that, too.
    """
    return tuple(dict.fromkeys((f"{prefix}/status", f"{_USUAL}/status")))
