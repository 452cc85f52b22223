"""What messages for subscriptions of the HTTP API may take: beyond it the oldest leave, in the commit that adds some.

How many there are, and how large, is kept by triggers (log_schema): the cap costs no scan.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import NamedTuple

_ROW_BYTES = 100  # what a row takes beside its topic and payload
_AT_ONCE = 16  # this part of the cap leaves together, or every further message would cost a look at the oldest


def size_sql(row: str) -> str:
    """Return the expression for what a row takes."""
    return f"length({row}.topic) + length({row}.payload) + {_ROW_BYTES}"


_OLDEST = f"SELECT id, organization_id, topic, {size_sql('mqtt_messages')} FROM mqtt_messages ORDER BY id"  # noqa: S608 - only constants


class Left(NamedTuple):
    """A message that is not kept any more."""

    id: int
    organization_id: str
    topic: str


@dataclass(slots=True)
class TrimMessages:
    """The end of a transaction: the oldest leave until the rest fits."""

    max_messages: int
    max_bytes: int
    left: list[Left] = field(default_factory=list)

    def write(self, db: sqlite3.Connection) -> None:
        """Delete what is too much."""
        messages, size = db.execute("SELECT messages, bytes FROM mqtt_messages_kept").fetchone()
        if messages <= self.max_messages and size <= self.max_bytes:
            return
        wanted_messages = self.max_messages - self.max_messages // _AT_ONCE
        wanted_bytes = self.max_bytes - self.max_bytes // _AT_ONCE
        for row, organization_id, topic, length in db.execute(_OLDEST):
            if messages <= wanted_messages and size <= wanted_bytes:
                break
            messages -= 1
            size -= length
            self.left.append(Left(row, organization_id, topic))
        db.execute("DELETE FROM mqtt_messages WHERE id <= ?", (self.left[-1].id,))

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.left.clear()
