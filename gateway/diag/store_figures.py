"""How large the store is: files with their modes, schema versions, and how many rows each table has. No row is read."""

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

_PATIENCE_S = 0.5  # of one table: a read transaction keeps the write-ahead log of a running gateway from being reused
_STEPS = 10_000


def store_figures(data_dir: Path) -> dict[str, Any]:
    """Return what is known; of what cannot be read, why."""
    files = [
        {"name": file.name, "bytes": about.st_size, "mode": f"{stat.S_IMODE(about.st_mode):04o}", "uid": about.st_uid}
        for file in sorted(data_dir.glob("*"))
        if stat.S_ISREG((about := file.lstat()).st_mode)
    ]
    databases = {name: _database(data_dir / name) for name in ("log.db", "state.db") if (data_dir / name).exists()}
    return {"files": files, "databases": databases}


def _database(path: Path) -> dict[str, Any]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            names = [
                name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            ]
            return {"schema": version, "rows": {name: _rows(db, name) for name in names}}
    except sqlite3.Error as error:
        return {"problem": f"{type(error).__name__}: {error}"}


def _rows(db: sqlite3.Connection, table: str) -> int | str:
    until = time.monotonic() + _PATIENCE_S
    db.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        (count,) = db.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # noqa: S608 - from the schema itself
        return int(count)
    except sqlite3.OperationalError as error:
        return "too many to count" if "interrupted" in str(error) else str(error)
    finally:
        db.set_progress_handler(None, 0)
