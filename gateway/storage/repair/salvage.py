"""Copies what is readable of a damaged log into the one that took its place: see exchange.py for what stays true.

A chunk is one transaction: its rows, and how far the salvage has come. So it goes on where it was after any stop.
While room is short (see `Shortage`) only what must be written is, so that no one waits for ever for another: readers
wait for the salvage, the salvage for room, and room only comes when readers have had what is there.
- delivered rows leave the log for the salvage's sake, and those that every reader has passed are not copied at all
- what is left of a chunk is written, beyond the bounds, when readers have had everything before it and wait: so the
  bounds are exceeded by one chunk, which leaves again when it has been delivered. Otherwise it is held until they have.
- while the store must lose the oldest readings (`drop_oldest`, and it is full), those are the ones here: what would be
  held is given up and counted, and nothing newer is lost before. Under `reject` nothing is ever given up.
- quarantined input is left out
No room is made by cutting the damaged log shorter: should the log that readings are copied to be damaged, too, its own
salvage begins anew, and needs all of them.

Payloads that are not JSON any more are left out, as are readings whose stream is lost; both are counted.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from pydantic_core import from_json

from gateway.model.selection import Selection
from gateway.storage.cursors import destination_of
from gateway.storage.reclaim import NO_LIMIT, Loss, Need, count_losses, read_pages, readers_now, unwanted_by
from gateway.storage.repair.exchange import HISTORY, own_numbers
from gateway.storage.repair.sqlite_file import Value
from gateway.storage.repair.wreck import Row, Table, Wreck, tables
from gateway.storage.space import Pages

_ROWS_AT_ONCE = 1_000  # a commit that readings wait behind: some 20 ms
_BYTES_AT_ONCE = 4_000_000  # the write-ahead log is to hold it: what the rest of the store leaves of WAL_BYTES
_BYTES_BESIDE = 200  # of a row, beside what it carries

_SENT_AGAIN_ROWS = (
    10_000  # what a board got no acknowledgement for, it sends again: that is looked for among the newest
)

_WHOSE = "SELECT organization_id, device_id FROM streams WHERE id = ?"
_SENT_AGAIN = "SELECT 1 FROM device_telemetry_history WHERE stream = ? AND seq = ? AND id > ?"
_UNDELIVERED = """SELECT EXISTS (SELECT 1 FROM device_telemetry_history WHERE id <= ? AND id > max(?, coalesce(
    (SELECT max(row) FROM dead_letters WHERE destination = ? AND provisional = 1 AND row <= ?), 0)))"""
_UNFINISHED = """SELECT id, file, reason, floor, frontier, rescued, unreadable_rows, unreadable_pages FROM salvages
    WHERE NOT finished ORDER BY id"""
_PROGRESS = """UPDATE salvages SET frontier = ?, finished = ?, rescued = rescued + ?,
    unreadable_rows = unreadable_rows + ?, unreadable_pages = unreadable_pages + ? WHERE id = ?"""


@dataclass(slots=True)
class SalvageState:
    """A row of `salvages`."""

    id: int
    file: str
    reason: str
    floor: int
    """New rows are above it."""
    frontier: int
    """Readings up to here are copied; the floor, when all are."""
    rescued: int = 0
    unreadable_rows: int = 0
    """Of the pages that can be read."""
    unreadable_pages: int = 0


def unfinished(db: sqlite3.Connection) -> list[SalvageState]:
    """Return the salvages that are still to be done, in the order of their rows."""
    return [SalvageState(*row) for row in db.execute(_UNFINISHED)]


def finished(db: sqlite3.Connection) -> set[str]:
    """Return the damaged logs that nothing is to be read from any more: a name may have been used twice."""
    return {str(file) for (file,) in db.execute("SELECT file FROM salvages GROUP BY file HAVING min(finished)")}


def is_copying(salvages: list[SalvageState]) -> bool:
    """Whether readings may still come back."""
    return any(salvage.frontier < salvage.floor for salvage in salvages)


def visible_row(salvages: list[SalvageState], newest: int) -> int:
    """Return the row up to which readers may see the log."""
    frontier = 0
    for salvage in salvages:
        frontier = max(frontier, salvage.frontier)
        if salvage.frontier < salvage.floor:
            return frontier
    return newest


@dataclass(slots=True, frozen=True)
class Shortage:
    """What decides, when there is no room, which rows of a chunk are written; see the module's own words."""

    readers: Mapping[str, int]
    """Active cursors, with the newest position that is known of them."""
    selections: Mapping[str, Selection]
    visible: int
    """The row up to which they see the log."""
    awaited: Sequence[tuple[int, int]]
    """Rows (after, last) that are waited for as a whole: what is there of them is not delivered before the rest is."""
    must_lose: bool
    now_ms: int


@dataclass(slots=True)
class Chunk:
    """One transaction of a salvage. After the commit, `done` and then `rows` say what of it had to be held."""

    salvage: SalvageState
    table: Table
    rows: list[Row]
    frontier: int
    is_last: bool = False
    unreadable_rows: int = 0
    unreadable_pages: int = 0
    """What was found since the chunk before."""
    interned: dict[str, dict[int, Row]] = field(default_factory=dict)
    """The damaged log's interned values, by table and id."""
    shortage: Shortage | None = None
    rescued: int = 0
    last_row: int = 0
    """The last reading that was written; 0 when none was."""
    written_bytes: int = 0
    readers_waited: bool = False
    """Whether, when room was short, they had had everything before it."""
    losses: list[Loss] = field(default_factory=list)
    quarantine_lost: int = 0
    pages: Pages | None = None
    _reached: int = 0
    _held: list[Row] = field(default_factory=list)
    _lost: int = 0

    def write(self, db: sqlite3.Connection) -> None:
        """Write what may be written; see `CommitThread`."""
        self.rescued = self.last_row = self.quarantine_lost = self._lost = 0
        self.losses, self._held, self._reached = [], [], self.frontier
        rows = self.rows
        if self.table.name == HISTORY:
            if self.shortage is not None:
                rows = self._needed(db, self.shortage)
            self.last_row = _id(rows[-1]) if rows else 0
            self.written_bytes = sum(map(row_bytes, rows))
            rows = self._renumbered(db, rows)
            self._remove_repeats(db, rows)
        elif self.shortage is not None:
            self.quarantine_lost, rows = len(rows), []
        places = ", ".join("?" * len(self.table.columns))
        done = db.executemany(f"INSERT OR IGNORE INTO {self.table.name} VALUES ({places})", rows)  # noqa: S608 - our own name
        self.rescued = done.rowcount if self.table.name == HISTORY else 0
        self.pages = read_pages(db)
        if len(self._held) == len(self.rows) > 0:
            return
        unreadable_rows = self.unreadable_rows + self._lost
        progress = (self._reached, self.is_last, self.rescued, unreadable_rows, self.unreadable_pages)
        db.execute(_PROGRESS, (*progress, self.salvage.id))

    def rolled_back(self) -> None:
        """Nothing is kept in memory."""

    def done(self) -> None:
        """Note that it is on disk."""
        if len(self._held) == len(self.rows) > 0:
            return
        self.rows = self._held
        self.salvage.frontier = self._reached
        self.salvage.rescued += self.rescued
        self.salvage.unreadable_rows += self.unreadable_rows + self._lost
        self.salvage.unreadable_pages += self.unreadable_pages
        self.unreadable_rows = self.unreadable_pages = 0

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return sum(map(row_bytes, self.rows))

    def _needed(self, db: sqlite3.Connection, short: Shortage) -> list[Row]:
        """Return the readings that are to be written though there is no room."""
        needs = readers_now(db, short.readers)
        under_way = [(need.position, need.safe) for need in needs.values()]
        behind = max(short.visible, min((need.position for need in needs.values()), default=NO_LIMIT))
        passed = [row for row in self.rows if _id(row) <= behind]
        rest = [row for row in self.rows if _id(row) > behind]
        self._remove_repeats(db, self._renumbered(db, passed))
        undelivered = (
            db.execute(_UNDELIVERED, (min(short.visible, need.until), need.position, destination_of(name), need.until))
            for name, need in needs.items()
        )
        self.readers_waited = not any(found for ((found,),) in undelivered)
        if not self.readers_waited:
            needed = list(takewhile(lambda row: _is_in(_id(row), short.awaited), rest))
            rest = rest[len(needed) :]
            if short.must_lose:
                needed += [row for row in rest if _is_in(_id(row), under_way)]
                given_up = [row for row in rest if not _is_in(_id(row), under_way)]
                self._give_up(db, given_up, needs, short)
            else:
                self._held = rest
            rest = needed
        if self._held:
            self._reached = max(self.salvage.frontier, *(_id(row) for row in passed + rest), 0)
        else:
            self._reached = min(self.salvage.floor, max(self.frontier, behind - _SENT_AGAIN_ROWS))
        return rest

    def _give_up(
        self,
        db: sqlite3.Connection,
        rows: list[Row],
        needs: Mapping[str, Need],
        short: Shortage,
    ) -> None:
        """Count readings as lost, but those that a board has sent again since."""
        lost = [row for row in self._renumbered(db, rows) if not db.execute(_SENT_AGAIN, self._key(row)).fetchone()]
        stream, payload = (self.table.columns.index(name) for name in ("stream", "payload"))
        contents = ((_id(row), *db.execute(_WHOSE, (row[stream],)).fetchone(), row[payload]) for row in lost)
        unwanted = unwanted_by(short.selections, contents)
        self.losses = count_losses(db, [_id(row) for row in lost], needs, unwanted, short.now_ms)

    def _key(self, row: Row) -> tuple[Value, Value, int]:
        place = self.table.columns.index
        return row[place("stream")], row[place("seq")], self.salvage.floor

    def _remove_repeats(self, db: sqlite3.Connection, readings: list[Row]) -> None:
        """Remove what boards have sent again since: it would go out under a second id."""
        keys = [self._key(row) for row in readings]
        db.executemany(
            "DELETE FROM device_telemetry_history WHERE stream = ? AND seq = ? AND id > ?",
            [key for key in keys if key[1] is not None],
        )

    def _renumbered(self, db: sqlite3.Connection, rows: list[Row]) -> list[Row]:
        """Return the readings with today's numbers of their streams, but those whose stream is lost."""
        place = self.table.columns.index
        stream, boot, metadata = place("stream"), place("gateway_boot"), place("metadata")
        numbers: dict[tuple[str, Value], int | None] = {}

        def number(table: str, old: Value) -> int | None:
            if (table, old) not in numbers:
                numbers[table, old] = self._number(db, table, old)
            return numbers[table, old]

        found: list[Row] = []
        for row in rows:
            values = list(row)
            values[stream] = number("streams", row[stream])
            if values[stream] is None:
                self._lost += 1
                continue
            values[boot] = number("gateway_boots", row[boot])
            if row[metadata] is not None:
                values[metadata] = number("device_metadata", row[metadata])
            found.append(tuple(values))
        return found

    def _number(self, db: sqlite3.Connection, table: str, old: Value) -> int | None:
        """Return the number that an interned value has now; None when the value is lost."""
        values = self.interned[table].get(old) if isinstance(old, int) else None
        if values is None:
            if table != "gateway_boots":
                return None
            values = (old, 0, None, None, None)  # a boot that nothing is known of; its readings are whole without it
        row_id, *rest = values
        match table:
            case "streams":
                where, columns = (
                    "organization_id = ? AND device_id = ? AND boot_id = ?",
                    "organization_id, device_id, boot_id",
                )
            case "device_metadata":
                where, columns = "json = ?", "json"
            case _:
                where, columns = "started_at_ms = ?", "started_at_ms, epoch_ms, machine_boot, received_by_ms"
        found = db.execute(
            f"SELECT id FROM {table} WHERE {where} ORDER BY id <> ? LIMIT 1",  # noqa: S608 - constants
            (*rest[: where.count("?")], row_id),
        ).fetchone()
        if found is not None:
            return int(found[0])
        places = ", ".join("?" * len(rest))
        return db.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", rest).lastrowid  # noqa: S608


def _id(row: Row) -> int:
    return int(row[0] or 0)


def _is_in(row: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(after < row <= last for after, last in ranges)


def chunks(
    salvage: SalvageState, log: Path, known: dict[str, Table], big: list[str], checkpoint: Callable[[], None]
) -> Generator[Chunk, None, None]:
    """Yield the transactions that finish a salvage; each step is for a thread.

    A step blocks for some ten milliseconds, but where a tree is broken the first one looks at every page, which takes
    minutes in a large file: `checkpoint` is called for each page, and may rest, or raise to end it.
    """
    with Wreck(log.with_name(salvage.file), known, checkpoint) as wreck:
        interned = {name: _interned(wreck, name) for name in ("streams", "device_metadata", "gateway_boots")}
        for name in big:
            table = known[name]
            after = salvage.frontier if name == HISTORY else 0
            until = salvage.floor if name == HISTORY else 2**63 - 1
            if name != HISTORY:
                rows = wreck.rows(name, after=after, until=until)
            else:
                rows = wreck.rows(name, after=after, until=until, passed=lambda: salvage.frontier)
                rows = _with_payload(rows, table, wreck)
            for batch in _batches(rows):
                chunk = Chunk(salvage, table, batch, salvage.floor, interned=interned)
                if name == HISTORY:
                    batch.sort(key=_id)
                    chunk.frontier = max(salvage.frontier, _id(batch[-1]))
                    _hand_over_counts(wreck, chunk)
                yield chunk
            # Other tables begin anew after a stop: theirs are counted at the end.
            chunk = Chunk(salvage, table, [], salvage.floor, is_last=name == big[-1], interned=interned)
            _hand_over_counts(wreck, chunk)
            yield chunk


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows in what one transaction may take; no row is looked at before it is wanted."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row_bytes(row)
        if len(batch) == _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def row_bytes(row: Row) -> int:
    """Return about what a row takes."""
    return _BYTES_BESIDE + sum(len(value) for value in row if isinstance(value, bytes | str))


def _hand_over_counts(wreck: Wreck, chunk: Chunk) -> None:
    """Let what could not be read be counted in the transaction that passes it: once, whatever stops it."""
    chunk.unreadable_rows, chunk.unreadable_pages = wreck.unreadable_rows, wreck.unreadable_pages
    wreck.unreadable_rows = wreck.unreadable_pages = 0


def layout(db: sqlite3.Connection) -> tuple[dict[str, Table], list[str]]:
    """Return what `chunks` must know of the log it copies into: its tables, and which of them are big."""
    return tables(db), own_numbers(db)


def _interned(wreck: Wreck, name: str) -> dict[int, Row]:
    """Return a small table by id, with what only a look at every page finds."""
    found = {int(row[0]): row for row in wreck.all(name) if isinstance(row[0], int)}
    for row in wreck.rows(name, after=0, until=2**62):
        if isinstance(row[0], int):
            found.setdefault(row[0], row)
    wreck.unreadable_rows = wreck.unreadable_pages = 0
    return found


def _with_payload(rows: Iterator[Row], table: Table, wreck: Wreck) -> Iterator[Row]:
    """Leave out readings whose payload is no JSON object any more."""
    payload = table.columns.index("payload")
    for row in rows:
        value = row[payload]
        try:
            whole = isinstance(value, bytes) and isinstance(from_json(value), dict)
        except ValueError:
            whole = False
        if whole:
            yield row
        else:
            wreck.unreadable_rows += 1
