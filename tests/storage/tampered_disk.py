"""The disk under a log, in the hands of a test: it fails at any statement, hangs, and loses power at any commit.

It stands between the log and its writing connection, and remembers what the log held after every transaction.
"""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.model.reading import NewQuarantine, TimeSource
from gateway.storage.cursors import Attempt, Cursor

_PATIENCE_S = 30.0
_SECTOR_BYTES = 512
_WAL_HEADER_BYTES = 32

_ROWS = """SELECT h.id, s.organization_id, s.device_id, s.boot_id, h.seq, h.time_ms, h.time_source, h.received_at_ms,
        h.monotonic_ms, h.payload, h.raw, m.json, h.gateway_boot
    FROM device_telemetry_history h LEFT JOIN streams s ON s.id = h.stream
    LEFT JOIN device_metadata m ON m.id = h.metadata ORDER BY h.id"""
_QUARANTINE = "SELECT id, organization_id, device_id, source, code, reason, received_at_ms, payload FROM quarantine"
_CURSORS = """SELECT name, position, batch_id, after_row, last_row, readings, body_sha256, created_at_ms, epochs
    FROM cursors"""


@dataclass(slots=True, frozen=True)
class Row:
    """One stored reading, with nothing interned."""

    organization_id: str
    device_id: str
    boot_id: str
    seq: int | None
    time_ms: int
    time_source: TimeSource
    received_at_ms: int
    monotonic_ms: int
    payload: bytes
    raw: bytes | None
    metadata: str | None
    gateway_boot: int


@dataclass(slots=True, frozen=True)
class State:
    """All that a log holds, as its tables say."""

    rows: dict[int, Row]
    quarantine: dict[int, NewQuarantine]
    cursors: dict[str, Cursor]
    losses: dict[str, tuple[int, int, int]]
    """Readings, first and last row, by destination."""
    epochs: dict[int, int | None]
    """When the monotonic clock was 0, by gateway boot."""
    received_by: dict[int, int | None]
    """When its readings had been received at the latest, by gateway boot whose clock was never right."""

    @classmethod
    def of(cls, db: sqlite3.Connection) -> "State":
        """Read it."""
        return cls(
            {row: Row(*rest) for row, *rest in db.execute(_ROWS)},
            {row: NewQuarantine(*rest) for row, *rest in db.execute(_QUARANTINE)},
            {
                name: Cursor(name, position, None if batch is None else Attempt(name, batch, *rest))
                for name, position, batch, *rest in db.execute(_CURSORS)
            },
            {
                name: tuple(rest)
                for name, *rest in db.execute("SELECT destination, readings, first_row, last_row FROM losses")
            },
            dict(db.execute("SELECT id, epoch_ms FROM gateway_boots")),
            dict(db.execute("SELECT id, received_by_ms FROM gateway_boots")),
        )


class PowerCut(StrEnum):
    """When the power goes: of what has not been synced, each sector is there or is not."""

    BEFORE_COMMIT = "before the commit"
    WRITING_WAL = "while the write-ahead log is written"
    COPYING_BACK = "while the write-ahead log is copied back"
    AFTER_COMMIT = "after the commit"


@dataclass(slots=True, frozen=True)
class Files:
    """The two files of a log at one moment."""

    db: bytes
    wal: bytes

    @classmethod
    def of(cls, folder: Path) -> "Files":
        """Copy them, as a power cut would leave them if everything had been synced."""
        wal = folder / "log.db-wal"
        return cls((folder / "log.db").read_bytes(), wal.read_bytes() if wal.exists() else b"")

    def write(self, folder: Path) -> None:
        """Lay them down in another folder."""
        (folder / "log.db").write_bytes(self.db)
        (folder / "log.db-wal").write_bytes(self.wal)


@dataclass(slots=True)
class Plan:
    """The `transaction`-th from now (1 is the next) is when the power goes; then `left` is what is left."""

    transaction: int
    when: PowerCut
    seed: int
    left: Files | None = None
    before: int = 0
    """How many transactions had been committed, of those in `Disk.history`."""


class Disk:
    """Takes the place of the log's `sqlite3.Connection`."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self._db = db
        self._folder = folder
        self._works = threading.Event()
        self._works.set()
        self._passes = 0
        self.waits = False
        """Whether a transaction waits."""
        self._fails_at = 0
        self._fault = "io"
        self.power_cut: Plan | None = None
        self.faults = 0
        """How many statements have failed."""
        self.now = State.of(db)
        self.history: list[State] = []
        """What the log held after each transaction, since it was asked last."""

    # What the test does with it

    def fail_at(self, statement: int, fault: str) -> None:
        """Let the `statement`-th from now fail (1 is the next): by an error of the disk (`io`), or as it is `full`."""
        self._fails_at, self._fault = statement, fault

    def hang(self, after: int = 0) -> None:
        """Let the transaction after so many more wait at its beginning."""
        self._works.clear()
        self._passes = after

    def go_on(self) -> None:
        """Hang no more."""
        self._works.set()

    def take_history(self) -> list[State]:
        """Return what was committed since the last call."""
        history, self.history = self.history, []
        return history

    # What the log does with it

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        self._db.close()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            self._wait_while_it_hangs()
        if sql != "ROLLBACK":
            self._fail_if_planned(lambda: None)
        if sql == "COMMIT":
            return self._commit()
        if sql.startswith("INSERT INTO device_telemetry_history") and not self._db.in_transaction:
            return self._execute_at_once(sql, parameters)
        return self._db.execute(sql, parameters)

    def _execute_at_once(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        """Carry out a statement that is a transaction by itself."""
        self._wait_while_it_hangs()
        self._db.execute("BEGIN")
        try:
            done = self._db.execute(sql, parameters)
            self._fail_if_planned(lambda: None)
            self._commit()
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return done

    def executescript(self, sql: str) -> sqlite3.Cursor:
        """Carry out what is no transaction of the log's: it changes files, but nothing of what the log holds."""
        self._wait_while_it_hangs()  # or files would change while a kill copies them
        self._fail_if_planned(lambda: None)
        return self._db.executescript(sql)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        several = list(parameters)
        self._fail_if_planned(lambda: self._db.executemany(sql, several[: len(several) // 2]))
        return self._db.executemany(sql, several)

    def _wait_while_it_hangs(self) -> None:
        self._passes -= 1
        if self._passes < 0:
            self.waits = True
            assert self._works.wait(_PATIENCE_S), "nobody let the disk go on"
            self.waits = False

    def _fail_if_planned(self, do_a_part: Callable[[], object]) -> None:
        self._fails_at -= 1
        if self._fails_at != 0:
            return
        do_a_part()
        self.faults += 1
        error = sqlite3.OperationalError("disk I/O error" if self._fault == "io" else "database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR if self._fault == "io" else sqlite3.SQLITE_FULL
        if self._fault == "full" and self._db.in_transaction:
            self._db.execute("ROLLBACK")  # as SQLite does by itself
        raise error

    def _commit(self) -> sqlite3.Cursor:
        plan = self.power_cut
        if plan is None or plan.left is not None or plan.transaction != len(self.history) + 1:
            done = self._db.execute("COMMIT")
        else:
            before = Files.of(self._folder)
            done = self._db.execute("COMMIT")
            plan.left = _power_cut(plan, before, Files.of(self._folder))
            plan.before = len(self.history)
        self.now = State.of(self._db)
        self.history.append(self.now)
        return done


def _power_cut(plan: Plan, before: Files, after: Files) -> Files:
    """Return what is left of a commit: only what SQLite had written since its last sync is torn.

    A commit writes frames to the write-ahead log and syncs it; only then may a checkpoint copy pages to the database,
    so never both files are torn. A write-ahead log that has all been copied back, and the database synced, is begun
    anew over its old frames: SQLite syncs the new header before it writes the first frame (`test_tampered_disk.py` sees
    it do so). A torn frame fails the checksum, which runs on from frame to frame; an old one has another salt than the
    header. Were the header not synced first, the old one would vouch for old frames not yet overwritten, and some pages
    would go back in time.
    """
    dice = random.Random(plan.seed)
    match plan.when:
        case PowerCut.BEFORE_COMMIT:
            return before
        case PowerCut.WRITING_WAL:
            torn = _torn(before.wal, after.wal, dice)
            return Files(before.db, after.wal[:_WAL_HEADER_BYTES] + torn[_WAL_HEADER_BYTES:])
        case PowerCut.COPYING_BACK:
            return Files(_torn(before.db, after.db, dice), after.wal)
        case PowerCut.AFTER_COMMIT:
            return after


def _torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """Return a file of which some sectors have been written and others have not."""
    chance = dice.random()
    size = dice.choice([len(old), len(new), dice.randint(min(len(old), len(new)), max(len(old), len(new)))])
    torn = bytearray(size)
    for at in range(0, size, _SECTOR_BYTES):
        source = new if dice.random() < chance else old
        piece = source[at : min(at + _SECTOR_BYTES, size)]
        torn[at : at + len(piece)] = piece
    return bytes(torn)
