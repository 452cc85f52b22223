"""What is known of a device beside what it measures: it goes out with each of its later readings.

A change names the keys that change; the others stay, and a key without a value leaves.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import aiosqlite

from gateway.model.errors import BadInput
from gateway.model.text import is_clean_text
from gateway.storage.state import DeviceRow, State, check_name

METADATA_MAX_BYTES = 4_096
"""Of one device, as JSON: it is a part of every reading that goes out."""


async def change_metadata(state: State, organization_id: str, device_id: str, changes: Mapping[str, Any]) -> DeviceRow:
    """Change a device's metadata and return the device; one that is unknown is `registered`, without any access.

    Values are JSON. Raises BadInput for an unusable id or metadata, and StoreFailed.
    """
    for what, name in (("device", device_id), ("organization", organization_id)):
        check_name(what, name)
    if not all(map(is_clean_text, _texts(changes))):
        raise BadInput("invalid_metadata", "The metadata is not text.", hint="Use UTF-8 without control characters.")
    key = (organization_id, device_id)

    async def write(db: aiosqlite.Connection) -> DeviceRow:
        found = await db.execute_fetchall("SELECT metadata FROM devices WHERE organization_id = ? AND id = ?", key)
        metadata = {name: value for (text,) in found for name, value in json.loads(text).items()}
        metadata = {name: value for name, value in {**metadata, **changes}.items() if value is not None}
        await db.execute(
            """INSERT INTO devices (organization_id, id, metadata, status, created_at) VALUES (?, ?, ?, 'registered', ?)
            ON CONFLICT DO UPDATE SET metadata = excluded.metadata,
                status = CASE status WHEN 'discovered' THEN 'registered' ELSE status END""",
            (*key, _json(metadata), state.now_ms()),
        )
        rows = await db.execute_fetchall(
            "SELECT status, created_at FROM devices WHERE organization_id = ? AND id = ?", key
        )
        ((status, created_at_ms),) = rows
        return DeviceRow(*key, metadata, status, created_at_ms)

    return await state.change(write)


def _json(metadata: dict[str, Any]) -> str:
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise BadInput("invalid_metadata", "The metadata holds what is no number.", hint="Leave it out.") from None
    if (size := len(text.encode())) > METADATA_MAX_BYTES:
        raise BadInput(
            "metadata_too_large",
            f"The device's metadata would take {size} bytes.",
            hint=f"At most {METADATA_MAX_BYTES}; a key with the value null leaves.",
        )
    return text


def _texts(value: object) -> Iterator[str]:
    """Yield every text within a JSON value, the keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, within in value.items():
            yield name
            yield from _texts(within)
    elif isinstance(value, list):
        for within in value:
            yield from _texts(within)
