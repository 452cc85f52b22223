"""What the store asks of the file system beyond SQLite: names that stay, and files that nobody else may read."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_OWNER_ONLY = 0o600
_OTHERS = 0o077


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own(path: Path) -> None:
    """Make a file its owner's alone; one that is not there is made, empty. Raises OSError.

    SQLite gives what it keeps beside a database the mode of the database.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))
    except FileExistsError:
        own_existing(path)


def own_existing(path: Path) -> None:
    """As `own`, for a file that may be gone by now, or another user's: then it stays as it is."""
    with suppress(FileNotFoundError, PermissionError):
        if path.stat().st_mode & _OTHERS:
            path.chmod(_OWNER_ONLY)  # not by a descriptor: closing it would drop the locks that SQLite has on the file


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file, its owner's alone, that takes the name when it is complete and on disk. Raises OSError.

    At any moment there is the one before or the new one, whole.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    """Put a file in the place of the one before, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)
