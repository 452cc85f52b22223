"""The vault: what is secret in `state.db` is AES-256-GCM encrypted, with keys that lie elsewhere (vault_keys.py).

Format of a value, version 1: a byte with the version, 8 bytes key id, 12 random bytes nonce, ciphertext and tag (16
bytes). Version, key id and the value's place (table, column and row) are authenticated with it: a value that was moved
to another row does not open.

- a key is made when the first value is put in; a lost one is never replaced behind its owner's back: the values that it
  has encrypted stay as they are, and open again when it is back
- a rotation encrypts everything anew in one transaction. The new key is on disk before it, and the old one goes only
  when neither the state nor its copy needs it: whatever interrupts it, every value opens with a key that is there
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiosqlite
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.model.errors import BadInput, NeurogateError
from gateway.model.secret import Secret
from gateway.storage.state import State
from gateway.storage.vault_keys import CREDENTIAL, Keyring, VaultKey, key_file, make_key, remove_keys

_VERSION = bytes((1,))
_ID = slice(1, 9)
_NONCE = slice(9, 21)
_CONTENT = slice(21, None)
_SHORTEST = 21 + 16


@dataclass(slots=True, frozen=True)
class SealedColumn:
    """A column of `state.db` whose blobs are the vault's, and the column that names its rows."""

    table: str
    column: str
    row: str

    def place(self, row: str) -> "Place":
        """Return where one of its values lies."""
        return Place(self.table, self.column, row)


@dataclass(slots=True, frozen=True)
class Place:
    """Where a value lies."""

    table: str
    column: str
    row: str

    @property
    def associated(self) -> bytes:
        """What is authenticated with it."""
        return json.dumps([self.table, self.column, self.row]).encode()


SECRETS = SealedColumn("secrets", "value", "name")
CALLBACKS = SealedColumn("mqtt_subscriptions", "callback_url", "id")
INTEGRATIONS = SealedColumn("device_integrations", "secrets", "id")
SEALED_COLUMNS = (SECRETS, CALLBACKS, INTEGRATIONS)
"""Every column that a rotation has to encrypt anew."""


class Unreadable(NeurogateError):
    """A value of the vault cannot be decrypted; it is still there."""

    code = "secret_unreadable"
    http_status = 503


@dataclass(slots=True, frozen=True)
class Rotated:
    """What a rotation has done."""

    values: int
    """So many are encrypted with the new key."""
    left: int
    """So many stayed as they were, since nobody can decrypt them."""


class Vault:
    """The vault of one state. Keys are read when they are needed, so one that comes back is there at once."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.folder

    async def seal(self, db: aiosqlite.Connection, place: Place, text: Secret) -> bytes:
        """Encrypt a value that is written in this transaction of the state. Raises ConfigError for an unusable key.

        Within the transaction, so that no rotation removes the key meanwhile.
        """
        ring = await self._ring()
        ring.require_usable()
        return seal(await self._key(db, ring), place, text)

    async def unseal(self, place: Place, value: bytes) -> Secret:
        """Decrypt a value. Raises Unreadable."""
        ring = await self._ring()
        if (key_id := key_id_of(value)) not in ring.keys:
            raise _key_is_lost(key_file(self._folder, key_id), ring)
        return unseal(ring.keys, place, value)

    async def notices(self) -> list[str]:
        """Say which keys are missing, and what is wrong with those that are there."""
        ring = await self._ring()
        needed: Counter[str] = Counter()
        for column in SEALED_COLUMNS:
            rows = await self._state.fetch(_VALUES.format(**_names(column)))
            needed.update(key_id_of(value) for _, value in rows)
        lost = {
            path: count
            for key_id, count in needed.items()
            if key_id not in ring.keys and (path := key_file(self._folder, key_id)) not in ring.unusable
        }
        return [
            *(str(error) for error in ring.unusable.values()),
            *(
                f"The vault's key {path} is not there: what it has encrypted ({count}) cannot be read until it is back."
                " It is in each backup."
                for path, count in lost.items()
            ),
        ]

    async def rotate(self) -> Rotated:
        """Encrypt everything with a new key. Raises ConfigError for an unusable one, BadInput when there is no new."""
        rotated, old = await self._state.change(self._encrypt_anew, takes_access=True)
        await self._state.empty_wal()  # of what the old key opens, nothing stays
        await asyncio.to_thread(remove_keys, self._folder, old)
        return rotated

    async def _encrypt_anew(self, db: aiosqlite.Connection) -> tuple[Rotated, list[VaultKey]]:
        """Encrypt everything with a new key; return also the keys that nothing needs any more."""
        ring = await self._ring()
        ring.require_usable()
        new = ring.credential
        if new is None:
            new = await asyncio.to_thread(make_key, self._folder)
        done, left = 0, Counter[str]()
        for column in SEALED_COLUMNS:
            for row, value in await db.execute_fetchall(_VALUES.format(**_names(column))):
                place, key_id = column.place(row), key_id_of(value)
                try:
                    text = unseal(ring.keys, place, value)
                except Unreadable:
                    left[key_id] += 1
                else:
                    done += 1
                    await db.execute(_UPDATE.format(**_names(column)), (seal(new, place, text), row))
        others = [key for key in ring.keys.values() if key.id != new.id]
        if ring.credential is not None and not others:
            raise _no_new_credential(key_file(self._folder, new.id))
        await _note(db, new)
        return Rotated(done, left.total()), [key for key in others if key.id not in left]

    async def _key(self, db: aiosqlite.Connection, ring: Keyring) -> VaultKey:
        """Return the key for new values; a first one is made, also when the one before is lost."""
        if ring.credential is not None:
            return ring.credential
        for (key_id,) in await db.execute_fetchall("SELECT key_id FROM vault"):
            if key_id in ring.keys:
                return ring.keys[key_id]
        new = await asyncio.to_thread(make_key, self._folder)
        await _note(db, new)
        return new

    async def _ring(self) -> Keyring:
        return await asyncio.to_thread(Keyring.read, self._folder)


_VALUES = "SELECT {row}, {column} FROM {table} WHERE typeof({column}) = 'blob' ORDER BY {row}"
_UPDATE = "UPDATE {table} SET {column} = ? WHERE {row} = ?"


def _names(column: SealedColumn) -> dict[str, str]:
    return {"table": column.table, "column": column.column, "row": column.row}


async def _note(db: aiosqlite.Connection, key: VaultKey) -> None:
    await db.execute(
        "INSERT INTO vault (id, key_id) VALUES (1, ?) ON CONFLICT DO UPDATE SET key_id = excluded.key_id", (key.id,)
    )


def seal(key: VaultKey, place: Place, text: Secret) -> bytes:
    """Return the encrypted value."""
    head = _VERSION + bytes.fromhex(key.id)
    nonce = os.urandom(12)
    content = text.get_secret_value().encode()
    return head + nonce + AESGCM(key.key).encrypt(nonce, content, head + place.associated)


def unseal(keys: Mapping[str, VaultKey], place: Place, value: bytes) -> Secret:
    """Return the text. Raises Unreadable."""
    if len(value) < _SHORTEST or value[:1] != _VERSION:
        raise Unreadable("It was written by a newer release, or is damaged.", hint="Set it again.")
    key = keys.get(key_id_of(value))
    if key is None:
        raise Unreadable("Its key is not there.", hint="Put the key back, or set it again.")
    try:
        content = AESGCM(key.key).decrypt(value[_NONCE], value[_CONTENT], value[:9] + place.associated)
    except InvalidTag:
        raise Unreadable("It is damaged, or was moved here from elsewhere.", hint="Set it again.") from None
    return Secret(content.decode())


def key_id_of(value: bytes) -> str:
    """Return the id of the key that a value needs."""
    return value[_ID].hex()


def _key_is_lost(path: Path, ring: Keyring) -> Unreadable:
    error = ring.unusable.get(path) or ring.unusable.get(None)  # which key an unusable credential is, nobody knows
    if error is not None:
        return Unreadable(f"Its key cannot be used: {error.message}", hint=error.hint)
    return Unreadable(f"Its key {path.name} is not there.", hint="Put the key back, or set it again.")


def _no_new_credential(path: Path) -> BadInput:
    return BadInput(
        "no_new_key",
        f"Everything is encrypted with the key of the credential {CREDENTIAL} already.",
        hint=f"Keep that key as {path} (chmod 600), give the service a new credential, restart it, and run this again.",
    )
