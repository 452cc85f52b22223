"""How a stored row becomes a reading again: the same for the log and for the dead letters."""

from typing import Any

from pydantic_core import from_json

from gateway.model.reading import StoredReading, TimeSource

_TIME_SOURCES = frozenset(TimeSource)


def to_reading(row: tuple[Any, ...]) -> StoredReading:
    """Make a reading of (row, organisation, device, boot, seq, time, source, received, payload, metadata).

    Never fails: one that is damaged has a `defect`, and holds up nobody.
    """
    number, organization, device, boot, seq, time_ms, source, received, payload, metadata = row
    body, defect = _object(payload)
    return StoredReading(
        number,
        organization,
        device,
        boot or None,
        body.get("seq") if seq is None else seq,
        time_ms,
        TimeSource(source) if source in _TIME_SOURCES else TimeSource.GATEWAY,
        received,
        body,
        _object(metadata)[0] if metadata else {},
        len(payload),
        defect=defect,
    )


def _object(text: bytes | str) -> tuple[dict[str, Any], str]:
    """Return a stored JSON object, or what is wrong: SQLite does not notice bits that a worn card has changed."""
    try:
        found = from_json(text)
    except ValueError as error:
        return {}, f"what is stored of it is damaged: {error}"
    if not isinstance(found, dict):
        return {}, "what is stored of it is damaged: it is no JSON object"
    return found, ""
