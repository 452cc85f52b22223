"""`state.db`: the devices and their credentials.

Small and rarely written, through one aiosqlite connection; every change is on disk when its method returns.
Whoever holds the data directory's lock is the only one who writes it.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiosqlite

from gateway.clock import Clock
from gateway.model.errors import AlreadyExists, BadInput, NotFound, StoreFailed
from gateway.model.text import is_clean_text
from gateway.model.topics import telemetry_topics
from gateway.storage.migrations import migrate
from gateway.storage.passwords import generate_password, hash_password
from gateway.storage.state_schema import STATE_MIGRATIONS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")


@dataclass(slots=True, frozen=True)
class DeviceRow:
    """A registered device."""

    organization_id: str
    device_id: str
    metadata: dict[str, str]
    status: str
    """`active`, or `revoked`: its credential is gone, its readings stay."""
    created_at_ms: int


@dataclass(slots=True, frozen=True)
class CredentialRow:
    """Who may log in; the password itself is known to the device alone."""

    username: str
    organization_id: str
    device_id: str | None
    password_hash: bytes


@dataclass(slots=True, frozen=True)
class DeviceCredential:
    """A new device's way in; the only time its password is seen."""

    organization_id: str
    device_id: str
    username: str
    password: str = field(repr=False)

    @property
    def topics(self) -> list[str]:
        """Where the device publishes its readings, the usual one first."""
        return list(telemetry_topics(self.organization_id, self.device_id))


class State:
    """See the module's own words. Made by `State.open`."""

    def __init__(self, db: aiosqlite.Connection, password_key: bytes, clock: Clock) -> None:
        self._db = db
        self._password_key = password_key
        self._clock = clock
        self._writing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, password_key: bytes, *, clock: Clock) -> AsyncIterator[Self]:
        """Open or create the state. Raises SchemaTooNew or StoreFailed."""
        await asyncio.to_thread(_migrate, path)
        async with aiosqlite.connect(path, isolation_level=None, timeout=10) as db:
            await db.execute("PRAGMA synchronous = full")
            await db.execute("PRAGMA foreign_keys = on")
            yield cls(db, password_key, clock)

    async def add_device(
        self, organization_id: str, device_id: str, metadata: Mapping[str, str] | None = None
    ) -> DeviceCredential:
        """Register a device (or a revoked one again) and make its credential.

        Raises BadInput for an unusable id, AlreadyExists while the device has a credential.
        """
        for what, name in (("device", device_id), ("organization", organization_id)):
            if not _NAME.fullmatch(name):
                raise BadInput(
                    f"invalid_{what}_id",
                    f"{name!r} cannot be a {what} id: it becomes part of MQTT topics.",
                    hint="Use letters, digits, '_', '.', ':' and '-', at most 100.",
                )
        pairs = dict(metadata or {})
        if not all(map(is_clean_text, (*pairs, *pairs.values()))):
            raise BadInput(
                "invalid_metadata", "The metadata is not text.", hint="Use UTF-8 without control characters."
            )
        credential = _new_credential(organization_id, device_id)
        now = self._clock.now_ms()
        try:
            async with self._transaction() as db:
                await db.execute(
                    """INSERT INTO devices (organization_id, id, metadata, created_at) VALUES (?, ?, ?, ?)
                    ON CONFLICT DO UPDATE SET status = 'active', metadata = excluded.metadata
                    WHERE status = 'revoked'""",
                    (organization_id, device_id, json.dumps(pairs, ensure_ascii=False), now),
                )
                await db.execute(
                    """INSERT INTO mqtt_credentials
                        (username, organization_id, device_id, password_hash, topic_prefix, created_at)
                        VALUES (?, ?, ?, ?, ?, ?)""",
                    (
                        credential.username,
                        organization_id,
                        device_id,
                        hash_password(self._password_key, credential.password),
                        f"org_{organization_id}/devices/{device_id}/#",
                        now,
                    ),
                )
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(
                f"Device {device_id} of {organization_id} is registered already.",
                hint=f"To give it a new password: neurogate device rotate {device_id}",
            ) from error
        return credential

    async def rotate_device(self, organization_id: str, device_id: str) -> DeviceCredential:
        """Give an active device a new password; the old one is worth nothing any more. Raises NotFound."""
        credential = _new_credential(organization_id, device_id)
        async with self._transaction() as db:
            changed = await db.execute(
                "UPDATE mqtt_credentials SET password_hash = ? WHERE organization_id = ? AND device_id = ?",
                (hash_password(self._password_key, credential.password), organization_id, device_id),
            )
        if changed.rowcount == 0:
            raise _no_active_device(organization_id, device_id)
        return credential

    async def revoke_device(self, organization_id: str, device_id: str) -> None:
        """Take the device's credential away. Its readings and its registration stay. Raises NotFound."""
        key = (organization_id, device_id)
        async with self._transaction() as db:
            changed = await db.execute(
                "UPDATE devices SET status = 'revoked' WHERE organization_id = ? AND id = ? AND status <> 'revoked'",
                key,
            )
            await db.execute("DELETE FROM mqtt_credentials WHERE organization_id = ? AND device_id = ?", key)
        if changed.rowcount == 0:
            raise _no_active_device(organization_id, device_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Yield the connection for one transaction at a time: committed at the end, or rolled back whole."""
        async with self._writing:
            try:
                await self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                await self._db.execute("COMMIT")
            except BaseException as error:
                await self._db.rollback()
                if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                    raise StoreFailed(
                        f"The state could not be written: {error}.", hint="Look at the disk that holds it."
                    ) from error
                raise

    async def devices(self) -> list[DeviceRow]:
        """Return all devices."""
        rows = await self._db.execute_fetchall(
            "SELECT organization_id, id, metadata, status, created_at FROM devices ORDER BY organization_id, id"
        )
        return [DeviceRow(org, device, json.loads(metadata), status, at) for org, device, metadata, status, at in rows]

    async def copy_to(self, path: Path) -> None:
        """Copy the state to a new file. Raises StoreFailed."""
        copy = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            async with self._writing:
                await self._db.backup(copy)
        except sqlite3.Error as error:
            raise StoreFailed(f"The state could not be copied: {error}.") from error
        finally:
            copy.close()

    async def credentials(self) -> list[CredentialRow]:
        """Return all credentials."""
        rows = await self._db.execute_fetchall(
            "SELECT username, organization_id, device_id, password_hash FROM mqtt_credentials"
        )
        return [CredentialRow(*row) for row in rows]


def _new_credential(organization_id: str, device_id: str) -> DeviceCredential:
    return DeviceCredential(organization_id, device_id, f"{organization_id}/{device_id}", generate_password())


def _no_active_device(organization_id: str, device_id: str) -> NotFound:
    return NotFound(
        f"There is no active device {device_id} in {organization_id}.",
        hint="neurogate device list shows what there is.",
    )


def _migrate(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
            path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = full")
            migrate(db, STATE_MIGRATIONS, path)
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(
            f"{path} cannot be opened: {error}.", hint="Look at its owner, its rights and the disk."
        ) from error
