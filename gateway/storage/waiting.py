"""What waits for the next commit.

The event loop adds to it. Who begins a commit takes it: the event loop, or the writing thread when it has just ended
one. So whatever changes it holds a lock, for as long as a few list operations take.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from gateway.model.errors import StoreFailed
from gateway.model.reading import NewQuarantine, NewReading
from gateway.storage.cursors import Attempt

if TYPE_CHECKING:
    import asyncio

Entry = NewReading | NewQuarantine
Freeze = tuple[Attempt, "asyncio.Future[bool]"]

_COMMIT_BYTES = 8_000_000  # payload in one commit at most: the write-ahead log must hold it


class Owner(Protocol):
    """Whoever waits for entries to be on disk, for example a connection that owes acknowledgements."""

    def committed(self, count: int, /) -> None:
        """`count` more of the messages it submitted are on disk, in the order it submitted them."""
        ...

    def failed(self, error: StoreFailed) -> None:
        """A commit with messages of it failed; they are not on disk."""
        ...


@dataclass(slots=True)
class Batch:
    """What goes into one commit."""

    entries: list[Entry]
    owners: list[Owner | None]
    """One for each entry; None where another entry of its message follows."""
    size_bytes: int
    """Payload of the entries."""
    moves: dict[str, int]
    """Where cursors have come to."""
    freezes: list[Freeze]


class Waiting:
    """See the module's own words."""

    def __init__(self, most: int) -> None:
        self._most = most  # entries of a batch, but for the rest of a message
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._owners: list[Owner | None] = []
        self._bytes = 0
        self._moves: dict[str, int] = {}
        self._freezes: list[Freeze] = []
        self.is_due = False
        """Whether some of it has waited long enough: the newest batch was too small for it, or somebody hurries."""

    def __bool__(self) -> bool:
        """Whether somebody waits for a commit; a cursor's move does not."""
        return bool(self._entries or self._freezes)

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Payload of the entries."""
        return self._bytes

    @property
    def entries(self) -> list[Entry]:
        """A copy of them."""
        return self._entries.copy()

    @property
    def moves(self) -> dict[str, int]:
        """A copy of them."""
        return self._moves.copy()

    def add(self, entry: Entry, owner: Owner | None) -> None:
        """Add an entry; the owner is None when another entry of the same message follows."""
        with self._lock:
            self._entries.append(entry)
            self._owners.append(owner)
            self._bytes += len(entry.payload)

    def hurry(self) -> None:
        """Let what waits now wait for no more company."""
        with self._lock:
            self.is_due = bool(self)

    def freeze(self, freeze: Freeze) -> None:
        """Add an attempt that is to be frozen."""
        with self._lock:
            self._freezes.append(freeze)

    def move(self, name: str, row: int) -> None:
        """Let a cursor's move ride along."""
        with self._lock:
            self._moves[name] = row

    def move_again(self, name: str, row: int) -> None:
        """Change a cursor's move, if there is one."""
        with self._lock:
            if name in self._moves:
                self._moves[name] = row

    def forget_move(self, name: str) -> None:
        """Forget a cursor's move."""
        with self._lock:
            self._moves.pop(name, None)

    def take(self) -> Batch:
        """Take the next batch out, never only a part of a message: it is stored whole or not."""
        with self._lock:
            return self._take(self._next_size())

    def take_complete(self) -> Batch | None:
        """As `take`, while a message may be growing: it stays. None when nobody waits for anything else."""
        with self._lock:
            size = self._next_size()
            while size and self._owners[size - 1] is None:
                size -= 1
            return self._take(size) if size or self._freezes else None

    def _take(self, size: int) -> Batch:
        entries, rest = self._entries[:size], self._entries[size:]
        rest_bytes = sum(len(entry.payload) for entry in rest)
        batch = Batch(entries, self._owners[:size], self._bytes - rest_bytes, self._moves, self._freezes)
        self._entries, self._owners, self._bytes = rest, self._owners[size:], rest_bytes
        self._moves, self._freezes = {}, []
        self.is_due = bool(rest)
        return batch

    def _next_size(self) -> int:
        size = self._most
        if self._bytes > _COMMIT_BYTES:
            sizes = accumulate(len(entry.payload) for entry in self._entries[:size])
            size = next((index + 1 for index, total in enumerate(sizes) if total > _COMMIT_BYTES), size)
        while size < len(self._owners) and self._owners[size - 1] is None:
            size += 1
        return min(size, len(self._entries))

    def put_back(self, batch: Batch, moves: Mapping[str, int]) -> None:
        """Put a batch in front of what waits; of its moves only these, which may have gone on meanwhile."""
        with self._lock:
            self._entries = batch.entries + self._entries
            self._owners = batch.owners + self._owners
            self._bytes += batch.size_bytes
            self._moves |= moves
            self._freezes = batch.freezes + self._freezes
