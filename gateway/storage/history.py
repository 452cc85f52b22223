"""Looking back: stored readings by organisation, device and time, the newest row first.

- the order is that of arrival, the row's: it never changes, whatever is learned of a reading's time, so it can be gone
  on with at a row, whatever has come or left meanwhile
- every step is one short statement over a bounded range of rows: no read transaction lasts
- no index serves this: one by device would cost every commit as many pages again as there are devices in it. A range of
  rows is filtered where it lies, and ranges without a row of the device are leapt over by the index of the keys

A reading is found by the time it shows, corrected as in `log_reader`. One that claims a time further ahead of its
arrival than `skew_ms` is found by a look back that reaches its arrival; without that, each would read the whole log.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gateway.model.reading import CLOCK_STEP_MS, StoredReading, TimeSource
from gateway.storage.log_reader import READ, LogReader, corrected

_FIRST_RANGE = 1_000
_WIDEST_RANGE = 16_000
_AT_ONCE = 50
"""Readings that one step may bring. Whoever makes something of them has the interpreter for a millisecond or two, and
nobody is acknowledged meanwhile."""

_OFFSET = "(b.epoch_ms + h.monotonic_ms - h.received_at_ms)"
_TIME = f"""(h.time_ms + CASE WHEN h.time_source <> {TimeSource.DEVICE.value} AND abs({_OFFSET}) >= {CLOCK_STEP_MS}
    THEN {_OFFSET} ELSE 0 END)"""

# `+`: by the rows, not by the streams; else it would read, and sort, everything of a device in each step.
_FIND = f"""{READ} AND +s.organization_id = ? AND (? IS NULL OR +s.device_id = ?) AND {_TIME} >= ? AND {_TIME} < ?
    ORDER BY h.id DESC LIMIT ?"""

_LAST = "SELECT max(id) FROM device_telemetry_history WHERE id <= ?"
_LAST_OF_DEVICE = """SELECT max(h.id) FROM streams s
    JOIN device_telemetry_history h INDEXED BY device_telemetry_history_key ON h.stream = s.id
    WHERE h.id <= ? AND s.organization_id = ? AND s.device_id = ?"""

_RECEIVED = """SELECT b.epoch_ms + h.monotonic_ms
    FROM device_telemetry_history h LEFT JOIN gateway_boots b ON b.id = h.gateway_boot
    WHERE h.id <= ? ORDER BY h.id DESC LIMIT 1"""

_ANY_TIME = (-(2**62), 2**62)


@dataclass(slots=True)
class Wanted:
    """Which readings: of one organisation, perhaps of one device, with `from_ms` <= time < `to_ms` (unix ms).

    Between two steps `from_ms` may be moved forward.
    """

    organization_id: str
    device_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(slots=True, frozen=True)
class Step:
    """What one step has found, the newest row first."""

    readings: list[StoredReading]
    row: int
    """Down to this row, included, everything has been looked at; 1 when there is nothing below."""
    looked_at: int
    """How many rows that were, about."""


async def look_back(log: LogReader, wanted: Wanted, below: int, *, skew_ms: int) -> AsyncGenerator[Step, None]:
    """Yield what is wanted of the rows below that one, until there is nothing more; the next step waits to be asked."""
    to_ms = _ANY_TIME[1] if wanted.to_ms is None else wanted.to_ms
    device = (wanted.device_id, wanted.device_id)
    top, width = below - 1, _FIRST_RANGE
    loop = asyncio.get_running_loop()
    while top > 0:
        began = loop.time()
        from_ms = _ANY_TIME[0] if wanted.from_ms is None else wanted.from_ms
        bottom = max(0, top - width)
        rows = list(
            await log.fetch(_FIND, (bottom, top, wanted.organization_id, *device, from_ms, to_ms, _AT_ONCE), page=True)
        )
        looked_at = top - bottom
        if len(rows) == _AT_ONCE:
            looked_at = top - rows[-1][0] + 1
            top = int(rows[-1][0]) - 1
        elif wanted.from_ms is not None and await _was_received_before(log, bottom, from_ms - skew_ms):
            top = 0
        elif rows:
            top = bottom
        else:
            top = await _last(log, wanted, bottom)
        width = min(_WIDEST_RANGE, 2 * width) if len(rows) < _AT_ONCE // 2 else width
        yield Step(await asyncio.to_thread(corrected, rows), top + 1, looked_at)
        await asyncio.sleep(loop.time() - began)  # half of the time is for those who send


async def _was_received_before(log: LogReader, row: int, time_ms: int) -> bool:
    """Whether that row, and so all below, is known to have come in before that time."""
    for (received_ms,) in await log.fetch(_RECEIVED, (row,)):
        return received_ms is not None and received_ms < time_ms
    return True


async def _last(log: LogReader, wanted: Wanted, top: int) -> int:
    """Return the first row from there downwards that may be wanted; 0 if there is none."""
    if wanted.device_id is None:
        found = await log.fetch(_LAST, (top,))
    else:
        found = await log.fetch(_LAST_OF_DEVICE, (top, wanted.organization_id, wanted.device_id), page=True)
    ((row,),) = found
    return int(row or 0)
