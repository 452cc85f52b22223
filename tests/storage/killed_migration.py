"""Brings a released database forward and dies at the n-th statement, for every n until it has come through.

    python -m tests.storage.killed_migration RELEASE log|state FOLDER

leaves `FOLDER/1.db`, `FOLDER/2.db` and so on, each as the death left it; the last one was brought forward whole.
"""

import os
import shutil
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path

from gateway.storage.log_schema import LOG_MIGRATIONS
from gateway.storage.migrations import Migration, migrate
from gateway.storage.state_schema import STATE_MIGRATIONS
from tests.storage.released import bring_back

_TO_COME: Migration = (
    "CREATE TABLE to_come (x)",
    "INSERT INTO to_come VALUES (1)",
    "CREATE INDEX to_come_x ON to_come (x)",
)
"""A step of a later release, so that there is always one to die in."""

STEPS: dict[str, tuple[Migration, ...]] = {
    "log": (*LOG_MIGRATIONS, _TO_COME),
    "state": (*STATE_MIGRATIONS, _TO_COME),
}


def main() -> None:
    """Do it."""
    release, database, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    whole = folder / "released.db"
    bring_back(release, database, whole)
    for number in count(1):
        path = folder / f"{number}.db"
        shutil.copyfile(whole, path)
        child = os.fork()
        if not child:
            _migrate_and_die(path, STEPS[database], number)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        if status != signal.SIGKILL:
            sys.exit(f"a migration failed (status {status})")


def _migrate_and_die(path: Path, steps: tuple[Migration, ...], at: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = full")
    begun = 0

    def begins(_: str) -> None:
        nonlocal begun
        begun += 1
        if begun == at:
            os.kill(os.getpid(), signal.SIGKILL)

    db.set_trace_callback(begins)
    try:
        migrate(db, steps, path)
        os._exit(0)  # it ends where it is, without closing the database
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
