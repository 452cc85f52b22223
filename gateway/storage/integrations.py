"""The integrations of organisations in `state.db`, as they are managed over the API and the command line.

- a change and its entry in the activity log are one transaction
- what is secret of a configuration lies in the vault, all of an integration's in one value; `secret_names` says what
  there is, also while the key is lost. What is not secret is in `settings`, as its owner has written it
- one that was removed stays known by its id until whoever has the log has forgotten it there as well

It does not: know what an integration's settings may be, or which of them are secret (cloud_sync).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import aiosqlite
from pydantic import JsonValue

from gateway.model.errors import AlreadyExists, BadInput, NotFound
from gateway.model.secret import Secret
from gateway.model.text import is_clean_text
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.device_rows import check_name
from gateway.storage.state import State
from gateway.storage.vault import INTEGRATIONS, Unreadable, Vault

AT_MOST = 100
"""Integrations of one organisation."""
LONGEST_NAME = 255

STATUSES = ("active", "inactive", "error")
"""What its owner wants; `error` is an active one that could not be started, and `sync_error` says why."""
SYNC_DIRECTIONS = ("import", "export", "bidirectional")
CONFLICT_RESOLUTIONS = ("manual", "local_wins", "remote_wins", "newest_wins")

Values = Mapping[str, JsonValue]


@dataclass(slots=True, frozen=True)
class IntegrationRow:
    """One integration."""

    id: str
    """A UUID; also the name of its cursor."""
    organization_id: str
    integration_type: str
    name: str
    """What its owner calls it; of one organisation, each is called otherwise."""
    settings: Values = field(default_factory=dict)
    """Of its configuration, what is not secret."""
    secret_names: tuple[str, ...] = ()
    """Of its configuration, what is in the vault."""
    sealed: bytes | None = field(default=None, repr=False)
    """Just that, encrypted: see `Integrations.secrets`."""
    status: str = "active"
    sync_enabled: bool = False
    sync_interval_seconds: int = 300
    sync_direction: str = "bidirectional"
    conflict_resolution: str = "manual"
    webhook_enabled: bool = False
    webhook_url: str | None = None
    last_sync_at_ms: int | None = None
    last_sync_status: str | None = None
    sync_error: str | None = None
    created_at_ms: int = 0
    updated_at_ms: int = 0

    @property
    def is_wanted(self) -> bool:
        """Whether its owner wants it to run."""
        return self.status != "inactive"

    def described(self) -> dict[str, Any]:
        """Return it as the activity log shows it."""
        return {
            "name": self.name,
            "integration_type": self.integration_type,
            **{f"settings.{name}": value for name, value in self.settings.items()},
            "in_vault": list(self.secret_names),
            "status": self.status,
            "sync_enabled": self.sync_enabled,
            "sync_interval_seconds": self.sync_interval_seconds,
            "sync_direction": self.sync_direction,
            "conflict_resolution": self.conflict_resolution,
            "webhook_enabled": self.webhook_enabled,
        }


_COLUMNS = """id, organization_id, integration_type, name, settings, secret_names, secrets, status, sync_enabled,
    sync_interval_seconds, sync_direction, conflict_resolution, webhook_enabled, webhook_url, last_sync_at,
    last_sync_status, sync_error, created_at, updated_at"""
_SELECT = f"SELECT {_COLUMNS} FROM device_integrations"  # noqa: S608 - constants

MOVES_WITH = ("mqtt_external", "deviceId")
"""Integrations of this type whose setting names a device are that device's: they move with it."""
_WHEN_MOVED = {"speaksForOthers": False}
"""Settings that such a one then gets: nobody there has said that what is behind a hub may name their devices."""

Edit = Callable[[IntegrationRow, Values | Unreadable], tuple[IntegrationRow, Values | None]]
"""Gets an integration with its secrets, or why they cannot be read, and returns how it is to be; None leaves them."""


class Integrations:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._vault = Vault(state)

    async def list(self, organization_id: str | None = None) -> list[IntegrationRow]:
        """Return all of an organisation (None: of all), by their names."""
        rows = await self._state.fetch(
            f"{_SELECT} WHERE (?1 IS NULL OR organization_id = ?1) ORDER BY organization_id, name",
            (organization_id,),
        )
        return [_row(row) for row in rows]

    async def get(self, integration_id: str, organization_id: str | None = None) -> IntegrationRow:
        """Return one, of any organisation or of this. Raises NotFound."""
        found = await self._state.fetch(*_one(integration_id, organization_id))
        for row in found:
            return _row(row)
        raise no_integration(integration_id)

    async def secrets(self, row: IntegrationRow) -> Values:
        """Return what is secret of its configuration, by name. Raises Unreadable."""
        if row.sealed is None:
            return {}
        text = await self._vault.unseal(INTEGRATIONS.place(row.id), row.sealed)
        values: dict[str, JsonValue] = json.loads(text.get_secret_value())
        return values

    async def add(self, new: IntegrationRow, secrets: Values, *, by: str = GATEWAY) -> IntegrationRow:
        """Keep a new one, under a new id, and return it.

        Raises BadInput for an unusable name or when there are too many, AlreadyExists, and ConfigError for the vault's
        key.
        """
        check_name("organization", new.organization_id)
        _check_title(new.name)
        now_ms = self._state.now_ms()
        new = replace(new, id=str(uuid4()), created_at_ms=now_ms, updated_at_ms=now_ms)

        async def insert(db: aiosqlite.Connection) -> IntegrationRow:
            await _refuse_too_many(db, new.organization_id)
            row = await self._with(db, new, secrets)
            await _refuse_taken(db, row)
            await _write(db, row)
            await note(db, now_ms, by, row.organization_id, "integration.add", row.id, None, row.described())
            return row

        return await self._state.change(insert)

    async def change(
        self, integration_id: str, edit: Edit, *, organization_id: str | None = None, by: str = GATEWAY
    ) -> IntegrationRow:
        """Change one, within one transaction, and return it as it is now.

        Raises NotFound, what `edit` raises, BadInput for an unusable name, AlreadyExists, and ConfigError for the
        vault's key.
        """

        async def update(db: aiosqlite.Connection) -> IntegrationRow:
            old = await _find(db, integration_id, organization_id)
            edited, secrets = edit(old, await self._readable(old))
            _check_title(edited.name)
            if secrets is not None:
                edited = await self._with(db, edited, secrets)
            if edited == old:
                return old
            row = replace(edited, updated_at_ms=self._state.now_ms())
            await _refuse_taken(db, row)
            await _write(db, row)
            before, after = old.described(), row.described()
            if secrets is not None and secrets:
                after["in_vault"] = [f"{name} (as it was, or set)" for name in row.secret_names]
            about = (row.organization_id, "integration.update", row.id)
            await note(db, row.updated_at_ms, by, *about, before, after)
            return row

        return await self._state.change(update, takes_access=True)

    async def remove(self, integration_id: str, *, organization_id: str | None = None, by: str = GATEWAY) -> None:
        """Remove one; its id is among the removed ones. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> None:
            old = await _find(db, integration_id, organization_id)
            await db.execute("DELETE FROM device_integrations WHERE id = ?", (old.id,))
            await db.execute("INSERT OR IGNORE INTO removed_integrations (id) VALUES (?)", (old.id,))
            about = (old.organization_id, "integration.remove", old.id)
            await note(db, self._state.now_ms(), by, *about, old.described(), None)

        await self._state.change(delete, takes_access=True)

    async def removed(self) -> Sequence[str]:
        """Return the ids of the removed ones that are not forgotten."""
        return [str(name) for (name,) in await self._state.fetch("SELECT id FROM removed_integrations ORDER BY id")]

    async def forget(self, integration_id: str) -> None:
        """Forget a removed one: nothing else knows of it any more."""

        async def delete(db: aiosqlite.Connection) -> None:
            await db.execute("DELETE FROM removed_integrations WHERE id = ?", (integration_id,))

        await self._state.change(delete, copied=False)

    async def note_start(self, integration_id: str, error: str | None) -> None:
        """Note why an active one could not be started, or None that it could; the copy need not know.

        That is no change of its owner's, and not in the activity log.
        """
        status = "active" if error is None else "error"

        async def update(db: aiosqlite.Connection) -> None:
            await db.execute(
                "UPDATE device_integrations SET status = ?, sync_error = ? WHERE id = ? AND status <> 'inactive'",
                (status, error, integration_id),
            )

        await self._state.change(update, copied=False)

    async def _readable(self, row: IntegrationRow) -> Values | Unreadable:
        try:
            return await self.secrets(row)
        except Unreadable as error:
            return error

    async def _with(self, db: aiosqlite.Connection, row: IntegrationRow, secrets: Values) -> IntegrationRow:
        """Return it with these in the vault."""
        sealed = None
        if secrets:
            text = Secret(json.dumps(dict(secrets), ensure_ascii=False))
            sealed = await self._vault.seal(db, INTEGRATIONS.place(row.id), text)
        return replace(row, secret_names=tuple(sorted(secrets)), sealed=sealed)


async def move_integrations(
    db: aiosqlite.Connection, organization_id: str, device_id: str, to: str, *, by: str, now_ms: int
) -> None:
    """Move what is a device's to another organisation, as part of its move: the same id, client id and secrets.

    Raises AlreadyExists for a name that is taken there, and BadInput when there are too many.
    """
    integration_type, setting = MOVES_WITH
    for found in await db.execute_fetchall(
        f"{_SELECT} WHERE organization_id = ? AND integration_type = ? AND json_extract(settings, ?) = ?",
        (organization_id, integration_type, f"$.{setting}", device_id),
    ):
        old = _row(found)
        row = replace(old, organization_id=to, settings={**old.settings, **_WHEN_MOVED}, updated_at_ms=now_ms)
        await _refuse_too_many(db, to)
        await _refuse_taken(db, row)
        await _write(db, row)
        # Neither organisation learns of the other.
        await note(db, now_ms, by, organization_id, "integration.transfer", row.id, old.described(), None)
        await note(db, now_ms, by, to, "integration.transfer", row.id, None, row.described())


def no_integration(integration_id: str) -> NotFound:
    """Return the error for an integration that is not there."""
    return NotFound(
        f"There is no integration {integration_id[:100]}.", hint="neurogate integration list shows what there is."
    )


def _check_title(name: str) -> None:
    if not 0 < len(name) <= LONGEST_NAME or name != name.strip() or not is_clean_text(name):
        raise BadInput(
            "invalid_name",
            f"The name is no text of 1 to {LONGEST_NAME} characters, without spaces around it.",
            hint="Call it otherwise.",
        )


def _one(integration_id: str, organization_id: str | None) -> tuple[str, tuple[object, ...]]:
    values = (integration_id, organization_id)
    return f"{_SELECT} WHERE id = ?1 AND (?2 IS NULL OR organization_id = ?2)", values


async def _find(db: aiosqlite.Connection, integration_id: str, organization_id: str | None) -> IntegrationRow:
    for row in await db.execute_fetchall(*_one(integration_id, organization_id)):
        return _row(row)
    raise no_integration(integration_id)


async def _refuse_too_many(db: aiosqlite.Connection, organization_id: str) -> None:
    ((count,),) = await db.execute_fetchall(
        "SELECT count(*) FROM device_integrations WHERE organization_id = ?", (organization_id,)
    )
    if count >= AT_MOST:
        raise BadInput(
            "too_many_integrations",
            f"There are {AT_MOST} integrations of {organization_id} already.",
            hint="Remove one that nobody needs.",
        )


async def _refuse_taken(db: aiosqlite.Connection, row: IntegrationRow) -> None:
    for (other,) in await db.execute_fetchall(
        "SELECT id FROM device_integrations WHERE organization_id = ? AND name = ? AND id <> ?",
        (row.organization_id, row.name, row.id),
    ):
        raise AlreadyExists(
            f"There is an integration {row.name} of {row.organization_id} already.",
            hint=f"Change that one ({other}), or call this one otherwise.",
        )


async def _write(db: aiosqlite.Connection, row: IntegrationRow) -> None:
    values = (
        row.id,
        row.organization_id,
        row.integration_type,
        row.name,
        json.dumps(dict(row.settings), ensure_ascii=False),
        json.dumps(row.secret_names, ensure_ascii=False),
        row.sealed,
        row.status,
        row.sync_enabled,
        row.sync_interval_seconds,
        row.sync_direction,
        row.conflict_resolution,
        row.webhook_enabled,
        row.webhook_url,
        row.last_sync_at_ms,
        row.last_sync_status,
        row.sync_error,
        row.created_at_ms,
        row.updated_at_ms,
    )
    await db.execute("DELETE FROM device_integrations WHERE id = ?", (row.id,))
    await db.execute(
        f"INSERT INTO device_integrations ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608 - constants
        values,
    )


def _row(row: Any) -> IntegrationRow:  # noqa: ANN401 - a row of the database
    name, organization, kind, title, settings, secret_names, sealed, status, sync, interval, *rest = row
    direction, resolution, webhook, webhook_url, *times = rest
    return IntegrationRow(
        name,
        organization,
        kind,
        title,
        json.loads(settings),
        tuple(json.loads(secret_names)),
        sealed,
        status,
        bool(sync),
        interval,
        direction,
        resolution,
        bool(webhook),
        webhook_url,
        *times,
    )
