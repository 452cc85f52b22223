"""Stored readings, page by page, for whoever wants a copy of them.

- each page is one short query: no read transaction lasts, however many readings there are
- the next page is read when the one before was taken, so nothing is kept for a slow reader
- what is stored when it begins is what comes; from a given row on, so that it can be gone on with
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from gateway.model.errors import BadInput
from gateway.model.reading import StoredReading, wire_reading
from gateway.operations.site import Site

_PAGE_READINGS = 200
_PAGE_BYTES = 256_000
_QUIET_ROWS = 20_000  # so many rows that nobody asked for, and a page without readings says how far it is


@dataclass(slots=True, frozen=True)
class ExportPage:
    """The next readings, as destinations see them, and how far that is."""

    readings: list[dict[str, Any]]
    row: int
    """Everything up to this row has been looked at."""
    last_row: int
    """The last that will be."""


async def export_readings(
    site: Site, *, devices: list[str], from_ms: int | None, to_ms: int | None, after_id: str | None
) -> AsyncGenerator[ExportPage, None]:
    """Yield stored readings with `from_ms` <= time < `to_ms` (unix ms), of these devices or (none named) of all.

    Those after the reading `after_id` only, if there is one. Raises BadInput when it is not of this log, NotFound, and
    StoreFailed while readings are being salvaged.
    """
    log, gateway_id = await site.log(), site.settings.gateway.id
    await log.require_whole()
    uuid = await log.log_uuid()
    position = seen = 0 if after_id is None else _row_of(after_id, f"{gateway_id}:{uuid}:")
    last_row = await log.newest_row()

    def is_wanted(reading: StoredReading) -> bool:
        return (
            (not devices or reading.device_id in devices)
            and (from_ms is None or reading.time_ms >= from_ms)
            and (to_ms is None or reading.time_ms < to_ms)
        )

    yield ExportPage([], position, last_row)
    while rows := await log.read(position, until=last_row, limit=_PAGE_READINGS, max_bytes=_PAGE_BYTES):
        position = rows[-1].row
        wanted = [wire_reading(row, gateway_id=gateway_id, log_uuid=uuid) for row in rows if is_wanted(row)]
        if wanted or position - seen > _QUIET_ROWS:
            seen = position
            yield ExportPage(wanted, position, last_row)
    yield ExportPage([], last_row, last_row)


def _row_of(reading_id: str, prefix: str) -> int:
    row = reading_id.removeprefix(prefix)
    if row == reading_id or not row.isascii() or not row.isdigit():
        raise BadInput("other_log", f"{reading_id} is no reading of this gateway's log.", hint="Name another file.")
    return int(row)
