"""A log in a folder of its own, entries for it, and what hears and holds its commits."""

import sqlite3
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log


def opened(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Log]:
    return Log.create(
        folder / "log.db", StorageSettings(**settings), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None
    )


def new(
    log: Log, seq: int | None = None, *, device: str = "kitchen", boot: str = "b", metadata: str | None = None
) -> NewReading:
    payload = b'{"device_id":"%s","sensors":{},"n":%d}' % (device.encode(), seq or 0)
    return NewReading(
        log.stream("default", device, boot), seq, 1000, TimeSource.DEVICE, 2000, 0, payload, None, metadata
    )


def unusable(number: int) -> NewQuarantine:
    return NewQuarantine("default", "kitchen", "http", "invalid_json", "why", 2000, b"%d" % number)


def attempt(destination: str, after_row: int, last_row: int) -> Attempt:
    return Attempt(destination, f"batch-{last_row}", after_row, last_row, last_row - after_row, "00" * 32, 5)


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the file itself, as after a crash."""
    db = sqlite3.connect(folder / "log.db", isolation_level=None)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def seqs(folder: Path) -> list[int]:
    return [seq for (seq,) in query(folder, "SELECT seq FROM device_telemetry_history ORDER BY id")]


def positions(folder: Path) -> dict[str, int]:
    return dict(query(folder, "SELECT name, position FROM cursors"))


class Listener:
    """An owner that notes what it hears, and how many rows were on disk then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.committed_at: list[tuple[int, int]] = []
        self.errors: list[StoreFailed] = []

    def committed(self, count: int) -> None:
        self.committed_at.append((count, len(seqs(self._folder))))

    def failed(self, error: StoreFailed) -> None:
        self.errors.append(error)

    @property
    def acknowledged(self) -> int:
        return sum(count for count, _ in self.committed_at)


class Commits:
    """Every transaction of readings, and a gate that holds the thread before the next one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def let_one_pass(self) -> None:
        """Let the one that is held go on, and hold the one after it."""
        held, self.gate = self.gate, threading.Event()
        held.set()
