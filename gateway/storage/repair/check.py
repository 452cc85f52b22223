"""`PRAGMA quick_check` on a connection of its own, in a thread: the gateway works on meanwhile.

The check is one long read: as long as it lasts the write-ahead log only grows. Table by table it would be no shorter,
as one table holds nearly everything. So whoever asks for it says whether it may go on, and asks again later.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.storage.repair.damage import is_damage

_LOOK_S = 0.1


async def quick_check(path: Path, interrupt: asyncio.Event, may_go_on: Callable[[], bool] = lambda: True) -> str | None:
    """Return what is wrong with a database, "" when nothing is, None when that was not to be found out any more.

    Raises sqlite3.Error when it cannot be checked.
    """
    with closing(_connect(path)) as db:
        checking = asyncio.ensure_future(asyncio.to_thread(quick_check_now, db))
        interrupted = asyncio.ensure_future(interrupt.wait())
        try:
            while not (checking.done() or interrupted.done()) and may_go_on():
                await asyncio.wait((checking, interrupted), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
            while not checking.done():
                db.interrupt()
                await asyncio.wait((checking,), timeout=_LOOK_S)
        error = checking.exception()
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
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
