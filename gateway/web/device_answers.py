"""What `devices` answers."""

from typing_extensions import TypedDict

from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.model.wire import Json
from gateway.operations.credentials import CredentialDetails
from gateway.storage.device_rows import DeviceCredential, DeviceRow


class Device(TypedDict):
    """A device of an organisation."""

    id: str
    device_id: str
    organization_id: str
    name: str
    status: str
    serial_number: str
    hardware_ids: list[str]
    metadata: dict[str, Json]
    created_at: str


class Devices(TypedDict):
    """One page of devices."""

    devices: list[Device]
    next_cursor: str | None


class DeviceDetails(Device):
    """All that is known of a device."""

    topics: list[str]
    last_seen_at: str | None
    connected: bool
    readings_since_start: int


class DevicePassword(TypedDict):
    """How a device logs in; its password is shown this once."""

    username: str
    password: str
    topics: list[str]


class NewDeviceShown(Device):
    """A device, and how it logs in; null if it may not."""

    credential: DevicePassword | None


class Usage(TypedDict):
    """How a credential is used."""

    username: str
    created_at: str
    last_connected_at: str | None
    connections: int
    refused_logins: int
    messages_in: int
    old_password_left_s: float | None


class DeviceCredentials(TypedDict):
    """The credential of a device; none if it has no access."""

    credentials: list[Usage]


class DeviceMetadata(TypedDict):
    """All that is known of a device beside what it measures."""

    organization_id: str
    device_id: str
    status: str
    metadata: dict[str, Json]


def shown(device: DeviceRow) -> Device:
    """Return a device as it is answered."""
    return {
        "id": device.device_id,
        "device_id": device.device_id,
        "organization_id": device.organization_id,
        "name": device.name,
        "status": device.status,
        "serial_number": device.serial_number,
        "hardware_ids": list(device.hardware_ids),
        "metadata": device.metadata,
        "created_at": rfc3339(device.created_at_ms),
    }


def password_of(credential: DeviceCredential) -> DevicePassword:
    """Return a new credential as it is answered."""
    return {"username": credential.username, "password": credential.password, "topics": credential.topics}


def usage_of(one: CredentialDetails) -> Usage:
    """Return how a credential is used as it is answered."""
    left_ms = one.old_password_left_ms
    return {
        "username": one.username,
        "created_at": rfc3339(one.created_at_ms),
        "last_connected_at": rfc3339_or_null(one.last_connected_at_ms),
        "connections": one.connections,
        "refused_logins": one.refused_logins,
        "messages_in": one.messages_in,
        "old_password_left_s": None if left_ms is None else left_ms / 1000,
    }
