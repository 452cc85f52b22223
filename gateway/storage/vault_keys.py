"""The vault's keys: 32 random bytes each, outside the databases.

- a key is known by its id, which is made from it: a wrong key is never taken for the right one
- it is a file `vault-<id>.key` in the data directory, its owner's alone, or the systemd credential
  `neurogate-vault-key`, which is used before any file
- during a rotation, and after an interrupted one, there are two files; each value says which key it needs
- a file that others may read, or that is not the key of its name, is not used
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.model.errors import ConfigError
from gateway.storage.data_dir import KEY_BYTES, create_key, read_key
from gateway.storage.disk import sync_folder

CREDENTIAL = "neurogate-vault-key"
KEY_FILES = "vault-*.key"

_ID_BYTES = 8


@dataclass(slots=True, frozen=True)
class VaultKey:
    """One key."""

    id: str
    """16 hexadecimal digits."""
    key: bytes = field(repr=False)
    path: Path | None
    """Its file; None for the credential."""

    @classmethod
    def of(cls, key: bytes, path: Path | None) -> Self:
        """Return it with its id, which says nothing about the key itself."""
        return cls(hashlib.sha256(b"neurogate vault key id\0" + key).digest()[:_ID_BYTES].hex(), key, path)


@dataclass(slots=True)
class Keyring:
    """Every key that there is."""

    keys: dict[str, VaultKey] = field(default_factory=dict)
    """By id."""
    credential: VaultKey | None = None
    """The one of systemd, which is among them."""
    unusable: dict[Path | None, ConfigError] = field(default_factory=dict)
    """What is wrong with a key that is there and cannot be used, by its file; None for the credential."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read them again: a key may have come back."""
        ring = cls()
        for path in sorted(folder.glob(KEY_FILES)):
            try:
                key = _read(path)
                ring.keys[key.id] = key
            except ConfigError as error:
                ring.unusable[path] = error
        try:
            ring.credential = _credential()
        except ConfigError as error:
            ring.unusable[None] = error
        if ring.credential is not None:
            ring.keys[ring.credential.id] = ring.credential
        return ring

    def require_usable(self) -> None:
        """Raise ConfigError when there is a key that cannot be used: better mended than replaced."""
        for error in self.unusable.values():
            raise error


def key_file(folder: Path, key_id: str) -> Path:
    """Return where the key of this id is kept."""
    return folder / f"vault-{key_id}.key"


def make_key(folder: Path) -> VaultKey:
    """Return a new key, which is on disk."""
    key = secrets.token_bytes(KEY_BYTES)
    path = key_file(folder, VaultKey.of(key, None).id)
    create_key(path, key)
    return VaultKey.of(key, path)


def remove_keys(folder: Path, keys: list[VaultKey]) -> None:
    """Remove their files."""
    for key in keys:
        key_file(folder, key.id).unlink(missing_ok=True)  # of a credential, there may be one as well
    sync_folder(folder)


def copy_keys(source: Path, target: Path) -> None:
    """Write all keys into a folder, the credential too: what goes into a backup must be readable elsewhere."""
    for key in Keyring.read(source).keys.values():
        create_key(key_file(target, key.id), key.key)


def _read(path: Path) -> VaultKey:
    hint = "Put the right one back: it is in each backup."
    key = VaultKey.of(read_key(path, hint), path)
    if path != key_file(path.parent, key.id):
        raise ConfigError(f"{path} is another key than its name says.", hint=hint)
    return key


def _credential() -> VaultKey | None:
    """Return systemd's credential; who may read it is systemd's business. Raises ConfigError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder or "") / CREDENTIAL
    if not folder or not path.exists():
        return None
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The credential {path} cannot be read ({error.strerror}).") from None
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"The credential {CREDENTIAL} has {len(key)} bytes instead of {KEY_BYTES}.",
            hint=f"Make one with: head -c {KEY_BYTES} /dev/urandom",
        )
    return VaultKey.of(key, None)
