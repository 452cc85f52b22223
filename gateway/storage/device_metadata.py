"""What is known of a device beside what it measures: it goes out with each of its later readings.

A change names the keys that change; the others stay, and a key without a value leaves.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiosqlite

from gateway.model.metadata import encode_metadata, merged
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.state import DeviceRow, State, check_name


async def change_metadata(
    state: State, organization_id: str, device_id: str, changes: Mapping[str, Any], *, by: str = GATEWAY
) -> DeviceRow:
    """Change a device's metadata and return the device; one that is unknown is `registered`, without any access.

    Values are JSON. Raises BadInput for an unusable id or metadata, and StoreFailed.
    """
    for what, name in (("device", device_id), ("organization", organization_id)):
        check_name(what, name)
    encode_metadata({name: value for name, value in changes.items() if value is not None})
    key = (organization_id, device_id)

    async def write(db: aiosqlite.Connection) -> DeviceRow:
        found = await db.execute_fetchall("SELECT metadata FROM devices WHERE organization_id = ? AND id = ?", key)
        known = [json.loads(text) for (text,) in found]
        before = known[0] if known else {}
        metadata = merged(before, changes)
        await db.execute(
            """INSERT INTO devices (organization_id, id, metadata, status, created_at) VALUES (?, ?, ?, 'registered', ?)
            ON CONFLICT DO UPDATE SET metadata = excluded.metadata,
                status = CASE status WHEN 'discovered' THEN 'registered' ELSE status END""",
            (*key, encode_metadata(metadata), state.now_ms()),
        )
        rows = await db.execute_fetchall(
            "SELECT status, created_at FROM devices WHERE organization_id = ? AND id = ?", key
        )
        ((status, created_at_ms),) = rows
        action = "device.update" if known else "device.add"
        old, new = ({"metadata": before} if known else None), {"metadata": metadata}
        await note(db, state.now_ms(), by, organization_id, action, device_id, old, new)
        return DeviceRow(*key, metadata, status, created_at_ms)

    return await state.change(write)
