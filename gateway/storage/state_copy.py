"""The copy of `state.db`, and how the state comes back from it.

- a copy is complete, sound and on disk before it takes the place of the one before
- a damaged state is set aside as `state.db.corrupt-<utc>`; an interrupted restoration is completed at the next start
- without a usable copy the state begins empty: the gateway starts all the same, and says so
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.storage.disk import own, sync_folder
from gateway.storage.repair.check import quick_check_now
from gateway.storage.repair.damage import (
    DamagedError,
    begin_whole,
    beside,
    corrupt_name,
    inspect,
    put_in_place,
    set_aside,
)

Migrate = Callable[[Path], None]


def copy_of(path: Path) -> Path:
    """Return where the copy is."""
    return beside(path, ".copy")


def write_copy(path: Path) -> None:
    """Copy the state as it is now. Raises DamagedError, sqlite3.Error or OSError; then the old copy stays."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    os.close(descriptor)
    new = Path(name)
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        with closing(source), closing(sqlite3.connect(new, isolation_level=None)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file
            if found := quick_check_now(target):
                raise DamagedError(found)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        put_in_place(new, copy_of(path))
    finally:
        new.unlink(missing_ok=True)


def check_state(path: Path, newest_schema: int, migrate: Migrate) -> None:
    """Bring the state to this release's schema. Raises DamagedError, sqlite3.Error, SchemaTooNew or StoreFailed."""
    if not path.exists() and copy_of(path).exists():
        raise DamagedError("the file is gone")
    inspect(path, newest_schema)
    if path.exists():
        migrate(path)
    else:
        begin_whole(path, migrate)
    with closing(sqlite3.connect(path, timeout=10)) as db:
        if found := quick_check_now(db):
            raise DamagedError(found)


def restore(path: Path, now_ms: int, newest_schema: int, migrate: Migrate) -> str:
    """Set the state aside and bring it back from its copy; return what was done, for a person.

    Nothing may have it open. Raises OSError when the disk does not let it.
    """
    corrupt = corrupt_name(path, now_ms)
    new = beside(path, ".new")
    copy = copy_of(path)
    new.unlink(missing_ok=True)
    told = "there is no copy of it, so it begins empty: every device has to be registered again."
    if copy.exists():
        building = beside(path, ".building")
        own(building)
        shutil.copyfile(copy, building)
        try:
            check_state(building, newest_schema, migrate)
        except (DamagedError, sqlite3.DatabaseError) as error:
            building.unlink()
            told = f"its copy is damaged, too ({error}), so it begins empty: every device has to be registered again."
        else:
            told = "it came back from its copy; what changed within the last hour may be missing."
            with building.open("rb") as file:
                os.fsync(file.fileno())
            building.replace(new)
    if not new.exists():
        begin_whole(new, migrate)
    sync_folder(path.parent)
    set_aside(path, corrupt)
    put_in_place(new, path)
    return f"{path.name} was set aside as {corrupt.name}; {told}"


def complete_restoration(path: Path, now_ms: int) -> None:
    """Complete a restoration that was interrupted after its decision."""
    new = beside(path, ".new")
    if new.exists():
        set_aside(path, corrupt_name(path, now_ms))
        put_in_place(new, path)
