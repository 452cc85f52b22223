"""Devices and their credentials as rows of `state.db`: what they hold, what they may be called, how one is written."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiosqlite

from gateway.model.errors import AlreadyExists, BadInput, NotFound
from gateway.model.metadata import encode_metadata
from gateway.model.text import is_clean_text
from gateway.model.topics import is_name, telemetry_topics
from gateway.storage.passwords import generate_password

DEVICES = "SELECT organization_id, id, metadata, status, created_at, hardware_ids, serial_number, name FROM devices"
"""What `DeviceRow.of` takes."""

_LONGEST_IDENTIFIER = 200
_HARDWARE_IDS_AT_MOST = 50


@dataclass(slots=True, frozen=True)
class DeviceRow:
    """A registered device."""

    organization_id: str
    device_id: str
    metadata: dict[str, Any]
    status: str
    """`active`; `discovered` (only seen under an organisation's credential) or `registered` (described), without a
    credential of its own; or `revoked`: its credential is gone, its readings stay."""
    created_at_ms: int
    hardware_ids: tuple[str, ...] = ()
    """What messages may call it instead of its id."""
    serial_number: str = ""
    """What it is called where no hardware id fits; empty when it is not known."""
    name: str = ""
    """What people call it."""

    @classmethod
    def of(cls, row: Iterable[Any]) -> Self:
        """Return what the query above has found."""
        organization, device, metadata, status, at, hardware, serial, name = row
        hardware_ids = tuple(json.loads(hardware))
        return cls(organization, device, json.loads(metadata), status, at, hardware_ids, serial, name)

    def described(self) -> dict[str, Any]:
        """Return what the activity log says of it."""
        return {
            "status": self.status,
            "name": self.name,
            "serial_number": self.serial_number,
            "hardware_ids": list(self.hardware_ids),
            "metadata": self.metadata,
        }


@dataclass(slots=True, frozen=True)
class SeenDevice:
    """A device that was seen and may be unknown, with what it was called."""

    organization_id: str
    device_id: str
    hardware_ids: tuple[str, ...] = ()
    serial_number: str = ""


@dataclass(slots=True, frozen=True)
class DeviceCredential:
    """A new device's way in; the only time its password is seen."""

    organization_id: str
    device_id: str
    username: str
    password: str = field(repr=False)

    @classmethod
    def new(cls, organization_id: str, device_id: str) -> Self:
        """Return one with a new password."""
        username = device_username(organization_id, device_id)
        return cls(organization_id, device_id, username, generate_password())

    @property
    def topics(self) -> list[str]:
        """Where the device publishes its readings, the usual one first."""
        return list(telemetry_topics(self.organization_id, self.device_id))


def device_username(organization_id: str, device_id: str) -> str:
    """Return the name under which a device logs in."""
    return f"{organization_id}/{device_id}"


def check_name(what: str, name: str) -> None:
    """Raise BadInput unless it can be the id of a `what`."""
    if not is_name(name):
        raise BadInput(
            f"invalid_{what}_id",
            f"{name!r} cannot be a {what} id: it becomes part of MQTT topics.",
            hint="Use letters, digits, '_', '.', ':' and '-', at most 100.",
        )


def check_identity(name: str, hardware_ids: Sequence[str], serial_number: str) -> None:
    """Raise BadInput unless a device can be called all of that; an empty text is nothing."""
    if name and not _is_identifier(name):
        raise BadInput("invalid_name", "The name is no text of 1 to 200 characters.", hint="Shorten it.")
    if not all(map(_is_identifier, hardware_ids)) or (serial_number and not _is_identifier(serial_number)):
        raise BadInput(
            "invalid_hardware_id",
            "A hardware id or serial number is no text of 1 to 200 characters.",
            hint="Give it as the device's messages have it.",
        )
    if len(hardware_ids) > _HARDWARE_IDS_AT_MOST:
        raise BadInput(
            "invalid_hardware_id", "A device has too many hardware ids.", hint=f"At most {_HARDWARE_IDS_AT_MOST}."
        )


def _is_identifier(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_IDENTIFIER and is_clean_text(text)


async def find_device(db: aiosqlite.Connection, organization_id: str, device_id: str) -> DeviceRow | None:
    """Return a device, within a transaction."""
    key = (organization_id, device_id)
    for row in await db.execute_fetchall(f"{DEVICES} WHERE organization_id = ? AND id = ?", key):
        return DeviceRow.of(row)
    return None


async def write_device(db: aiosqlite.Connection, device: DeviceRow) -> None:
    """Write a device, new or not."""
    await db.execute(
        """INSERT INTO devices (organization_id, id, metadata, status, created_at, hardware_ids, serial_number, name)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET metadata = excluded.metadata, status = excluded.status,
            hardware_ids = excluded.hardware_ids, serial_number = excluded.serial_number, name = excluded.name""",
        (
            device.organization_id,
            device.device_id,
            encode_metadata(device.metadata),
            device.status,
            device.created_at_ms,
            json.dumps(device.hardware_ids, ensure_ascii=False),
            device.serial_number,
            device.name,
        ),
    )


async def write_credential(
    db: aiosqlite.Connection, credential: DeviceCredential, password_hash: bytes, now_ms: int
) -> None:
    """Write a device's first credential."""
    organization_id, device_id = credential.organization_id, credential.device_id
    topics = f"org_{organization_id}/devices/{device_id}/#"
    await db.execute(
        """INSERT INTO mqtt_credentials (username, organization_id, device_id, password_hash, topic_prefix, created_at)
        VALUES (?, ?, ?, ?, ?, ?)""",
        (credential.username, organization_id, device_id, password_hash, topics, now_ms),
    )


async def refuse_taken(db: aiosqlite.Connection, device: DeviceRow) -> None:
    """Raise AlreadyExists when an active device of its organisation is called the same."""
    rows = await db.execute_fetchall(
        """SELECT id FROM devices WHERE organization_id = :organization AND id <> :device AND status = 'active' AND (
            (:serial <> '' AND serial_number = :serial)
            OR EXISTS (SELECT value FROM json_each(hardware_ids) INTERSECT SELECT value FROM json_each(:hardware)))""",
        {
            "organization": device.organization_id,
            "device": device.device_id,
            "serial": device.serial_number,
            "hardware": json.dumps(device.hardware_ids, ensure_ascii=False),
        },
    )
    for (other,) in rows:
        raise AlreadyExists(
            f"Device {other} of {device.organization_id} has this hardware id or serial number.",
            hint=f"neurogate device show {other} says more.",
        )


def no_device(organization_id: str, device_id: str) -> NotFound:
    """Return the error for a device that is not there."""
    return NotFound(
        f"There is no device {device_id[:100]} in {organization_id}.",
        hint="neurogate device list shows what there is.",
    )


def no_active_device(organization_id: str, device_id: str) -> NotFound:
    """Return the error for a device that has no access."""
    return NotFound(
        f"There is no active device {device_id} in {organization_id}.",
        hint="neurogate device list shows what there is.",
    )
