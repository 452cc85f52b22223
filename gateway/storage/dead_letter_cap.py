"""What dead letters may take: beyond it the oldest leave, in the commit that adds one, and are counted exactly.

- how much they take is kept by triggers (log_schema), whatever changes the table: the cap costs no scan
- the oldest is the one that was refused first, by its place in the table: a clock may jump
- a provisional one never leaves: the cursor stands before it, and whether it is a dead letter is not known yet
- nor does one that is being replayed right now: it may have arrived, so it could not be counted right
- one whose replay is requested leaves only when there is no other: somebody still wants it delivered. It must leave
  then: its destination may never come back, and no new dead letter would be kept

So the cap is exceeded by one batch under way and nine provisional readings of each destination at most.
"""

import logging
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.clock import Clock
from gateway.storage.reclaim import Loss, note_loss

if TYPE_CHECKING:  # who only reads dead letters counts nothing, and should not wait for what it takes
    from gateway.metrics import Metrics

_ROWS_AT_ONCE = 2_000

# In the very order of the index dead_letters_may_leave.
_OLDEST = """SELECT rowid, destination, row, {size} FROM dead_letters
    WHERE provisional = 0 AND replay_batch IS NULL ORDER BY replay_requested, rowid LIMIT ?"""


def size_sql(row: str) -> str:
    """Return the expression for what a dead letter takes: its parts, and about what its indexes take."""
    return (
        f"length({row}.payload) + length(CAST({row}.reason AS BLOB))"
        f" + coalesce(length(CAST({row}.metadata AS BLOB)), 0) + 300"
    )


@dataclass(slots=True)
class TrimDeadLetters:
    """A transaction, or the end of one: the oldest leave until the rest fits; `losses` says whose they were."""

    max_bytes: int
    now_ms: int
    losses: list[Loss] = field(default_factory=list)

    def write(self, db: sqlite3.Connection) -> None:
        """Delete what is too much, at most `_ROWS_AT_ONCE`."""
        (size,) = db.execute("SELECT bytes FROM dead_letters_kept").fetchone()
        if size <= self.max_bytes:
            return
        doomed: list[tuple[int]] = []
        rows: dict[str, list[int]] = {}
        for rowid, destination, row, length in db.execute(
            _OLDEST.format(size=size_sql("dead_letters")), (_ROWS_AT_ONCE,)
        ):
            if size <= self.max_bytes:
                break
            size -= length
            doomed.append((rowid,))
            rows.setdefault(destination, []).append(row)
        db.executemany("DELETE FROM dead_letters WHERE rowid = ?", doomed)
        for destination, lost in rows.items():
            loss = Loss(destination, len(lost), min(lost), max(lost))
            self.losses.append(loss)
            note_loss(db, "dead_letter_losses", loss, self.now_ms)

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.losses.clear()


class DeadLetterCap:
    """Makes the transactions, and says afterwards what was lost by them."""

    def __init__(self, max_bytes: int, clock: Clock, metrics: "Metrics") -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._metrics = metrics

    def trim(self) -> TrimDeadLetters:
        """Return what keeps the cap, to be committed."""
        return TrimDeadLetters(self._max_bytes, self._clock.now_ms())

    def report(self, trimmed: TrimDeadLetters) -> None:
        """Count what has left, once it is committed."""
        for loss in trimmed.losses:
            self._metrics.events_dropped.labels(loss.destination, "dead_letters_full").inc(loss.readings)
            # A logger of its own: equal warnings of one logger are counted, and each destination must be named.
            logging.getLogger(f"{__name__}.{loss.destination}").warning(
                "dead letters lost for want of room; raise storage.dead_letters_max_bytes or replay them sooner",
                extra={
                    "destination": loss.destination,
                    "readings": loss.readings,
                    "first_row": loss.first_row,
                    "last_row": loss.last_row,
                },
            )
