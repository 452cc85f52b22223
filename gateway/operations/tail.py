"""Readings as they are committed.

- a follower reads from the log by its own position: it misses nothing and gets nothing twice, and what a slow one has
  not taken yet waits on disk, not in memory
- one that is too far behind is moved on to the newest readings and told how many it has not seen
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from gateway.model.reading import StoredReading, wire_reading
from gateway.operations.site import Site

_PAGE_READINGS = 200
_PAGE_BYTES = 256_000
_FAR_BEHIND_ROWS = 10_000


@dataclass(slots=True, frozen=True)
class Page:
    """The next readings, as destinations see them."""

    readings: list[dict[str, Any]]
    skipped: int = 0
    """How many stored readings before these were left out, as the follower was too slow."""


async def tail_readings(site: Site, *, devices: list[str], sensors: list[str], last: int) -> AsyncGenerator[Page, None]:
    """Yield the `last` stored readings, then each one as it is committed, until the gateway stops.

    Only of these `devices` and with one of these `sensors`; an empty list means all.
    """
    log, live, gateway_id = await site.log(), site.live, site.settings.gateway.id
    uuid = await log.log_uuid()
    position = await log.row_before(last)
    patience_rows = max(last, _FAR_BEHIND_ROWS)
    skipped = 0

    def is_wanted(reading: StoredReading) -> bool:
        return (not devices or reading.device_id in devices) and (
            not sensors or not reading.body["sensors"].keys().isdisjoint(sensors)
        )

    while True:
        if live is not None and live.newest_row - position > patience_rows:
            newer = live.newest_row - _PAGE_READINGS
            skipped += await log.count_between(position, newer)
            position = newer
        rows = await log.read(position, limit=_PAGE_READINGS, max_bytes=_PAGE_BYTES)
        if rows:
            position = rows[-1].row
        wanted = [wire_reading(row, gateway_id=gateway_id, log_uuid=uuid) for row in rows if is_wanted(row)]
        if wanted or skipped:
            yield Page(wanted, skipped)
            skipped = 0
        if not rows and (live is None or not await live.wait_beyond(position)):
            return
