"""Making room must not cost more than the rows that leave."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import migrate
from gateway.storage.reclaim import Reclaim

ROWS = 20_000
STEP = 100
NOW_MS = 1_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A log of many readings, a millisecond apart."""
    path = tmp_path / "log.db"
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, LOG_MIGRATIONS, path)
    db.execute("INSERT INTO gateway_boots (id, started_at_ms, epoch_ms) VALUES (1, 0, 0)")
    db.execute("INSERT INTO streams VALUES (1, 'o', 'd', 'b')")
    db.execute("BEGIN")
    db.executemany(
        """INSERT INTO device_telemetry_history (stream, seq, time_ms, time_source, received_at_ms, gateway_boot,
        monotonic_ms, payload) VALUES (1, ?, 0, 0, 0, 1, ?, '{}')""",
        [(row, row) for row in range(1, ROWS + 1)],
    )
    db.execute("COMMIT")
    yield db
    db.close()


def retention(before_ms: int) -> Reclaim:
    return Reclaim({}, STEP, may_lose=False, now_ms=NOW_MS, received_before_ms=before_ms)


def steps_of(db: sqlite3.Connection, reclaim: Reclaim) -> int:
    """Return about how many hundred instructions SQLite needed."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(count, 100)
    reclaim.write(db)
    db.set_progress_handler(None, 0)
    return steps


def test_while_nothing_is_old_enough_retention_does_not_read_the_whole_log(db: sqlite3.Connection) -> None:
    step = retention(before_ms=0)
    assert steps_of(db, step) < ROWS / 100
    assert step.deleted == 0


def test_what_is_old_enough_leaves_step_by_step(db: sqlite3.Connection) -> None:
    deleted = []
    for _ in range(4):
        step = retention(before_ms=251)
        step.write(db)
        deleted.append(step.deleted)
    assert deleted == [100, 100, 50, 0]
    assert db.execute("SELECT min(id) FROM device_telemetry_history").fetchone() == (251,)


def test_how_the_file_is_used_is_what_sqlite_says(db: sqlite3.Connection) -> None:
    step = retention(before_ms=0)
    step.write(db)
    assert step.pages is not None
    (count,) = db.execute("PRAGMA page_count").fetchone()
    assert (step.pages.page_bytes, step.pages.count, step.pages.free) == (4096, count, 0)
