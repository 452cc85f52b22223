"""`PRAGMA quick_check` on a connection of its own, in a thread: the gateway works on meanwhile."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.storage.repair.damage import is_damage


async def quick_check(path: Path, interrupt: asyncio.Event) -> str:
    """Return what is wrong with a database, or nothing; also nothing when `interrupt` is set before it is known.

    Raises sqlite3.Error when it cannot be checked.
    """
    with closing(_connect(path)) as db:
        checking = asyncio.ensure_future(asyncio.to_thread(quick_check_now, db))
        stopping = asyncio.ensure_future(interrupt.wait())
        try:
            await asyncio.wait((checking, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            while not checking.done():
                db.interrupt()
                await asyncio.wait((checking,), timeout=0.1)
        error = checking.exception()
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return ""
        return checking.result()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, check_same_thread=False)


def quick_check_now(db: sqlite3.Connection) -> str:
    """Return the first thing that is wrong, or nothing. Raises sqlite3.Error when it cannot be checked."""
    try:
        ((found,),) = db.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return "" if found == "ok" else " ".join(str(found).split())
