"""What messages for subscriptions of the HTTP API may take: beyond it the oldest leave, in the commit that adds some.

They leave whoever takes most: an organisation that publishes much loses its own, and nobody else's. How many there are,
and how large, is kept by triggers (log_schema): the cap costs no scan.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_ROW_BYTES = 100  # what a row takes beside its topic and payload
_AT_ONCE = 16  # this part of the cap leaves together, or every further message would cost a look at the oldest


def size_sql(row: str) -> str:
    """Return the expression for what a row takes."""
    return f"length({row}.topic) + length({row}.payload) + {_ROW_BYTES}"


_OLDEST = f"""SELECT id, topic, {size_sql("mqtt_messages")} FROM mqtt_messages WHERE organization_id = ? ORDER BY id"""  # noqa: S608 - only constants


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
        kept = {name: (messages, size) for name, messages, size in db.execute(_KEPT)}
        if self._fits(kept, 0):
            return
        oldest: dict[str, Iterator[tuple[int, str, int]]] = {}
        until: dict[str, int] = {}
        while not self._fits(kept, _AT_ONCE):
            name = max(kept, key=lambda one: self._share(*kept[one]))
            rows = oldest.setdefault(name, iter(db.execute(_OLDEST, (name,))))
            row, topic, length = next(rows)
            messages, size = kept[name]
            kept[name] = (messages - 1, size - length)
            until[name] = row
            self.left.append(Left(row, name, topic))
        oldest.clear()  # the statements end before what they read is deleted
        for name, row in until.items():
            db.execute("DELETE FROM mqtt_messages WHERE organization_id = ? AND id <= ?", (name, row))
            db.execute("UPDATE mqtt_messages_kept SET left_until = ? WHERE organization_id = ?", (row, name))

    def _fits(self, kept: dict[str, tuple[int, int]], spare: int) -> bool:
        messages = sum(one for one, _ in kept.values())
        size = sum(one for _, one in kept.values())
        room = 1 - 1 / spare if spare else 1
        return messages <= self.max_messages * room and size <= self.max_bytes * room

    def _share(self, messages: int, size: int) -> float:
        return max(messages / self.max_messages, size / self.max_bytes)

    def rolled_back(self) -> None:
        """Nothing has left."""
        self.left.clear()


_KEPT = "SELECT organization_id, messages, bytes FROM mqtt_messages_kept WHERE messages"
