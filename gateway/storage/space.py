"""How much room the store may take, and how much is left.

Both databases with their write-ahead logs and copies, what was set aside as damaged, and the ballast stay below
`max_bytes`; the disk keeps `min_free_bytes`. Both are exceeded by one commit at most (more only where others take half
of what is left within a second), and by the few megabytes that a salvage writes for readers that wait for it
(salvage.py). Two things come on top of `max_bytes`, so that no reading is given up because of them: the file that a
salvage still reads, whose readings are not in the log yet, and the copy of a backup, which leaves with it.
SQLite's file does not shrink when rows leave: freed pages are used again, so what counts is the pages in use. Pure
arithmetic over what it is told, but for the two looks at the file system.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.config import StorageSettings
from gateway.storage.repair.damage import remove_database

_BESIDE_LOG = ("log.db.", "state.db", ".state.db-")
_OURS = ("log.db", *_BESIDE_LOG)

_BALLAST = "ballast"

WAL_PAGES = 4_000
"""Pages after which the write-ahead log is copied back: fewer checkpoints, each of which syncs twice."""
WAL_BYTES = 20_000_000
"""What the write-ahead log takes: those pages, and a transaction beyond."""
BALLAST_BYTES = 20_000_000
"""As much as the write-ahead log: with it, a disk that others have filled can still be left."""
LOW_WATER_BYTES = 4_000_000
HIGH_WATER_BYTES = 8_000_000
"""Room is made when less than the low mark is left, until the high mark is."""


@dataclass(slots=True, frozen=True)
class Pages:
    """How the log's file is used."""

    page_bytes: int
    count: int
    free: int

    @property
    def live_bytes(self) -> int:
        """What rows and indexes take."""
        return (self.count - self.free) * self.page_bytes

    @property
    def free_bytes(self) -> int:
        """What the next rows can take without the file growing."""
        return self.free * self.page_bytes


class Space:
    """The room of one store."""

    def __init__(self, settings: StorageSettings, folder: Path, being_read: Callable[[], set[str]]) -> None:
        self._settings = settings
        self._folder = folder
        self._being_read = being_read
        self._ballast = folder / _BALLAST

    def room_bytes(self, pages: Pages) -> int:
        """Return how much more may be stored: by our own limit, and by the disk's."""
        files = self._files()
        wal = files.get("log.db-wal", 0)  # may be larger than WAL_BYTES while somebody reads for long
        budget = self._settings.max_bytes - max(WAL_BYTES, wal) - BALLAST_BYTES - self._beside_log(files)
        owed = pages.count * pages.page_bytes - files.get("log.db", 0)  # what is only in the write-ahead log
        owed += WAL_BYTES - min(WAL_BYTES, wal)
        growth = self.disk_free_bytes() - self._settings.min_free_bytes - owed
        return min(budget - pages.live_bytes, max(0, growth) + pages.free_bytes)

    def _files(self) -> dict[str, int]:
        """Return the sizes of the store's files, by name: one look at the folder, as commits wait for it."""
        sizes = {}
        with os.scandir(self._folder) as files:
            for file in files:
                if file.name.startswith(_OURS):
                    with contextlib.suppress(FileNotFoundError):  # it has gone since
                        sizes[file.name] = file.stat().st_size
        return sizes

    def _beside_log(self, files: dict[str, int]) -> int:
        """Return what all other files of the store take."""
        spared = self._being_read()
        return sum(
            size
            for name, size in files.items()
            if name.startswith(_BESIDE_LOG) and name.removesuffix("-wal") not in spared
        )

    def drop_wrecks(self, salvaged: set[str]) -> bool:
        """Remove those of the damaged logs that have these names; False when there were none."""
        wrecks = [file for file in self._folder.glob("log.db.corrupt-*") if file.name in salvaged]
        for file in wrecks:
            remove_database(file)
        return bool(wrecks)

    def disk_free_bytes(self) -> int:
        """Return what the disk has left for us."""
        return free_bytes(self._folder)

    def keep_ballast(self) -> None:
        """Lay the ballast in, if the disk has room for it beyond what must stay free."""
        wanted = self._settings.min_free_bytes + BALLAST_BYTES + HIGH_WATER_BYTES
        if _size(self._ballast) == BALLAST_BYTES or self.disk_free_bytes() < wanted:
            return
        with contextlib.suppress(OSError), self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)

    def drop_ballast(self) -> bool:
        """Give the disk back what was kept for this moment; False when nothing was."""
        return drop_ballast(self._folder)


def drop_ballast(folder: Path) -> bool:
    """Give the disk back what was kept in the folder for the moment when it is full; False when nothing was."""
    ballast = folder / _BALLAST
    if not ballast.exists():
        return False
    ballast.unlink()
    return True


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has not even room for a write-ahead log."""
    return folder.exists() and free_bytes(folder) < WAL_BYTES


def free_bytes(folder: Path) -> int:
    """Return what the disk of a folder has left for this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
