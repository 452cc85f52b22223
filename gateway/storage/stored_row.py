"""How a stored row becomes a reading again: the same for the log and for the dead letters."""

from typing import Any

from pydantic_core import from_json

from gateway.model.reading import StoredReading, TimeSource


def to_reading(row: tuple[Any, ...]) -> StoredReading:
    """Make a reading of (row, organisation, device, boot, seq, time, source, received, payload, metadata)."""
    number, organization, device, boot, seq, time_ms, source, received, payload, metadata = row
    body = from_json(payload)
    return StoredReading(
        number,
        organization,
        device,
        boot or None,
        body.get("seq") if seq is None else seq,
        time_ms,
        TimeSource(source),
        received,
        body,
        from_json(metadata) if metadata else {},
        len(payload),
    )
