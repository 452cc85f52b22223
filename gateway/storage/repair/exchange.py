"""A damaged log is replaced by a fresh one at once; what the old one holds follows in the background (salvage.py).

The replacement begins with all the small tables: who it is, streams, cursors with the attempts they froze.

Ids stay true
- the log's own id stays, and salvaged rows keep theirs, so `{gateway_id}:{log_uuid}:{row}` names the same reading
- new rows get ids above any that the old log can have used: its highest known one and a margin far larger than what
  a write-ahead log that was lost can have held. When nothing tells the highest, the log's own id is a new one, too.
- a stream keeps its (organisation, device, boot), whatever its number becomes

Readers stay right
- they see rows only up to the salvage's frontier, which moves in the order of ids, and new rows when all are copied:
  nothing that a destination has not acknowledged is skipped, and order is kept
- a reading that the board sent again meanwhile is known by (stream, seq): its new row, which no reader has seen, gives
  way to the old one
- a cursor that could not be read starts at the oldest row, and so does a backlog that may have been one: rather twice
  under one id than not at all

What cannot be told: a repeat without boot_id and seq of a reading received just before the damage is stored again.
"""

import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.storage.disk import sync_folder
from gateway.storage.repair.damage import (
    beside,
    corrupt_name,
    put_in_place,
    remove_database,
    set_aside,
    write_back,
)
from gateway.storage.repair.wreck import Row, Wreck, tables

HISTORY = "device_telemetry_history"
CURSORS_LOST = "cursors_lost"

DERIVED = frozenset({"dead_letters_kept", "mqtt_messages_kept", "quarantine_kept", "device_metadata_unused"})
"""Triggers fill these as the others are copied; and of what is unused a damaged log may be wrong."""
_MARGIN_ROWS = 10_000_000  # a write-ahead log of 1 GB holds fewer
_UNKNOWN_FLOOR = 2**40  # above all ids of a log that does not tell its highest

Connect = Callable[[Path], sqlite3.Connection]


@dataclass(slots=True, frozen=True)
class Known:
    """What a running gateway still knows of the log that turned out damaged."""

    uuid: str = ""
    last_row: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    """Of every cursor."""
    ends: dict[str, int] = field(default_factory=dict)
    """Of those cursors that are a backlog's."""
    all_cursors: bool = False
    """Whether there is no other."""


def own_numbers(db: sqlite3.Connection) -> list[str]:
    """Return the tables whose ids never recur (AUTOINCREMENT): the big ones, salvaged in the background."""
    rows = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")
    return sorted((str(name) for (name,) in rows), key=lambda name: name != HISTORY)


def replace_log(path: Path, reason: str, connect: Connect, now_ms: int, known: Known) -> None:
    """Set the log aside, and put a fresh one with its small tables in its place. Nothing may have it open.

    Blocks for as long as that takes, without looking at every page. Raises OSError, sqlite3.Error or StoreFailed when
    the disk does not let it; then the damaged log is still in its place.
    """
    building = beside(path, ".building")
    remove_database(building)
    corrupt = corrupt_name(path, now_ms)
    db = connect(building)
    try:
        with Wreck(path, tables(db)) as wreck:
            db.execute("BEGIN IMMEDIATE")
            _begin_with(db, wreck, known, (corrupt.name, reason, now_ms))
            db.execute("COMMIT")
        finished = db.execute("SELECT file FROM salvages WHERE finished").fetchall()
        write_back(db)
    finally:
        db.close()
    for (name,) in finished:  # one damaged log is kept for whoever wants to look at it, not one after another
        remove_database(path.with_name(name))
    put_in_place(building, beside(path, ".new"))
    _exchange(path, corrupt)


def complete_exchange(path: Path) -> None:
    """Complete an exchange that was interrupted."""
    new = beside(path, ".new")
    if not new.exists():
        return
    try:
        db = sqlite3.connect(new, isolation_level=None)
        try:
            ((corrupt,),) = db.execute("SELECT file FROM salvages ORDER BY id DESC LIMIT 1").fetchall()
        finally:
            db.close()
    except (sqlite3.DatabaseError, ValueError):  # it is damaged itself
        remove_database(new)
        return
    _exchange(path, path.with_name(corrupt))


def _exchange(path: Path, corrupt: Path) -> None:
    set_aside(path, corrupt)
    sync_folder(path.parent)
    put_in_place(beside(path, ".new"), path)


def _begin_with(db: sqlite3.Connection, wreck: Wreck, known: Known, salvage: tuple[str, str, int]) -> None:
    big = own_numbers(db)
    for name, table in wreck.tables.items():
        if name not in big and name not in DERIVED and not name.startswith("sqlite_"):
            _insert(db, name, len(table.columns), wreck.all(name))
    floors = {name: _floor(wreck.highest(name), known.last_row if name == HISTORY else 0) for name in big}
    db.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", floors.items())
    if known.uuid:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('log_uuid', ?)", (known.uuid,))
    elif floors[HISTORY] >= _UNKNOWN_FLOOR:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('log_uuid', ?)", (uuid.uuid4().hex,))
    for name, position in known.positions.items():
        db.execute(
            "INSERT INTO cursors (name, position, until_row) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
            (name, position, known.ends.get(name)),
        )
    if "cursors" in wreck.lost and not known.all_cursors:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (CURSORS_LOST,))
    # What an earlier salvage copied is in the log that is damaged now: it begins anew.
    db.execute(
        "UPDATE salvages SET frontier = 0, rescued = 0, unreadable_rows = 0, unreadable_pages = 0 WHERE NOT finished"
    )
    db.execute(
        "INSERT INTO salvages (file, reason, found_at_ms, floor, frontier, finished) VALUES (?, ?, ?, ?, 0, 0)",
        (*salvage, floors[HISTORY]),
    )


def _floor(highest: int | None, at_least: int) -> int:
    if highest is None and not at_least:
        return _UNKNOWN_FLOOR
    return max(highest or 0, at_least) + _MARGIN_ROWS


def _insert(db: sqlite3.Connection, name: str, columns: int, rows: list[Row]) -> None:
    places = ", ".join("?" * columns)
    db.executemany(f"INSERT OR IGNORE INTO {name} VALUES ({places})", rows)  # noqa: S608 - the schema's own name
