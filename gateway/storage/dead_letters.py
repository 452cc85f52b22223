"""What a destination refused, reading by reading, and why.

- a dead letter carries the reading itself, so that it can be sent again when the log no longer has it
- it begins as provisional: the cursor has not passed it, and either passes it later, which confirms it in the same
  commit (`CONFIRM`), or the rejection is withdrawn and the reading is sent again in its turn
- a confirmed one stays until the destination has acknowledged it after all (a replay), or until it is dropped
- a replay's batch is frozen on disk, as its rows' `replay_batch`, before its first byte leaves
- beyond their cap the oldest leave and are counted (dead_letter_cap.py)

It does not: decide what a rejection is, or send anything (cloud_sync).
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from gateway.model.reading import StoredReading
from gateway.model.status import Loss
from gateway.storage.commit_thread import Statement, Transaction
from gateway.storage.cursors import backlog_of, destination_of
from gateway.storage.dead_letter_cap import DeadLetterCap, TrimDeadLetters
from gateway.storage.stored_row import to_reading

Fetch = Callable[[str, Iterable[object]], Awaitable[Iterable[sqlite3.Row]]]
"""Asks the log: a running one may have been exchanged since the last question."""
Write = Callable[..., Awaitable[None]]
"""Carries out statements in one transaction; returns when it is on disk, raises StoreFailed."""
Transact = Callable[[Transaction], Awaitable[None]]
"""Carries out a transaction, in the same way."""

CONFIRM = "UPDATE dead_letters SET provisional = 0 WHERE destination = ? AND provisional = 1 AND row <= ?"
"""For (destination, row): its cursor has passed the row."""
FORGET_PROVISIONAL = "DELETE FROM dead_letters WHERE destination = ? AND provisional = 1"

_END_ATTEMPT = """UPDATE cursors SET batch_id = NULL, after_row = NULL, last_row = NULL, readings = NULL,
    body_sha256 = NULL, created_at_ms = NULL, epochs = NULL WHERE name = ?"""

# One of a reader that has begun anew; not by INSERT OR REPLACE, see the triggers in log_schema.
_FORGET_OLDER = "DELETE FROM dead_letters WHERE destination = ? AND row = ?"
_SET_ASIDE = """INSERT INTO dead_letters (destination, row, organization_id, device_id, boot_id, seq,
        time_ms, time_source, received_at_ms, payload, metadata, reason, attempts, first_at_ms, last_at_ms, provisional)
    SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 1
    WHERE EXISTS (SELECT 1 FROM device_telemetry_history WHERE id = ?)"""  # not when it was erased meanwhile

_READING = """row, organization_id, device_id, boot_id, seq, time_ms, time_source, received_at_ms, payload, metadata"""
LETTER = f"destination, reason, attempts, first_at_ms, last_at_ms, provisional, replay_requested, {_READING}"
_REQUESTED = "destination = ? AND replay_requested AND provisional = 0"
_REQUEST = """UPDATE dead_letters SET replay_requested = 1
    WHERE destination = ? AND row = ? AND provisional = 0 AND NOT replay_requested"""
_ASKED_AT_ONCE = 5_000
_FREEZE = "UPDATE dead_letters SET replay_batch = ?, replay_sha256 = ? WHERE destination = ? AND row = ?"
_THAW = """UPDATE dead_letters SET replay_batch = NULL, replay_sha256 = NULL
    WHERE destination = ? AND replay_requested AND replay_batch IS NOT NULL"""
_REFUSED_AGAIN = """UPDATE dead_letters SET reason = ?, attempts = attempts + 1, last_at_ms = ?, replay_requested = 0,
    replay_batch = NULL, replay_sha256 = NULL WHERE destination = ? AND replay_batch = ?"""


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """One reading that one destination refused."""

    destination: str
    reason: str
    """What the destination said last."""
    attempts: int
    """How often it was refused, alone."""
    first_at_ms: int
    last_at_ms: int
    provisional: bool
    """The cursor has not passed it: the next success confirms it."""
    replay_requested: bool
    reading: StoredReading

    @property
    def key(self) -> tuple[str, int]:
        """What names it."""
        return self.destination, self.reading.row


@dataclass(slots=True, frozen=True)
class FrozenReplay:
    """Dead letters on their way again."""

    batch_id: str
    body_sha256: str
    readings: list[StoredReading]


class DeadLetterReader:
    """The dead letters, read-only."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def letters(
        self, destination: str | None = None, *, after: tuple[int, str] = (0, ""), limit: int = 1_000
    ) -> list[DeadLetter]:
        """Return dead letters beyond (row, destination), provisional ones too, in that order."""
        rows = await self._fetch(
            f"SELECT {LETTER} FROM dead_letters WHERE (row, destination) > (?, ?)"  # noqa: S608 - only constants
            " AND destination = coalesce(?, destination) ORDER BY row, destination LIMIT ?",
            (*after, destination, limit),
        )
        return [letter_of(tuple(row)) for row in rows]

    async def counts(self) -> dict[str, int]:
        """Return how many each destination has, without the provisional ones."""
        rows = await self._fetch(
            "SELECT destination, count(*) FROM dead_letters WHERE provisional = 0 GROUP BY destination", ()
        )
        return {str(destination): int(count) for destination, count in rows}

    async def loss(self, destination: str) -> Loss | None:
        """Return what has left beyond the cap."""
        rows = await self._fetch(
            "SELECT readings, first_row, last_row, since_ms FROM dead_letter_losses WHERE destination = ?",
            (destination,),
        )
        return next((Loss(*row) for row in rows), None)

    async def provisional(self, destination: str) -> list[DeadLetter]:
        """Return those that the cursor has not passed."""
        rows = await self._fetch(
            f"SELECT {LETTER} FROM dead_letters WHERE destination = ? AND provisional = 1 ORDER BY row",  # noqa: S608 - only constants
            (destination,),
        )
        return [letter_of(tuple(row)) for row in rows]

    async def keys(
        self,
        destination: str | None = None,
        *,
        organization_id: str | None = None,
        rows: Collection[int] | None = None,
    ) -> set[tuple[str, int]]:
        """Return (destination, row) of each, without the provisional ones; None stands for any."""
        # Only what is asked for, so that the index finds it: there may be a hundred thousand.
        wanted: dict[str, object] = {}
        if destination is not None:
            wanted["destination = ?"] = destination
        if organization_id is not None:
            wanted["organization_id = ?"] = organization_id
        if rows is not None:
            wanted["row IN (SELECT value FROM json_each(?))"] = json.dumps([*rows])
        conditions = " AND ".join(["provisional = 0", *wanted])
        asked = f"SELECT destination, row FROM dead_letters WHERE {conditions}"  # noqa: S608 - only constants
        found = await self._fetch(asked, tuple(wanted.values()))
        return {(str(name), int(row)) for name, row in found}

    async def requested_keys(self) -> set[tuple[str, int]]:
        """Return (destination, row) of each whose replay is requested and not yet settled."""
        rows = await self._fetch("SELECT destination, row FROM dead_letters WHERE replay_requested", ())
        return {(str(name), int(row)) for name, row in rows}

    async def requested(self, destination: str, *, until: int, limit: int, max_bytes: int) -> list[StoredReading]:
        """Return what is to be replayed, up to row `until`; bounds as in `LogReader.read`."""
        rows = await self._fetch(
            f"SELECT {_READING} FROM dead_letters WHERE {_REQUESTED} AND row <= ? ORDER BY row LIMIT ?",  # noqa: S608 - only constants
            (destination, until, limit),
        )
        readings: list[StoredReading] = []
        size = 0
        for row in rows:
            reading = to_reading(tuple(row))
            size += reading.size_bytes
            if readings and size > max_bytes:
                break
            readings.append(reading)
        return readings

    async def count_in_replay(self, destination: str, batch_id: str) -> int:
        """Return how many are still to go out in that batch."""
        ((count,),) = await self._fetch(
            "SELECT count(*) FROM dead_letters WHERE destination = ? AND replay_requested AND replay_batch = ?",
            (destination, batch_id),
        )
        return int(count)

    async def replay_under_way(self, destination: str) -> FrozenReplay | None:
        """Return the replay that was frozen and not settled."""
        rows = await self._fetch(
            f"SELECT replay_batch, replay_sha256, {_READING} FROM dead_letters"  # noqa: S608 - only constants
            " WHERE destination = ? AND replay_requested AND replay_batch IS NOT NULL ORDER BY row",
            (destination,),
        )
        letters = [tuple(row) for row in rows]
        if not letters:
            return None
        batch_id, body_sha256 = letters[0][:2]
        return FrozenReplay(batch_id, body_sha256, [to_reading(letter[2:]) for letter in letters])


class DeadLetters(DeadLetterReader):
    """The dead letters, for whoever may write."""

    def __init__(self, fetch: Fetch, write: Write, transact: Transact, cap: DeadLetterCap) -> None:
        super().__init__(fetch)
        self._write = write
        self._transact = transact
        self._cap = cap
        self.settled = 0
        """Grows whenever replays were answered, or readings were given up."""
        self._has_settled = asyncio.Event()
        self._witnesses: list[set[tuple[str, int]]] = []

    # Rejections

    async def set_aside(self, cursor: str, reading: StoredReading, reason: str, now_ms: int) -> None:
        """Note that the reading was refused alone: provisional, and the end of the attempt that this cursor has frozen.

        Others leave in the same commit, if there are too many.
        """
        destination = destination_of(cursor)
        letter = (
            destination,
            reading.row,
            reading.organization_id,
            reading.device_id,
            reading.boot_id or "",
            reading.seq,
            reading.time_ms,
            int(reading.time_source),
            reading.received_at_ms,
            b"" if reading.defect else to_json(reading.body),
            to_json(reading.device_metadata).decode() if reading.device_metadata else None,
            reason,
            now_ms,
            now_ms,
            reading.row,
        )
        forget = (_FORGET_OLDER, [(destination, reading.row)])
        step = _SetAside((forget, (_SET_ASIDE, [letter]), (_END_ATTEMPT, [(cursor,)])), self._cap.trim())
        await self._transact(step)
        if step.trim.losses:
            self._cap.report(step.trim)
            self.note_settled()

    async def withdraw(self, destination: str) -> None:
        """Take its provisional rejections back: it is the destination that errs. Its frozen attempts end, too."""
        cursors = [(destination,), (backlog_of(destination),)]
        await self._write((FORGET_PROVISIONAL, [(destination,)]), (_END_ATTEMPT, cursors))

    # Replays

    async def request_replay(self, keys: Iterable[tuple[str, int]]) -> None:
        """Ask that these be sent again; on return all of it is on disk. Raises StoreFailed: then some of it may be."""
        wanted = sorted(keys)
        for first in range(0, len(wanted), _ASKED_AT_ONCE):  # others' readings go on in between
            await self._write((_REQUEST, wanted[first : first + _ASKED_AT_ONCE]))

    async def freeze_replay(self, destination: str, replay: FrozenReplay) -> None:
        """Put a replay's batch on disk, in place of one that was frozen before."""
        rows = [(replay.batch_id, replay.body_sha256, destination, reading.row) for reading in replay.readings]
        await self._write((_THAW, [(destination,)]), (_FREEZE, rows))

    async def thaw_replay(self, destination: str) -> None:
        """Forget the frozen batch; what was in it is still to be replayed, under another id."""
        await self._write((_THAW, [(destination,)]))

    async def replayed(self, destination: str, batch_id: str, rows: Iterable[int]) -> None:
        """Remove what the destination has acknowledged."""
        for acknowledged in self._witnesses:
            acknowledged.update((destination, row) for row in rows)
        await self._write(
            ("DELETE FROM dead_letters WHERE destination = ? AND replay_batch = ?", [(destination, batch_id)])
        )
        self.note_settled()

    async def refused_again(self, destination: str, batch_id: str, reason: str, now_ms: int) -> None:
        """Note a renewed rejection; it is not sent again until somebody asks."""
        await self._write((_REFUSED_AGAIN, [(reason, now_ms, destination, batch_id)]))
        self.note_settled()

    async def drop(self, keys: Iterable[tuple[str, int]]) -> None:
        """Give readings up for good."""
        await self._write(
            ("DELETE FROM dead_letters WHERE destination = ? AND row = ? AND provisional = 0", list(keys))
        )
        self.note_settled()

    @contextmanager
    def witness(self) -> Iterator[set[tuple[str, int]]]:
        """Collect (destination, row) of what is acknowledged while inside, a moment before it leaves the table.

        That a dead letter is gone does not prove that it was delivered: it may have been given up.
        """
        acknowledged: set[tuple[str, int]] = set()
        self._witnesses.append(acknowledged)
        try:
            yield acknowledged
        finally:
            self._witnesses[:] = [one for one in self._witnesses if one is not acknowledged]

    def note_settled(self) -> None:
        """Wake who waits for replays."""
        self.settled += 1
        self._has_settled.set()
        self._has_settled = asyncio.Event()

    async def wait_settled(self, settled: int) -> None:
        """Return when `settled` has grown beyond that."""
        while self.settled <= settled:
            await self._has_settled.wait()


@dataclass(slots=True, frozen=True)
class _SetAside:
    """A transaction: one more, and what is too many by that."""

    statements: Sequence[Statement]
    trim: TrimDeadLetters

    def write(self, db: sqlite3.Connection) -> None:
        for sql, parameters in self.statements:
            db.executemany(sql, parameters)
        self.trim.write(db)

    def rolled_back(self) -> None:
        self.trim.rolled_back()


def letter_of(row: tuple[Any, ...]) -> DeadLetter:
    """Make a dead letter of what `LETTER` names."""
    destination, reason, attempts, first_at_ms, last_at_ms, provisional, replay_requested, *reading = row
    return DeadLetter(
        destination,
        reason,
        attempts,
        first_at_ms,
        last_at_ms,
        bool(provisional),
        bool(replay_requested),
        to_reading(tuple(reading)),
    )
