"""`state.db`: the devices and their credentials.

Small and rarely written, through one aiosqlite connection; every change is on disk when its method returns, and soon
after also in the copy beside it. Whoever holds the data directory's lock is the only one who writes it. Only the
gateway repairs it, when it opens it or when it notices (see state_copy.py).
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import aiosqlite

from gateway.clock import Clock
from gateway.model.errors import AlreadyExists, StoreFailed
from gateway.model.metadata import encode_metadata, merged
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.device_rows import (
    DEVICES,
    DeviceCredential,
    DeviceRow,
    SeenDevice,
    check_identity,
    check_name,
    device_username,
    find_device,
    no_active_device,
    refuse_taken,
    write_credential,
    write_device,
)
from gateway.storage.disk import own
from gateway.storage.migrations import migrate
from gateway.storage.passwords import hash_password
from gateway.storage.repair.damage import DamagedError, is_damage, store_failed
from gateway.storage.state_copy import check_state, complete_restoration, copy_of, restore, write_copy
from gateway.storage.state_schema import STATE_MIGRATIONS
from gateway.storage.vault_keys import copy_keys

__all__ = ["DeviceCredential", "DeviceRow", "SeenDevice", "State", "check_name", "device_username"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_COPY_EVERY_S = 3600.0
_COPY_AGAIN_S = 60.0


class State:
    """See the module's own words. Made by `State.open`."""

    def __init__(
        self,
        db: aiosqlite.Connection,
        password_key: bytes,
        clock: Clock,
        path: Path,
        tell: Callable[[str], None] | None,
    ) -> None:
        self._db = db
        self._password_key = password_key
        self._clock = clock
        self._path = path
        self._tell = tell
        self._restored = 0
        self._copying = asyncio.Lock()
        self._copy_failed = asyncio.Event()
        self._writing = asyncio.Lock()
        """One change at a time, or a restoration."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, password_key: bytes, *, clock: Clock, tell: Callable[[str], None] | None = None
    ) -> AsyncIterator[Self]:
        """Open or create the state. Raises SchemaTooNew or StoreFailed.

        With `tell` a damaged state is repaired, and it hears how; that is for the one gateway of this data directory.
        """
        restored = await asyncio.to_thread(_prepare, path, clock, repair=tell is not None)
        if restored and tell is not None:
            _say(restored, tell)
        self = cls(await _connect(path), password_key, clock, path, tell)
        try:
            yield self
        finally:
            await self._db.close()

    async def copy(self, *, older_is_harmful: bool = False) -> None:
        """Bring the copy up to date. A failure is logged: the state itself is none the worse for it.

        Where the older copy would give somebody access back, it is removed: better none, until the next can be made.
        """
        try:
            async with self._copying:  # or an older copy could take the place of a newer one
                await asyncio.to_thread(write_copy, self._path)
            self._copy_failed.clear()
        except (DamagedError, sqlite3.Error, OSError) as error:
            logger.error("%s could not be copied: %s", self._path.name, error)  # noqa: TRY400 - no fault of ours
            if older_is_harmful:
                copy_of(self._path).unlink(missing_ok=True)
            self._copy_failed.set()
            if is_damage(error) and self._tell is not None:
                await self._restore(self._tell, self._restored)

    async def keep_copied(self) -> None:
        """Copy the state every hour, for ever; after a failure, every minute."""
        while True:
            await self.copy()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._copy_failed.wait(), _COPY_EVERY_S)
                await asyncio.sleep(_COPY_AGAIN_S)

    async def _restore(self, tell: Callable[[str], None], seen: int) -> None:
        """Go on with the state as it comes back from its copy, unless somebody else did since `seen`."""
        async with self._writing:
            if self._restored == seen:
                await self._db.close()
                try:
                    restored = await asyncio.to_thread(_restore, self._path, self._clock.now_ms())
                except (OSError, sqlite3.Error) as error:
                    raise store_failed(self._path, "The state is damaged and cannot be restored yet", error) from error
                self._db = await _connect(self._path)
                self._restored += 1
                _say(restored, tell)

    async def _sound(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do it; if the state turns out to be damaged, repair it and do it again. Raises StoreFailed."""
        seen = self._restored
        try:
            return await work()
        except ValueError:  # its connection is closed: somebody else is restoring it, or could not yet
            if self._tell is None:
                raise
            await self._restore(self._tell, seen)
            return await work()
        except (sqlite3.DatabaseError, StoreFailed) as error:
            if not (is_damage(error) or is_damage(error.__cause__)):
                raise
            if self._tell is None:
                raise store_failed(self._path, "The state cannot be used", error) from error
            await self._restore(self._tell, seen)
            return await work()

    async def add_device(
        self,
        organization_id: str,
        device_id: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        hardware_ids: Sequence[str] = (),
        serial_number: str = "",
        name: str = "",
        by: str = GATEWAY,
    ) -> DeviceCredential:
        """Register a device (or a revoked or discovered one again) and make its credential.

        What a discovered one was called it keeps, unless it is said anew. Raises BadInput for an unusable id,
        AlreadyExists while the device has a credential, or another active one has a hardware id or the serial number.
        """
        for what, text in (("device", device_id), ("organization", organization_id)):
            check_name(what, text)
        check_identity(name, hardware_ids, serial_number)
        credential = DeviceCredential.new(organization_id, device_id)
        encode_metadata(metadata or {})
        key = (organization_id, device_id)

        async def add(db: aiosqlite.Connection) -> None:
            known = await find_device(db, *key) or DeviceRow(*key, {}, "", self.now_ms())
            if known.status == "active":
                raise AlreadyExists(
                    f"Device {device_id} of {organization_id} is registered already.",
                    hint=f"To give it a new password: neurogate device rotate {device_id}",
                )
            kept = known.metadata if known.status == "registered" else {}
            device = replace(
                known,
                status="active",
                metadata=merged(kept, metadata or {}),
                hardware_ids=tuple(hardware_ids) or known.hardware_ids,
                serial_number=serial_number or known.serial_number,
                name=name or known.name,
            )
            await refuse_taken(db, device)
            await write_device(db, device)
            await write_credential(db, credential, self.password_hash(credential.password), self.now_ms())
            before = known.described() if known.status else None
            await note(db, self.now_ms(), by, organization_id, "device.add", device_id, before, device.described())

        await self.change(add)
        return credential

    async def discover_devices(self, devices: Iterable[SeenDevice]) -> None:
        """Note devices that were seen and may be unknown.

        The copy is not brought up to date: whoever was seen is seen again.
        """
        now = self._clock.now_ms()
        rows = [
            (
                one.organization_id,
                one.device_id,
                json.dumps(one.hardware_ids, ensure_ascii=False),
                one.serial_number,
                now,
            )
            for one in devices
        ]

        async def insert(db: aiosqlite.Connection) -> None:
            await db.executemany(
                """INSERT INTO devices (organization_id, id, hardware_ids, serial_number, status, created_at)
                VALUES (?, ?, ?, ?, 'discovered', ?) ON CONFLICT DO NOTHING""",
                rows,
            )

        await self.change(insert, copied=False)

    async def revoke_device(self, organization_id: str, device_id: str, *, by: str = GATEWAY) -> None:
        """Take the device's credential away. Its readings and its registration stay. Raises NotFound."""
        key = (organization_id, device_id)

        async def revoke(db: aiosqlite.Connection) -> bool:
            rows = await db.execute_fetchall(
                "SELECT status FROM devices WHERE organization_id = ? AND id = ? AND status <> 'revoked'", key
            )
            for (status,) in rows:
                await db.execute("UPDATE devices SET status = 'revoked' WHERE organization_id = ? AND id = ?", key)
                await db.execute("DELETE FROM mqtt_credentials WHERE organization_id = ? AND device_id = ?", key)
                before, after = {"status": status}, {"status": "revoked"}
                await note(db, self.now_ms(), by, organization_id, "device.revoke", device_id, before, after)
                return True
            return False

        if not await self.change(revoke, takes_access=True):
            raise no_active_device(organization_id, device_id)

    async def change(
        self, work: Callable[[aiosqlite.Connection], Awaitable[_T]], *, copied: bool = True, takes_access: bool = False
    ) -> _T:
        """Carry out one transaction. What it did is on disk when this returns, and in the copy if it is worth that.

        `takes_access` says that an older copy would give somebody access back.
        """

        async def once() -> _T:
            async with self._transaction() as db:
                return await work(db)

        result = await self._sound(once)
        if copied:
            await self.copy(older_is_harmful=takes_access)
        return result

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Yield the connection for one transaction at a time: committed at the end, or rolled back whole."""
        async with self._writing:
            try:
                await self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                await self._db.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):  # a damaged state may refuse this, too
                    await self._db.rollback()
                if isinstance(error, sqlite3.Error):
                    raise store_failed(self._path, "The state could not be written", error) from error
                raise

    async def devices(self) -> list[DeviceRow]:
        """Return all devices."""
        return [DeviceRow.of(row) for row in await self.fetch(f"{DEVICES} ORDER BY organization_id, id")]

    async def copy_to(self, path: Path) -> None:
        """Copy the state to a new file, and beside it the vault's keys as they are now. Raises StoreFailed."""
        try:
            own(path)
        except OSError as error:
            raise StoreFailed(f"The state could not be copied: {error}.") from error
        copy = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            async with self._writing:
                await self._db.backup(copy)
                await asyncio.to_thread(copy_keys, self.folder, path.parent)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"The state could not be copied: {error}.") from error
        finally:
            copy.close()

    async def fetch(self, sql: str, parameters: Iterable[object] = ()) -> Iterable[sqlite3.Row]:
        """Return what a query finds."""
        values = tuple(parameters)
        return await self._sound(lambda: self._db.execute_fetchall(sql, values))

    def password_hash(self, password: str) -> bytes:
        """Return what is stored of a password."""
        return hash_password(self._password_key, password)

    async def empty_wal(self) -> None:
        """Let nothing stay in the write-ahead log of what has been replaced, if nobody reads just then."""
        async with self._writing:
            with suppress(sqlite3.Error):  # it is replaced all the same
                await self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def folder(self) -> Path:
        """Where the state and the vault's keys are."""
        return self._path.parent

    def now_ms(self) -> int:
        """Return the time, for what is created."""
        return self._clock.now_ms()


async def _connect(path: Path) -> aiosqlite.Connection:
    db = await aiosqlite.connect(path, isolation_level=None, timeout=10)
    await db.execute("PRAGMA synchronous = full")
    await db.execute("PRAGMA foreign_keys = on")
    await db.execute("PRAGMA secure_delete = on")  # of a secret that was replaced, no byte stays
    return db


def _prepare(path: Path, clock: Clock, *, repair: bool) -> str:
    """Bring the state to this release's schema; return what was repaired, if anything was."""
    try:
        if repair:
            complete_restoration(path, clock.now_ms())
        check_state(path, len(STATE_MIGRATIONS), _migrate)
    except (DamagedError, sqlite3.Error, StoreFailed, OSError) as error:
        cause = error.__cause__ if isinstance(error, StoreFailed) and is_damage(error.__cause__) else error
        if repair and is_damage(cause):
            return f"{path.name} was damaged ({cause}): {_restore(path, clock.now_ms())}"
        if isinstance(error, StoreFailed):
            raise
        raise store_failed(path, "The state cannot be opened", error) from error
    return ""


def _restore(path: Path, now_ms: int) -> str:
    return restore(path, now_ms, len(STATE_MIGRATIONS), _migrate)


def _say(restored: str, tell: Callable[[str], None]) -> None:
    logger.error(restored)
    tell(restored)


def _migrate(path: Path) -> None:
    try:
        own(path)
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = full")
            migrate(db, STATE_MIGRATIONS, path)
    except (sqlite3.Error, OSError) as error:
        raise store_failed(path, "The state cannot be opened", error) from error
