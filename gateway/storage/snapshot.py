"""Copies of both databases as they are at one moment each, while everything goes on.

- the log is copied by its writing thread, some pages between two commits: SQLite carries what is committed meanwhile
  into the copy, no read transaction keeps the write-ahead log from being reused, and no commit waits for long
- both copies are checked: a backup that could not be restored is told of now, and what it was made of is looked at
- the copy lies in the data directory, for its owner alone, only as long as whoever asked for it is there
- one at a time; what a killed process left is removed by the next, by an erasure, and when a gateway starts
"""

import asyncio
import fcntl
import os
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.model.errors import AlreadyExists, StoreFailed
from gateway.storage.data_dir import DataDir
from gateway.storage.log import Log
from gateway.storage.log_reader import STILL_SALVAGED, still_salvaged
from gateway.storage.repair.check import quick_check
from gateway.storage.space import HIGH_WATER_BYTES, free_bytes
from gateway.storage.state import State

_SHOW_EVERY_S = 0.3


@dataclass(slots=True, frozen=True)
class SnapshotStep:
    """How far the copy is; it is complete when `folder` is there."""

    pages: int
    total: int
    folder: str | None = None


async def snapshot(log: Log, state: State, folder: Path, min_free_bytes: int) -> AsyncGenerator[SnapshotStep, None]:
    """Copy both databases into a folder that goes when the generator is closed. Raises StoreFailed, AlreadyExists."""
    await log.require_whole()
    needed = log.size_bytes() + HIGH_WATER_BYTES
    if free_bytes(folder) - needed < min_free_bytes:
        raise StoreFailed(
            f"There is no room for a copy of the log in {folder} ({needed / 1e6:,.0f} MB).",
            hint="Free some disk space, or lower storage.min_free_bytes for the time.",
        )
    with _own_folder(DataDir(folder).snapshot) as own:
        copies = DataDir(own)
        copying = _Copying()
        made = asyncio.ensure_future(log.copy_to(copies.log_db, copying.progress))
        try:
            while not (await asyncio.wait([made], timeout=_SHOW_EVERY_S))[0]:
                yield SnapshotStep(copying.pages, copying.total)
            made.result()
        finally:
            copying.is_wanted = False
            await asyncio.wait([made])
            made.exception()  # known: raised above, or not wanted any more
        await state.copy_to(copies.state_db)
        stop = asyncio.Event()
        checking = asyncio.ensure_future(_check(copies, stop))
        try:
            while not (await asyncio.wait([checking], timeout=_SHOW_EVERY_S))[0]:
                yield SnapshotStep(copying.total, copying.total)
        finally:
            stop.set()
            await asyncio.wait([checking])
            checking.exception()  # known: raised below, or not wanted any more
        in_log, in_state = checking.result()
        if in_log:
            log.care.check()  # it may be the copy alone that is damaged
            raise _damaged(copies.log_db, in_log)
        if in_state:
            await state.copy()  # looks for damage, and repairs it
            raise _damaged(copies.state_db, in_state)
        await asyncio.to_thread(_require_whole, copies.log_db)  # the log may have been exchanged meanwhile
        yield SnapshotStep(copying.total, copying.total, str(own))


async def _check(copies: DataDir, stop: asyncio.Event) -> tuple[str | None, str | None]:
    """Return what is wrong with the log's copy and with the state's; a backup of it could not be restored."""
    try:
        return await quick_check(copies.log_db, stop), await quick_check(copies.state_db, stop)
    except sqlite3.Error as error:
        raise StoreFailed(f"The copy could not be checked: {error}.", hint="Run it again.") from error


def _damaged(copy: Path, found: str) -> StoreFailed:
    return StoreFailed(
        f"The copy of {copy.name} is damaged ({found}).",
        hint="The gateway looks at its own now, and repairs it: start it if none runs, and run this again in a while.",
    )


def _require_whole(log_copy: Path) -> None:
    with closing(sqlite3.connect(f"{log_copy.absolute().as_uri()}?mode=ro", uri=True)) as db:
        for (file,) in db.execute(STILL_SALVAGED):
            raise still_salvaged(file)


def remove_left_copy(data_dir: Path) -> bool:
    """Remove what a killed process has left of a copy; one that is in use stays. False when it cannot be removed."""
    path = DataDir(data_dir).snapshot
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return not path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(descriptor)


class _Copying:
    """What the writing thread says, and whether it shall go on."""

    def __init__(self) -> None:
        self.pages = 0
        self.total = 0
        self.is_wanted = True

    def progress(self, left: int, total: int) -> bool:
        self.pages, self.total = total - left, total
        return self.is_wanted


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in path.iterdir():
            left.unlink()
        yield path
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        raise AlreadyExists("A backup is being made already.", hint="Wait until it is done.") from None
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
