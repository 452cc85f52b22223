"""The folder that holds everything a gateway keeps, and the lock that makes it one gateway's.

- the folder is created for its owner alone (0700); an existing one is left as it is
- root does not write into somebody else's: its files there would stop the owner's gateway for good
- the lock is the kernel's (flock): it ends with the process, however that ends; the file stays
- a key is either complete or absent, also after a power cut
"""

import asyncio
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self

from gateway.model.errors import ConfigError, DataDirLocked
from gateway.storage.disk import sync_folder

KEY_BYTES = 32

_LOCK_RETRY_S = 0.05

_OWNER_ONLY = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class DataDir:
    """Paths inside one data directory. Whoever writes there holds `lock`: a gateway, or a command while none runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log_db(self) -> Path:
        """The readings."""
        return self.path / "log.db"

    @property
    def state_db(self) -> Path:
        """Devices and credentials."""
        return self.path / "state.db"

    @property
    def password_key(self) -> Path:
        """The key that device passwords are hashed with; see `load_or_create_key`."""
        return self.path / "password.key"

    @property
    def site_ca(self) -> Path:
        """The site's certificate authorities, with their keys; see `SiteCertificates`."""
        return self.path / "site-ca.key"

    @property
    def server_certificate(self) -> Path:
        """The key and certificate that the listeners show."""
        return self.path / "server.key"

    @property
    def snapshot(self) -> Path:
        """Copies of both databases, while a backup reads them; see `snapshot`."""
        return self.path / "snapshot"

    @property
    def lock_file(self) -> Path:
        """Holds the lock, and the pid of who has it."""
        return self.path / "lock"

    @property
    def running(self) -> Path:
        """Is there while a gateway runs; see `RunMarker`."""
        return self.path / "running"

    @property
    def control_socket(self) -> Path:
        """Where a running gateway is spoken to; bind and connect through `short_control_socket`."""
        return self.path / "control.sock"

    @contextmanager
    def short_control_socket(self) -> Iterator[str]:
        """Yield a path of the control socket that fits into a socket address (108 bytes), however deep the folder is.

        It holds while the context does. Raises OSError, for example when there is no such folder.
        """
        folder = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{self.control_socket.name}"
        finally:
            os.close(folder)

    @property
    def holder(self) -> str:
        """The pid of whoever holds the lock, `unknown` if the file does not say."""
        try:
            return self.lock_file.read_text("ascii").strip() or "unknown"
        except (OSError, ValueError):
            return "unknown"

    @property
    def owner(self) -> str:
        """The name of the user whose folder it is, `USER` if nobody can tell: for hints."""
        try:
            return self.path.owner()
        except (OSError, KeyError):
            return "USER"

    def ensure(self) -> Self:
        """Create the folder where it is missing. Raises ConfigError: impossible, or we are root and not its owner."""
        try:
            self.path.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The data directory {self.path} cannot be created ({error.strerror}).",
                hint="Create it for the gateway's user, or set gateway.data_dir.",
            ) from error
        self._refuse_root()
        return self

    def _refuse_root(self) -> None:
        if os.geteuid() == 0 and self.path.stat().st_uid != 0:
            raise ConfigError(
                f"{self.path} is the user {self.owner}'s: a gateway of theirs could not use what root writes there.",
                hint=f"Run it as that user: sudo -u {self.owner} neurogate …",
            )

    @asynccontextmanager
    async def lock_within(self, patience_s: float) -> AsyncIterator[Self]:
        """As `lock`, but wait up to `patience_s` for a command that holds it for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self.lock())
                    break
                except DataDirLocked:
                    if loop.time() >= deadline:
                        raise
                await asyncio.sleep(_LOCK_RETRY_S)  # the kernel's lock cannot be awaited
            yield self

    @contextmanager
    def lock(self) -> Iterator[Self]:
        """Keep every other gateway out for the time of the context. Raises DataDirLocked, ConfigError."""
        self.ensure()
        file = self._open_lock_file()
        try:
            self._take(file)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            yield self
            os.ftruncate(file, 0)
        finally:
            os.close(file)

    def _open_lock_file(self) -> int:
        try:
            return os.open(self.lock_file, os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
        except OSError as error:
            raise ConfigError(
                f"The data directory {self.path} cannot be used ({error.strerror}).",
                hint="Give it to the gateway's user (chown), or set gateway.data_dir.",
            ) from error

    def _take(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirLocked(
                f"Another gateway (pid {self.holder}) uses {self.path}.",
                hint="Stop it, or give this one its own folder with gateway.data_dir.",
            ) from None


def load_or_create_key(path: Path) -> bytes:
    """Return the 32 bytes of the key, made on first need.

    Raises ConfigError for a file that others may read or that is no key.
    """
    if not path.exists():
        create_key(path, secrets.token_bytes(KEY_BYTES))
    return read_key(path, "Restore it from a backup; with a new key every device needs a new password.")


def read_key(path: Path, hint: str) -> bytes:
    """Return the 32 bytes of a key. Raises ConfigError for a file that others may read or that is no key: `hint`."""
    try:
        key = read_private(path, KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}).", hint="Give it to the gateway's user (chown)."
        ) from None
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes instead of {KEY_BYTES}.", hint=hint)
    return key


def read_private(path: Path, most_bytes: int) -> bytes:
    """Return what is in a file of keys. Raises ConfigError when others may read it, and OSError."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(most_bytes)
    if mode & _OTHERS:
        raise ConfigError(f"Others may read {path} (mode {mode:04o}).", hint=f"Run: chmod 600 {path}")
    return content


def create_key(path: Path, key: bytes) -> None:
    """Write beside it, then link: the name appears with all bytes on disk, and whoever was first wins."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # O_EXCL, 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
        sync_folder(path.parent)
    finally:
        Path(name).unlink()
