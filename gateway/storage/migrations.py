"""Schema versions in `PRAGMA user_version`: a database moves forward step by step, and never back.

A migration is a list of statements. Its place in the tuple is the version it leads from, so a release only ever
appends; what has been released is never edited.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.model.errors import SchemaTooNew
from gateway.storage.repair.damage import DamagedError, store_failed

Migration = Sequence[str]


def migrate(db: sqlite3.Connection, migrations: Sequence[Migration], path: Path) -> None:
    """Bring `db` to the newest schema; each step is one transaction.

    Raises SchemaTooNew when a newer release wrote the database, DamagedError when it has lost its version or tables,
    StoreFailed when a step cannot be carried out.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SchemaTooNew(
            f"{path} has schema {version}; this release knows up to {len(migrations)}.",
            hint="Install the newer release again, or restore a backup made by this one.",
        )
    if version == 0 and _tables(db):
        raise DamagedError("it has tables, but no version of their schema")
    for step in range(version, len(migrations)):
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement in migrations[step]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {step + 1}")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise store_failed(path, f"{path} could not be brought to schema {step + 1}", error) from error
    sound = sqlite3.connect(":memory:")
    for statement in (statement for migration in migrations for statement in migration):
        sound.execute(statement)
    missing = _tables(sound) - _tables(db)
    sound.close()
    if missing:
        raise DamagedError(f"tables are missing: {', '.join(sorted(missing))}")


def migrate_file(path: Path, migrations: Sequence[Migration]) -> None:
    """Bring a database to the newest schema before it is only read; for whoever has the data directory's lock.

    Raises SchemaTooNew or StoreFailed.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
            migrate(db, migrations, path)
    except (DamagedError, sqlite3.Error) as error:
        raise store_failed(path, f"{path} cannot be read", error) from error


def _tables(db: sqlite3.Connection) -> set[str]:
    return {str(name) for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
