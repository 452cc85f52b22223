"""A database moves forward step by step, each whole or not at all, and never back."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import SchemaTooNew, StoreFailed
from gateway.storage.log import Log
from gateway.storage.migrations import migrate, migrate_file
from gateway.storage.state import State
from tests.storage.repair.damaged import corrupt_files

FIRST = ("CREATE TABLE one (x)", "CREATE TABLE two (x)")
SECOND = ("ALTER TABLE one ADD COLUMN y",)
PATH = Path("test.db")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    yield db
    db.close()


def version(db: sqlite3.Connection) -> int:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    assert isinstance(found, int)
    return found


def tables(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM sqlite_schema ORDER BY name")]


def test_an_empty_database_goes_through_every_step(db: sqlite3.Connection) -> None:
    migrate(db, (FIRST, SECOND), PATH)
    assert (version(db), tables(db)) == (2, ["one", "two"])


def test_a_file_is_brought_forward_before_it_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "older.db"
    migrate_file(path, (FIRST,))
    migrate_file(path, (FIRST, SECOND))
    with closing(sqlite3.connect(path)) as db:
        assert version(db) == 2
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreFailed, match="is damaged"):
        migrate_file(path, (FIRST, SECOND))


def test_only_the_steps_that_are_missing_are_carried_out(db: sqlite3.Connection) -> None:
    migrate(db, (FIRST,), PATH)
    db.execute("INSERT INTO one VALUES (7)")
    migrate(db, (FIRST, SECOND), PATH)
    migrate(db, (FIRST, SECOND), PATH)
    assert list(db.execute("SELECT x, y FROM one")) == [(7, None)]


def test_a_step_that_fails_leaves_the_one_before_it_whole_and_can_be_repeated(db: sqlite3.Connection) -> None:
    broken = ("CREATE TABLE three (x)", "ALTER TABLE nothing ADD COLUMN y")
    with pytest.raises(StoreFailed, match=r"test\.db .*schema 2.*nothing"):
        migrate(db, (FIRST, broken), PATH)
    assert (version(db), tables(db), db.in_transaction) == (1, ["one", "two"], False)
    migrate(db, (FIRST, SECOND), PATH)
    assert version(db) == 2


def test_a_database_of_a_newer_release_is_left_alone(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA user_version = 3")
    with pytest.raises(SchemaTooNew, match=r"schema 3; this release knows up to 2") as raised:
        migrate(db, (FIRST, SECOND), PATH)
    assert raised.value.hint
    assert (version(db), tables(db)) == (3, [])


def newer(path: Path) -> bytes:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    return path.read_bytes()


async def test_neither_log_nor_state_of_a_newer_release_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    newer(path)
    with pytest.raises(SchemaTooNew, match=r"new\.db"):
        async with Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics()):
            pass
    with pytest.raises(SchemaTooNew, match=r"new\.db"):
        async with State.open(path, bytes(32), clock=ManualClock()):
            pass
    with sqlite3.connect(path) as db:
        assert (version(db), tables(db)) == (99, [])
    db.close()


@pytest.mark.parametrize("content", [b"this is no database, only some text" * 200])
async def test_what_is_no_database_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match=r"text\.db"):  # a command repairs nothing
        async with State.open(path, bytes(32), clock=ManualClock()):
            pass
    assert path.read_bytes() == content
    async with Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None):
        pass
    (aside,) = corrupt_files(tmp_path)
    assert aside.read_bytes() == content
