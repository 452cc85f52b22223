"""What quarantined input may take: beyond it the oldest leaves, in the commit that adds some.

One board that sends garbage as fast as it can must not fill the store, nor wait for a clock's tick to be bounded.
How much there is, is kept by triggers (log_schema), whatever changes the table: the cap costs no scan.
"""

import sqlite3
from dataclasses import dataclass

_ROW_BYTES = 200  # what a row takes beside its payload


def size_sql(row: str) -> str:
    """Return the expression for what a row takes."""
    return f"length({row}.payload) + {_ROW_BYTES}"


_OLDEST = f"SELECT id, {size_sql('quarantine')} FROM quarantine ORDER BY id"  # noqa: S608 - only constants


@dataclass(slots=True)
class TrimQuarantine:
    """A transaction, or the end of one: the oldest leave until the rest fits; `deleted` counts them."""

    max_bytes: int
    deleted: int = 0

    def write(self, db: sqlite3.Connection) -> None:
        """Delete what is too much."""
        (size,) = db.execute("SELECT bytes FROM quarantine_kept").fetchone()
        doomed = 0
        for row, length in db.execute(_OLDEST):
            if size <= self.max_bytes:
                break
            size -= length
            doomed = row
            self.deleted += 1
        if doomed:
            db.execute("DELETE FROM quarantine WHERE id <= ?", (doomed,))

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.deleted = 0
