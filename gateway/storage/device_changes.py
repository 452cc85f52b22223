"""What is changed of a device after it was registered, and its move to another organisation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiosqlite

from gateway.model.errors import AlreadyExists, BadInput, Conflict
from gateway.model.metadata import merged
from gateway.storage.activity_log import note
from gateway.storage.device_rows import (
    DEVICES,
    DeviceCredential,
    DeviceRow,
    check_identity,
    find_device,
    no_device,
    refuse_taken,
    write_credential,
    write_device,
)
from gateway.storage.integrations import move_integrations
from gateway.storage.organizations import no_organization
from gateway.storage.state import State

_FREE = ("revoked", "discovered")
"""Statuses of a device whose id may be given to another one."""


async def page_of_devices(
    state: State, organization_id: str | None, *, status: str | None, after: tuple[str, str], limit: int
) -> list[DeviceRow]:
    """Return devices of an organisation (None: of all), in the order of their keys, behind one."""
    rows = await state.fetch(
        f"""{DEVICES} WHERE (?1 IS NULL OR organization_id = ?1) AND (?2 IS NULL OR status = ?2)
            AND (organization_id, id) > (?3, ?4) ORDER BY organization_id, id LIMIT ?5""",
        (organization_id, status, *after, limit),
    )
    return [DeviceRow.of(row) for row in rows]


async def get_device(state: State, organization_id: str, device_id: str) -> DeviceRow:
    """Return one device. Raises NotFound."""
    key = (organization_id, device_id)
    for row in await state.fetch(f"{DEVICES} WHERE organization_id = ? AND id = ?", key):
        return DeviceRow.of(row)
    raise no_device(*key)


async def update_device(
    state: State, organization_id: str, device_id: str, changes: Mapping[str, Any], *, by: str
) -> DeviceRow:
    """Change what is named of `name`, `serial_number`, `hardware_ids`, `metadata` (key by key) and `status`.

    A discovered device becomes a registered one, and `revoked` takes its credential away. Raises NotFound, BadInput,
    AlreadyExists when another device is called the same, and Conflict for a status that is not to be had so.
    """
    check_identity(changes.get("name", ""), changes.get("hardware_ids", ()), changes.get("serial_number", ""))

    async def write(db: aiosqlite.Connection) -> DeviceRow:
        old = await find_device(db, organization_id, device_id)
        if old is None:
            raise no_device(organization_id, device_id)
        device = replace(
            old,
            status=_status(old.status, changes.get("status")),
            name=changes.get("name", old.name),
            serial_number=changes.get("serial_number", old.serial_number),
            hardware_ids=tuple(changes.get("hardware_ids", old.hardware_ids)),
            metadata=merged(old.metadata, changes.get("metadata", {})),
        )
        if (device.serial_number, device.hardware_ids) != (old.serial_number, old.hardware_ids):
            await refuse_taken(db, device)
        await write_device(db, device)
        if device.status == "revoked":
            key = (organization_id, device_id)
            await db.execute("DELETE FROM mqtt_credentials WHERE organization_id = ? AND device_id = ?", key)
        if device != old:
            before, after = old.described(), device.described()
            await note(db, state.now_ms(), by, organization_id, "device.update", device_id, before, after)
        return device

    return await state.change(write, takes_access=changes.get("status") == "revoked")


def _status(old: str, wanted: str | None) -> str:
    """Return the status after a change that may ask for one. Raises Conflict."""
    if wanted in {None, old}:
        return "registered" if old == "discovered" and wanted is None else old
    if wanted == "revoked" or (wanted == "registered" and old == "discovered"):
        return wanted
    raise Conflict(
        f"The device is {old}, and does not become {wanted} so.",
        hint="A new credential makes it active (POST devices/{id}/credentials), and DELETE revokes it.",
    )


async def transfer_device(
    state: State, organization_id: str, device_id: str, to: str, *, by: str
) -> tuple[DeviceRow, DeviceCredential | None]:
    """Move a device to another organisation, in one transaction; return it with its new credential.

    That is None for one that had none. The old one is gone, and its own integrations move along. Raises NotFound,
    BadInput, and AlreadyExists when the other organisation has a device of that id, or one, or an integration, that is
    called the same.
    """
    if to == organization_id:
        raise BadInput("same_organization", f"{device_id} is in {to} already.", hint="Name another organisation.")
    credential = DeviceCredential.new(to, device_id)

    async def move(db: aiosqlite.Connection) -> DeviceRow:
        old = await find_device(db, organization_id, device_id)
        if old is None:
            raise no_device(organization_id, device_id)
        if not list(await db.execute_fetchall("SELECT 1 FROM organizations WHERE id = ?", (to,))):
            raise no_organization(to)
        there = await find_device(db, to, device_id)
        if there is not None and there.status not in _FREE:
            raise AlreadyExists(
                f"There is a device {device_id} in {to} already.",
                hint=f"Revoke that one first: neurogate device revoke {device_id} --organization {to}",
            )
        moved = replace(old, organization_id=to)
        await refuse_taken(db, moved)
        now_ms = state.now_ms()
        await move_integrations(db, organization_id, device_id, to, by=by, now_ms=now_ms)
        # Its credential goes with its row.
        await db.execute("DELETE FROM devices WHERE organization_id = ? AND id = ?", (organization_id, device_id))
        await db.execute(
            "DELETE FROM commands WHERE organization_id = ? AND device_id = ?", (organization_id, device_id)
        )
        await write_device(db, moved)
        if moved.status == "active":
            await write_credential(db, credential, state.password_hash(credential.password), now_ms)
        about = ("device.transfer", device_id)
        # Neither organisation learns of the other; the site sees both.
        await note(db, now_ms, by, organization_id, *about, old.described(), None)
        await note(db, now_ms, by, to, *about, None, moved.described())
        await note(db, now_ms, by, None, *about, {"organization_id": organization_id}, {"organization_id": to})
        return moved

    moved = await state.change(move, takes_access=True)
    return moved, credential if moved.status == "active" else None
