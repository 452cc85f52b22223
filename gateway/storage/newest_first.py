"""What the log keeps beside readings, page by page, the newest first: quarantined input and dead letters.

- the order is that of arrival, a row's place in its table: the next page begins below the last row of this one,
  whatever has come or left meanwhile. A dead letter that is refused again keeps its place
- a question looks at so many rows and no more, as nothing is indexed by organisation and device: a page may be short,
  or empty, and still not be the last. Nor is more than about a megabyte of payload read at once, but always one row
- every step is one short statement: no read transaction lasts
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from gateway.model.reading import NewQuarantine
from gateway.storage.dead_letters import LETTER, DeadLetter, letter_of
from gateway.storage.log_reader import LogReader

_LOOKED_AT = 20_000
_PAGE_BYTES = 1_000_000

_Row = TypeVar("_Row")


@dataclass(slots=True, frozen=True)
class Page(Generic[_Row]):
    """What was found, and where to go on."""

    found: list[_Row]
    before: int | None
    """What the next page is asked for with; None when there is none."""


async def quarantine_page(
    log: LogReader,
    *,
    organization_id: str | None = None,
    device_id: str | None = None,
    code: str | None = None,
    before: int | None = None,
    limit: int,
) -> Page[tuple[int, NewQuarantine]]:
    """Return quarantined input, with its row; None stands for any."""
    wanted = {"organization_id": organization_id, "device_id": device_id, "code": code}
    page = await _page(log, "quarantine", wanted, before, limit)
    rows = await log.fetch(
        "SELECT id, organization_id, device_id, source, code, reason, received_at_ms, payload FROM quarantine"
        " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id DESC",
        (json.dumps(page.found),),
        page=True,
    )
    return Page([(row[0], NewQuarantine(*row[1:])) for row in rows], page.before)


async def dead_letter_page(
    log: LogReader,
    *,
    organization_id: str | None = None,
    device_id: str | None = None,
    destination: str | None = None,
    before: int | None = None,
    limit: int,
) -> Page[DeadLetter]:
    """Return dead letters, provisional ones too; None stands for any."""
    wanted = {"organization_id": organization_id, "device_id": device_id, "destination": destination}
    page = await _page(log, "dead_letters", wanted, before, limit)
    rows = await log.fetch(
        f"SELECT {LETTER} FROM dead_letters WHERE rowid IN (SELECT value FROM json_each(?)) ORDER BY rowid DESC",  # noqa: S608 - only constants
        (json.dumps(page.found),),
        page=True,
    )
    # Off the event loop: it reads their payloads as well.
    return Page(await asyncio.to_thread(lambda: [letter_of(tuple(row)) for row in rows]), page.before)


async def _page(
    log: LogReader,
    table: Literal["quarantine", "dead_letters"],
    wanted: Mapping[str, str | None],
    before: int | None,
    limit: int,
) -> Page[int]:
    """Return the places of what is wanted, by columns of ours."""
    top = 2**63 - 1 if before is None else before
    # NOT INDEXED: by their places; else it might read, and sort, all that a destination has refused.
    below = await log.fetch(
        f"SELECT rowid FROM {table} NOT INDEXED WHERE rowid < ? ORDER BY rowid DESC LIMIT 1 OFFSET ?",  # noqa: S608 - only constants
        (top, _LOOKED_AT),
        page=True,
    )
    floor = next((int(row) for (row,) in below), 0)
    named = {column: value for column, value in wanted.items() if value is not None}
    conditions = "".join(f" AND {column} = ?" for column in named)
    sizes = await log.fetch(
        f"SELECT rowid, length(payload) FROM {table} NOT INDEXED WHERE rowid < ? AND rowid > ?{conditions}"  # noqa: S608 - only constants
        " ORDER BY rowid DESC LIMIT ?",
        (top, floor, *named.values(), limit + 1),
        page=True,
    )
    places, lengths = [int(place) for place, _ in sizes], [int(length) for _, length in sizes]
    fitting = max(1, sum(total <= _PAGE_BYTES for total in accumulate(lengths)))
    found = places[: min(limit, fitting)]
    if len(found) < len(places):
        return Page(found, found[-1])
    return Page(found, floor + 1 if floor else None)
