"""What a login is worth: who has come in, in whose name it speaks, and how its credential is used."""

from dataclasses import dataclass, field

from gateway.access.known_devices import Device
from gateway.model.rights import Rights
from gateway.recent_count import RecentCount


@dataclass(slots=True, eq=False)
class Statistics:
    """How a credential is used; one object for all its passwords."""

    last_connected_ms: int | None = None
    connections: int = 0
    refused: int = 0
    messages_in: int = 0
    certificate_ends_ms: int | None = None
    """When the certificate ends that somebody came in by last; None when nobody has since the start."""
    recent_connections: RecentCount = field(default_factory=RecentCount)
    recent_refused: RecentCount = field(default_factory=RecentCount)


@dataclass(slots=True, frozen=True, eq=False)
class Credential:
    """Someone who came in by one password: a device, an organisation (no device), or the site (neither)."""

    username: str
    organization_id: str | None
    device: Device | None
    rights: Rights
    statistics: Statistics = field(default_factory=Statistics)
    is_home_assistant: bool = False
    """Whether it listens only, and speaks for no device."""

    @property
    def namespace(self) -> str:
        """What stands before its topics behind the door: two organisations may have devices of the same name.

        Nothing for the site, which names the organisation itself.
        """
        return "" if self.organization_id is None else f"{self.organization_id}/"
