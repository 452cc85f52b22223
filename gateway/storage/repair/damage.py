"""Telling damage from other trouble, and setting a damaged database aside.

A damaged `x.db` becomes `x.db.corrupt-<utc>`, its write-ahead log with it. The replacement is finished beside it
first, as `x.db.new`: while that file exists the exchange has been decided, and whatever interrupts it, the next start
completes it. So there is never an old write-ahead log next to a new database, which SQLite would apply to it.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.model.errors import StoreFailed
from gateway.storage.disk import sync_folder
from gateway.storage.repair.sqlite_file import MAGIC
from gateway.storage.repair.wal_file import read_wal

_HEADER_BYTES = 100
_WAL_HEADER_BYTES = 32
_UNREADABLE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)


class DamagedError(Exception):
    """A database is not what it should be; the words say how."""


def is_damage(error: BaseException | None) -> bool:
    """Whether an error says that the database itself is broken, rather than busy, full or forbidden."""
    if isinstance(error, DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, sqlite3.DatabaseError) or not isinstance(code, int):
        return False
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code in _UNREADABLE


def store_failed(path: Path, what: str, error: Exception) -> StoreFailed:
    """Return the error that says what failed and what to do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreFailed(
            f"{what}: another program holds {path} locked.",
            hint=f"End it: 'fuser {path}' names it; a shell or a backup of the database is often the one.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreFailed(f"{what}: {error}.", hint=f"Give {path.parent} and what is in it to the gateway's user.")
    if is_damage(error):
        return StoreFailed(
            f"{what}: {path} is damaged ({error}).", hint="Start the gateway: it repairs what can be repaired."
        )
    return StoreFailed(f"{what}: {error}.", hint=f"Look at the disk that holds {path}.")


def inspect(path: Path, newest_schema: int) -> None:
    """Look for damage that SQLite would take for an empty or shorter database. Raises DamagedError.

    A newer schema is none: whoever opens the database refuses it. It must be called while nothing in this process has
    the database open: closing a file drops SQLite's locks on it.
    """
    wal = beside(path, "-wal")
    wal_bytes = wal.stat().st_size if wal.exists() else 0
    if not path.exists():
        if wal_bytes > _WAL_HEADER_BYTES:
            raise DamagedError("the database is gone, and only its write-ahead log is left")
        return
    size = path.stat().st_size
    if not size:
        raise DamagedError("the file is empty")
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(MAGIC):
        raise DamagedError("its header is not that of a database")
    if int.from_bytes(header[60:64], "big") > newest_schema:
        return
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65_536 if page_size == 1 else page_size
    if not wal_bytes and page_size * int.from_bytes(header[28:32], "big") > size and header[24:28] == header[92:96]:
        raise DamagedError("the end of the file is missing")
    if wal_bytes and read_wal(wal, page_size).hidden:
        raise DamagedError("its write-ahead log is damaged, with commits behind the damage")


def beside(path: Path, suffix: str) -> Path:
    """Return the file whose name is the database's with something after it."""
    return path.with_name(path.name + suffix)


def corrupt_name(path: Path, now_ms: int) -> Path:
    """Return a free name to set the database aside under."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = beside(path, f".corrupt-{at}")
    number = 1
    while name.exists():
        number += 1
        name = beside(path, f".corrupt-{at}-{number}")
    return name


def set_aside(path: Path, corrupt: Path) -> None:
    """Rename the database and its write-ahead log; it may have been interrupted half-way."""
    for suffix in ("-wal", ""):
        source = beside(path, suffix)
        if source.exists():
            source.replace(beside(corrupt, suffix))
    beside(path, "-shm").unlink(missing_ok=True)


def begin_whole(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` build a database, and give it its name when it is on disk: an empty file is damage, no beginning.

    Raises OSError or sqlite3.Error, and what `make` raises.
    """
    building = beside(path, ".building")
    remove_database(building)
    make(building)
    with closing(sqlite3.connect(building, isolation_level=None, timeout=0)) as db:  # nobody else knows it
        write_back(db)
    put_in_place(building, path)


def write_back(db: sqlite3.Connection) -> None:
    """Bring what is in the write-ahead log into the database itself: closing it would not say if it could not.

    Raises sqlite3.Error.
    """
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the write-ahead log is in use")


def put_in_place(new: Path, path: Path) -> None:
    """Let a finished database take the name, for good."""
    new.replace(path)
    sync_folder(path.parent)


def remove_database(path: Path) -> None:
    """Delete a database with everything that SQLite keeps beside it."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        beside(path, suffix).unlink(missing_ok=True)
