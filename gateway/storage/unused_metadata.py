"""Texts of device metadata that no reading uses any more leave the log.

Nothing counts who uses a text: that would cost every reading. Instead every text is taken for unused behind the newest
row, now and then; one that a reading comes with again is in use again. When all rows up to that one have left, the text
certainly is unused.

It does not: look at any reading. What a salvage brings back later lies below that row, and brings its text along.
"""

import sqlite3
from dataclasses import dataclass

from gateway.storage.reclaim import read_pages
from gateway.storage.space import Pages

USED_AGAIN = "DELETE FROM device_metadata_unused WHERE metadata = ?"

_AT_ONCE = 2_000

# The highest row that was ever given, also in a damaged log that is still being salvaged.
_TAKE_FOR_UNUSED = """INSERT OR IGNORE INTO device_metadata_unused
    SELECT id, (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'device_telemetry_history')
    FROM device_metadata"""
_UNUSED = """SELECT metadata FROM device_metadata_unused
    WHERE last_row < (SELECT coalesce(min(id), 9223372036854775807) FROM device_telemetry_history)
    LIMIT ?"""


@dataclass(slots=True)
class DropUnusedMetadata:
    """A transaction, see `CommitThread`; afterwards `is_done` says whether nothing more may leave now."""

    interned: dict[str, int]
    """The rows of texts that are known in memory: they are looked up again."""
    pages: Pages | None = None
    is_done: bool = False

    def write(self, db: sqlite3.Connection) -> None:
        """Take all for unused, and delete a step's worth of those that certainly are."""
        db.execute(_TAKE_FOR_UNUSED)
        self.interned.clear()
        unused = db.execute(_UNUSED, (_AT_ONCE,)).fetchall()
        db.executemany("DELETE FROM device_metadata WHERE id = ?", unused)
        db.executemany(USED_AGAIN, unused)
        self.is_done = len(unused) < _AT_ONCE
        self.pages = read_pages(db)

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.pages = None
        self.is_done = False
