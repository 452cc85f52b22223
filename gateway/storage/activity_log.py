"""The activity log in `state.db`: who changed what and when, and how it was before and after.

- an entry is written in the transaction of its change: there is neither one without the other
- it says what differs and no more, and holds no secret: what looks like one is masked
- of one organisation (and of the site) it keeps the newest 5,000 entries, or fewer in 2 MB; so nobody can push out what
  others did
"""

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiosqlite

from gateway.config.masking import masked

CLI = "cli"
"""Who acts by the command line: the owner of the machine."""
GATEWAY = "gateway"
"""The gateway itself."""

ENTRIES_AT_MOST = 5_000
BYTES_AT_MOST = 2_000_000
_SIZE = "length(actor) + length(subject) + coalesce(length(before), 0) + coalesce(length(after), 0) + 100"

Fields = Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class ActivityRow:
    """One change."""

    id: int
    at_ms: int
    organization_id: str | None
    """None for what is the site's."""
    actor: str
    """`cli`, `gateway`, `token:NAME` or `jwt:SUB`."""
    action: str
    """What kind of thing, and what was done: `device.update`."""
    subject: str
    """The id of what was changed."""
    before: dict[str, Any] | None
    """None where there was nothing."""
    after: dict[str, Any] | None
    """None where nothing is left."""


async def note(
    db: aiosqlite.Connection,
    at_ms: int,
    by: str,
    organization_id: str | None,
    action: str,
    subject: str,
    before: Fields | None = None,
    after: Fields | None = None,
) -> None:
    """Write down a change, within its transaction. Of fields that are before and after, only those that differ."""
    old, new = before, after
    if before is not None and after is not None:
        old = {name: value for name, value in before.items() if name not in after or after[name] != value}
        new = {name: value for name, value in after.items() if name not in before or before[name] != value}
    await db.execute(
        """INSERT INTO activity_log (at, organization_id, actor, action, subject, before, after)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (at_ms, organization_id, by, action, subject, _json(old), _json(new)),
    )
    await db.execute(
        f"""DELETE FROM activity_log WHERE organization_id IS ?1 AND id <= (
            SELECT max(id) FROM (
                SELECT id, row_number() OVER newest AS entries, sum({_SIZE}) OVER newest AS bytes
                FROM activity_log WHERE organization_id IS ?1 WINDOW newest AS (ORDER BY id DESC)
            ) WHERE entries > ?2 OR bytes > ?3)""",  # noqa: S608 - only constants
        (organization_id, ENTRIES_AT_MOST, BYTES_AT_MOST),
    )


async def read_activity(
    fetch: Callable[[str, Iterable[object]], Awaitable[Iterable[sqlite3.Row]]],
    organization_id: str | None,
    *,
    everybodys: bool = False,
    before_id: int | None = None,
    limit: int,
) -> list[ActivityRow]:
    """Return the newest entries below an id: an organisation's (None: the site's), or everybody's."""
    rows = await fetch(
        """SELECT id, at, organization_id, actor, action, subject, before, after FROM activity_log
        WHERE (?1 OR organization_id IS ?2) AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4""",
        (everybodys, organization_id, before_id, limit),
    )
    return [
        ActivityRow(row, at_ms, organization, actor, action, subject, _fields(before), _fields(after))
        for row, at_ms, organization, actor, action, subject, before, after in rows
    ]


def _json(fields: Fields | None) -> str | None:
    return None if fields is None else json.dumps(masked("", dict(fields)), ensure_ascii=False)


def _fields(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    fields: dict[str, Any] = json.loads(text)
    return fields
