"""One thread that owns the writing connection: commits never block the event loop, and never overlap.

A slow SD card takes 50 ms and more for a sync; meanwhile the loop goes on reading sockets, and what arrives becomes
the next commit.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gateway.storage.disk import own


class Transaction(Protocol):
    """Something to be written in one transaction."""

    def write(self, db: sqlite3.Connection) -> None:
        """Execute the statements; the thread begins before and commits after them.

        What it has written itself it may roll back, if it begins anew.
        """
        ...

    def rolled_back(self) -> None:
        """Forget what `write` noted in memory: none of it reached the disk."""
        ...


@runtime_checkable
class AtOnce(Protocol):
    """A transaction that may take one statement only."""

    def write_at_once(self, db: sqlite3.Connection) -> bool:
        """Execute that statement; False when it takes more, and nothing was written."""
        ...


Statement = tuple[str, Iterable[tuple[str | int | bytes | None, ...]]]
"""SQL with one or more rows of parameters."""


@dataclass(slots=True, frozen=True)
class Statements:
    """A transaction of statements."""

    statements: Sequence[Statement]

    def write(self, db: sqlite3.Connection) -> None:
        """Execute them."""
        for sql, parameters in self.statements:
            db.executemany(sql, parameters)

    def rolled_back(self) -> None:
        """Nothing is kept in memory."""


Done = Callable[[Exception | None], None]

Following = tuple[Transaction, Callable[[Exception | None, bool], None]]
"""A transaction, and what is called on the event loop when it has ended: with its error, and whether the next one has
begun already."""

Progress = Callable[[int, int], bool]
"""Hears of (pages left, pages in all), in the writing thread; False ends the copying."""

_COPY_PAGES = 250

logger = logging.getLogger(__name__)


class CommitThread:
    """Runs transactions one after another; `done` is called on the event loop after the commit is on disk."""

    def __init__(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._db = db
        self._loop = loop
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._copies = 0
        """How many are under way: each goes on after one commit, however much waits."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def commit(self, transaction: Transaction, done: Done) -> None:
        """Queue a transaction."""
        self._jobs.put(lambda: self._commit(transaction, done))

    def commit_on(self, first: Following, following: Callable[[], Following | None]) -> None:
        """Queue a transaction, and whatever is to follow it.

        `following` is asked in the writing thread, when a transaction is on disk and nothing else is to be done.
        """
        self._jobs.put(lambda: self._commit_on(first, following))

    def call(self, work: Callable[[sqlite3.Connection], None], done: Done) -> None:
        """Queue work that cannot be part of a transaction; `done` is called on the event loop after it."""
        self._jobs.put(lambda: self._call(work, done))

    def copy(self, path: Path, progress: Progress, done: Done) -> None:
        """Queue a copy of the database into a new file. What is queued meanwhile is carried out between its steps."""
        self._jobs.put(lambda: self._call(lambda db: self._copy(db, path, progress), done))

    def execute(self, sql: str, failed: Callable[[sqlite3.Error], None] | None = None) -> None:
        """Queue a statement that cannot be part of a transaction; nobody waits for it."""
        self._jobs.put(lambda: self._execute(sql, failed))

    def close(self) -> None:
        """Carry out what is queued, then end the thread. Blocks for at most what is queued."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _commit(self, transaction: Transaction, done: Done) -> None:
        self._loop.call_soon_threadsafe(done, self._attempt(transaction))

    def _commit_on(self, one: Following | None, following: Callable[[], Following | None]) -> None:
        while one is not None:
            transaction, done = one
            error = self._attempt(transaction)
            goes_on = error is None and self._jobs.empty() and not self._copies
            one = following() if goes_on else None
            self._loop.call_soon_threadsafe(done, error, one is not None)

    def _attempt(self, transaction: Transaction) -> Exception | None:
        try:
            # A transaction by itself: SQLite begins and commits it, and the interpreter is let go of once, not thrice.
            if isinstance(transaction, AtOnce) and transaction.write_at_once(self._db):
                return None
            self._db.execute("BEGIN IMMEDIATE")
            transaction.write(self._db)
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the thread that everybody waits for
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself where it must
                self._db.execute("ROLLBACK")
            transaction.rolled_back()
            return error
        return None

    def _call(self, work: Callable[[sqlite3.Connection], None], done: Done) -> None:
        error: Exception | None = None
        try:
            work(self._db)
        except Exception as raised:  # noqa: BLE001 - as in `_attempt`
            error = raised
        self._loop.call_soon_threadsafe(done, error)

    def _copy(self, db: sqlite3.Connection, path: Path, progress: Progress) -> None:
        def between(_: int, left: int, total: int) -> None:
            if not progress(left, total):
                raise InterruptedError("nobody wants the copy any more")
            self._carry_out_what_waits()

        own(path)
        copy = sqlite3.connect(path, isolation_level=None)
        self._copies += 1
        try:
            copy.execute("PRAGMA journal_mode = off")  # should it fail, it is thrown away
            copy.execute("PRAGMA synchronous = off")
            db.backup(copy, pages=_COPY_PAGES, progress=between)
        finally:
            copy.close()
            self._copies -= 1

    def _carry_out_what_waits(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                raise InterruptedError("the log is being closed")
            job()

    def _execute(self, sql: str, failed: Callable[[sqlite3.Error], None] | None) -> None:
        try:
            self._db.executescript(sql)  # `execute` would end incremental_vacuum after one page
        except sqlite3.Error as error:
            logger.warning("%s failed: %s", sql, error)
            if failed is not None:
                self._loop.call_soon_threadsafe(failed, error)
