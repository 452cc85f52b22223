"""One step of making room: the oldest rows leave, and whatever a reader loses by that is counted, exactly.

- rows that every active reader has passed leave first, and cost nobody anything
- `may_lose` lets rows go that a reader still needs; the count, the range and the time are kept per destination.
  Rows that its filters leave out anyway are none of them.
- where rows are to leave for their age, the oldest is looked at first, and the first that is too young ends the step;
  a row received while the clock was not right is as old as the first right time after it, and until there is one its
  age is not known
- while a damaged log is being salvaged, its rows are older than the new ones: none of those is lost before them
- rows of an attempt under way never leave: they may have arrived, so they could not be counted right; nor do those
  whose rejection is provisional: they may have to be sent again
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from gateway.model.selection import Selection
from gateway.storage.cursors import destination_of
from gateway.storage.space import Pages
from gateway.storage.stored_row import to_reading

NO_LIMIT = 2**63 - 1

_OLDEST = """SELECT h.id, coalesce(b.epoch_ms + h.monotonic_ms, b.received_by_ms)
    FROM device_telemetry_history h LEFT JOIN gateway_boots b ON b.id = h.gateway_boot
    WHERE h.id <= ? {spared} ORDER BY h.id LIMIT ?"""

# One statement: each costs the writing thread several turns of the interpreter, and every commit asks.
_PAGES = "SELECT * FROM pragma_page_size, pragma_page_count, pragma_freelist_count"

_CONTENTS = """SELECT h.id, s.organization_id, s.device_id, h.payload
    FROM device_telemetry_history h CROSS JOIN streams s ON s.id = h.stream
    WHERE h.id IN (SELECT value FROM json_each(?))"""

_READERS = "SELECT name, position, coalesce(until_row, 9223372036854775807), coalesce(last_row, 0) FROM cursors"
_PROVISIONAL = """SELECT coalesce(max(row), 0) FROM dead_letters
    WHERE destination = ? AND provisional = 1 AND row <= ?"""


@dataclass(slots=True, frozen=True)
class Loss:
    """What one destination will never get."""

    destination: str
    readings: int
    first_row: int
    last_row: int


def note_loss(db: sqlite3.Connection, table: str, loss: Loss, now_ms: int) -> None:
    """Add a loss to what its destination has lost before, in `losses` or `dead_letter_losses`."""
    db.execute(
        f"""INSERT INTO {table} (destination, readings, first_row, last_row, since_ms, last_ms)
        VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (destination) DO UPDATE SET readings = readings + excluded.readings,
        first_row = min(first_row, excluded.first_row), last_row = max(last_row, excluded.last_row),
        last_ms = excluded.last_ms""",  # noqa: S608 - constants
        (loss.destination, loss.readings, loss.first_row, loss.last_row, now_ms, now_ms),
    )


@dataclass(slots=True)
class Reclaim:
    """A transaction, see `CommitThread`; afterwards `deleted`, `losses` and `pages` say what it did."""

    readers: Mapping[str, int]
    """Active cursors, with the newest position that is known of them."""
    rows: int
    may_lose: bool
    now_ms: int
    received_before_ms: int | None = None
    lose_until: int = NO_LIMIT
    """Up to where rows may be lost."""
    selections: Mapping[str, Selection] = field(default_factory=dict)
    deleted: int = 0
    losses: list[Loss] = field(default_factory=list)
    pages: Pages | None = None

    def write(self, db: sqlite3.Connection) -> None:
        """Delete the oldest rows that may leave."""
        needs = readers_now(db, self.readers)
        limit = min((need.position for need in needs.values()), default=NO_LIMIT)
        if self.may_lose:
            limit = max(limit, self.lose_until)
        spared = "".join(f" AND NOT (h.id > {one.position} AND h.id <= {one.safe})" for one in needs.values())
        oldest = db.execute(_OLDEST.format(spared=spared), (limit, self.rows))
        ids = [row for row, _ in takewhile(lambda one: self._is_old(one[1]), oldest)]
        self.deleted = len(ids)
        unwanted: dict[str, set[int]] = {}
        if self.may_lose and any(not one.is_everything for one in self.selections.values()):
            unwanted = unwanted_by(self.selections, db.execute(_CONTENTS, (json.dumps(ids),)))
        db.executemany("DELETE FROM device_telemetry_history WHERE id = ?", [(row,) for row in ids])
        self.losses = count_losses(db, ids, needs, unwanted, self.now_ms)
        self.pages = read_pages(db)

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.deleted = 0
        self.losses = []
        self.pages = None

    def _is_old(self, received_ms: int | None) -> bool:
        before = self.received_before_ms
        return before is None or (received_ms is not None and received_ms < before)


@dataclass(slots=True, frozen=True)
class Need:
    """The rows that one reader still needs: those beyond its position, up to the end of what it is to get."""

    position: int
    until: int
    safe: int
    """Rows up to here are under way, if it is beyond the position."""


def readers_now(db: sqlite3.Connection, readers: Mapping[str, int]) -> dict[str, Need]:
    """Return what each active reader needs, by the name of its cursor."""
    needs: dict[str, Need] = {}
    for name, stored, until, last in db.execute(_READERS).fetchall():
        if name in readers:
            ((provisional,),) = db.execute(_PROVISIONAL, (destination_of(name), until))
            needs[name] = Need(max(stored, readers[name]), until, max(last, provisional))
    return needs


def unwanted_by(
    selections: Mapping[str, Selection], contents: Iterable[tuple[int, str, str, Any]]
) -> dict[str, set[int]]:
    """Return, for each reader with a filter, which of these (row, organisation, device, payload) it leaves out."""
    filtering = {name: one for name, one in selections.items() if not one.is_everything}
    unwanted: dict[str, set[int]] = {name: set() for name in filtering}
    for row, organization_id, device_id, payload in contents:
        reading = to_reading((row, organization_id, device_id, "", None, 0, 0, 0, payload, None))
        for name, selection in filtering.items():
            if not selection.wants(reading):
                unwanted[name].add(row)
    return unwanted


def count_losses(
    db: sqlite3.Connection,
    rows: Sequence[int],
    needs: Mapping[str, Need],
    unwanted: Mapping[str, set[int]],
    now_ms: int,
) -> list[Loss]:
    """Note, for each reader that still needs some of these rows, that they are lost to it."""
    losses: list[Loss] = []
    for name, need in needs.items():
        left_out = unwanted.get(name, ())
        lost = [row for row in rows if max(need.position, need.safe) < row <= need.until and row not in left_out]
        if lost:
            losses.append(Loss(destination_of(name), len(lost), lost[0], lost[-1]))
            note_loss(db, "losses", losses[-1], now_ms)
    return losses


def read_pages(db: sqlite3.Connection) -> Pages:
    """Return how the file is used now."""
    return Pages(*db.execute(_PAGES).fetchone())
