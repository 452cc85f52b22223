"""Stored readings of one organisation, page by page, the newest arrival first.

A page goes on below the row where the one before ended. Rows never move and none is given twice, so what arrives,
leaves or is corrected between two pages is neither shown twice nor hides another; what arrives is above, for whoever
asks anew. A request looks at so many rows and no more: its page may be short, or empty, and still not be the last.
"""

import asyncio
import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from gateway.model.errors import BadInput, NotFound
from gateway.model.reading import StoredReading, wire_reading
from gateway.operations.site import Site
from gateway.storage.history import Wanted, look_back
from gateway.storage.log_reader import LogReader

READINGS_AT_MOST = 1_000
"""In one page."""

_PAGE_BYTES = 1_000_000
_ROW = re.compile(r"[0-9]{1,18}")
_ROWS_AT_MOST = 200_000


@dataclass(slots=True, frozen=True)
class ReadingsPage:
    """Readings as destinations see them."""

    readings: list[dict[str, Any]]
    next_cursor: str | None
    """What asks for the page after this one; None when there is none."""


async def read_readings(
    site: Site,
    *,
    organization_id: str,
    device_id: str | None = None,
    sensor: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> ReadingsPage:
    """Return the next page of readings with `from_ms` <= time < `to_ms` (unix ms), of a device and with a sensor.

    Raises BadInput for a cursor that is none of this log's, and StoreFailed while readings are being salvaged.
    """
    log = await opened_log(site)
    if log is None:
        return ReadingsPage([], None)
    uuid, gateway_id = await log.log_uuid(), site.settings.gateway.id
    row = await log.newest_row() + 1 if cursor is None else number_of(cursor, f"row:{uuid}")
    wanted = Wanted(organization_id, device_id, from_ms, to_ms)
    found: list[dict[str, Any]] = []
    looked_at = size = 0

    def wire(chosen: list[StoredReading]) -> list[dict[str, Any]]:
        return [wire_reading(reading, gateway_id=gateway_id, log_uuid=uuid) for reading in chosen]

    steps = look_back(log, wanted, row, skew_ms=site.settings.clock.max_skew_s * 1000)
    async with aclosing(steps):
        row = 1
        async for step in steps:
            row, looked_at = step.row, looked_at + step.looked_at
            chosen: list[StoredReading] = []
            for reading in step.readings:
                if sensor is None or sensor in reading.body.get("sensors", {}):
                    chosen.append(reading)
                    size += reading.size_bytes
                    if len(found) + len(chosen) >= limit or size >= _PAGE_BYTES:
                        row = reading.row
                        break
            found += await asyncio.to_thread(wire, chosen)
            if len(found) >= limit or size >= _PAGE_BYTES or looked_at >= _ROWS_AT_MOST:
                break

    await log.require_whole()  # it may have been damaged meanwhile
    return ReadingsPage(found, cursor_of(f"row:{uuid}", row) if row > 1 else None)


async def opened_log(site: Site) -> LogReader | None:
    """Return the log, None if there is none yet. Raises StoreFailed while readings are being salvaged."""
    try:
        log = await site.log()
    except NotFound:
        return None
    await log.require_whole()
    return log


def cursor_of(kind: str, number: int) -> str:
    """Return an opaque text that says where to go on."""
    return urlsafe_b64encode(f"{kind}:{number}".encode()).rstrip(b"=").decode()


def number_of(cursor: str, kind: str) -> int:
    """Return what `cursor_of` was given. Raises BadInput when it was of another kind."""
    with suppress(ValueError, binascii.Error):
        found, _, number = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().rpartition(":")
        if found == kind and _ROW.fullmatch(number):
            return int(number)
    raise BadInput(
        "invalid_cursor", "The cursor is none that this question has returned.", hint="Begin again without one."
    )
