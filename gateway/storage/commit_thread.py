"""One thread that owns the writing connection: commits never block the event loop, and never overlap.

A slow SD card takes 50 ms and more for a sync; meanwhile the loop goes on reading sockets, and what arrives becomes
the next commit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class Transaction(Protocol):
    """Something to be written in one transaction."""

    def write(self, db: sqlite3.Connection) -> None:
        """Execute the statements; the thread begins and commits around them."""
        ...

    def rolled_back(self) -> None:
        """Forget what `write` noted in memory: none of it reached the disk."""
        ...


Done = Callable[[Exception | None], None]


class CommitThread:
    """Runs transactions one after another; `done` is called on the event loop after the commit is on disk."""

    def __init__(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._db = db
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Transaction, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def commit(self, transaction: Transaction, done: Done) -> None:
        """Queue a transaction."""
        self._jobs.put((transaction, done))

    def close(self) -> None:
        """Carry out what is queued, then end the thread. Blocks for at most one commit."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            transaction, done = job
            self._loop.call_soon_threadsafe(done, self._attempt(transaction))

    def _attempt(self, transaction: Transaction) -> Exception | None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            transaction.write(self._db)
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the thread that everybody waits for
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself where it must
                self._db.execute("ROLLBACK")
            transaction.rolled_back()
            return error
        return None
