"""A board's way into the gateway, and who hands it out."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gateway.provisioning.errors import FlashFailed

_TOPIC = re.compile(r"org_(?P<organization_id>[^/]+)/devices/[^/]+/telemetry")


@dataclass(slots=True, frozen=True)
class Credential:
    """What a board logs in with."""

    organization_id: str
    device_id: str
    username: str
    password: str = field(repr=False)


class GatewayLink(Protocol):
    """The gateway, as flashing needs it."""

    def register(self, device_id: str, metadata: dict[str, str]) -> Credential:
        """Register a device. Raises AlreadyExists."""
        ...

    def renew(self, device_id: str) -> Credential:
        """Give a device that is registered a new password."""
        ...

    def newest_reading(self, device_id: str) -> dict[str, Any] | None:
        """Return the reading that came in last."""
        ...


def from_document(document: dict[str, Any]) -> Credential:
    """Return the credential that the gateway handed out as JSON. Raises KeyError and ValueError."""
    topics = (_TOPIC.fullmatch(topic) for topic in document["topics"])
    organization_id = next(found["organization_id"] for found in topics if found)
    return Credential(organization_id, document["device_id"], document["username"], document["password"])


def from_file(path: Path) -> Credential:
    """Return what `neurogate device add --json` printed into this file. Raises FlashFailed."""
    hint = "On the gateway: neurogate device add DEVICE --json > device.json"
    try:
        return from_document(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise FlashFailed(f"{path} cannot be read: {error.strerror}.", hint=hint) from None
    except (KeyError, TypeError, ValueError, StopIteration):
        raise FlashFailed(f"{path} is not what the gateway prints about a new device.", hint=hint) from None
