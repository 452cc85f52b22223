"""The organisations in `state.db`: whose devices, credentials, tokens and readings there are on this site.

Whatever is written of an organisation makes sure, by a trigger, that it is here.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import aiosqlite

from gateway.model.errors import AlreadyExists, BadInput, Conflict, NotFound, StoreFailed
from gateway.model.text import is_clean_text
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.device_rows import check_name
from gateway.storage.state import State

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200


@dataclass(slots=True, frozen=True)
class OrganizationRow:
    """An organisation."""

    id: str
    name: str
    created_at_ms: int
    devices: int
    """That have access or may be given some."""


class Organizations:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[OrganizationRow]:
        """Return all organisations."""
        rows = await self._state.fetch(
            """SELECT id, name, created_at, (
                SELECT count(*) FROM devices WHERE organization_id = organizations.id AND status <> 'revoked'
            ) FROM organizations ORDER BY id"""
        )
        return [OrganizationRow(*row) for row in rows]

    async def get(self, organization_id: str) -> OrganizationRow:
        """Return one organisation. Raises NotFound."""
        for one in await self.all():
            if one.id == organization_id:
                return one
        raise no_organization(organization_id)

    async def ensure(self, organization_ids: Iterable[str]) -> None:
        """Make sure that these are there: the configuration names them. A full disk keeps no gateway from starting."""
        wanted = set(organization_ids)
        if wanted <= {one.id for one in await self.all()}:
            return
        now_ms = self._state.now_ms()

        async def insert(db: aiosqlite.Connection) -> None:
            for organization_id in sorted(wanted):
                added = await db.execute(
                    "INSERT INTO organizations (id, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (organization_id, now_ms),
                )
                if added.rowcount > 0:
                    after = {"id": organization_id}
                    await note(db, now_ms, GATEWAY, None, "organization.add", organization_id, None, after)

        try:
            await self._state.change(insert)
        except StoreFailed as error:
            logger.warning("organisations of the configuration are not written: %s", error)

    async def add(self, organization_id: str, name: str, *, by: str) -> None:
        """Add an organisation. Raises BadInput for an unusable id or name, AlreadyExists."""
        check_name("organization", organization_id)
        _check_title(name)
        now_ms = self._state.now_ms()

        async def insert(db: aiosqlite.Connection) -> None:
            added = await db.execute(
                "INSERT INTO organizations (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (organization_id, name, now_ms),
            )
            if added.rowcount <= 0:
                raise AlreadyExists(
                    f"There is an organisation {organization_id} already.",
                    hint="neurogate org list shows what there is.",
                )
            after = {"id": organization_id, "name": name}
            await note(db, now_ms, by, None, "organization.add", organization_id, None, after)

        await self._state.change(insert)

    async def rename(self, organization_id: str, name: str, *, by: str) -> None:
        """Give an organisation another name. Raises BadInput and NotFound."""
        _check_title(name)

        async def update(db: aiosqlite.Connection) -> None:
            found = await db.execute_fetchall("SELECT name FROM organizations WHERE id = ?", (organization_id,))
            for (old,) in found:
                await db.execute("UPDATE organizations SET name = ? WHERE id = ?", (name, organization_id))
                about = ("organization.update", organization_id, {"name": old}, {"name": name})
                await note(db, self._state.now_ms(), by, None, *about)
                return
            raise no_organization(organization_id)

        await self._state.change(update)

    async def remove(self, organization_id: str, *, by: str) -> None:
        """Take an organisation away, with its tokens and notifications.

        What it did stays in the activity log, as the site's. Raises NotFound, and Conflict while it has devices,
        credentials of hubs, subscriptions or integrations.
        """

        async def delete(db: aiosqlite.Connection) -> None:
            one = (organization_id,)
            if not list(await db.execute_fetchall("SELECT 1 FROM organizations WHERE id = ?", one)):
                raise no_organization(organization_id)
            ((devices, first),) = await db.execute_fetchall(
                "SELECT count(*), min(id) FROM devices WHERE organization_id = ? AND status <> 'revoked'", one
            )
            if devices:
                raise Conflict(
                    f"{organization_id} has {devices} devices: {first}{', …' if devices > 1 else ''}.",
                    hint="Revoke each (neurogate device revoke) or move it (neurogate device transfer) first.",
                )
            for (hub,) in await db.execute_fetchall(
                "SELECT username FROM mqtt_credentials WHERE organization_id = ? AND device_id IS NULL", one
            ):
                raise Conflict(
                    f"The credential {hub} is of {organization_id}.",
                    hint=f"Revoke it: neurogate credential revoke {hub}",
                )
            if list(await db.execute_fetchall("SELECT 1 FROM mqtt_subscriptions WHERE organization_id = ?", one)):
                raise Conflict(
                    f"{organization_id} has subscriptions.", hint="DELETE mqtt-broker/subscriptions/{id} ends one."
                )
            for name, integration in await db.execute_fetchall(
                "SELECT name, id FROM device_integrations WHERE organization_id = ? ORDER BY name", one
            ):
                raise Conflict(
                    f"The integration {name} is of {organization_id}.",
                    hint=f"Remove it: neurogate integration remove {integration}",
                )
            for table in ("devices", "tokens", "commands", "alerts", "notification_log"):
                await db.execute(f"DELETE FROM {table} WHERE organization_id = ?", one)  # noqa: S608 - a constant
            await db.execute("DELETE FROM organizations WHERE id = ?", one)
            await db.execute("UPDATE activity_log SET organization_id = NULL WHERE organization_id = ?", one)
            before = {"id": organization_id}
            await note(db, self._state.now_ms(), by, None, "organization.remove", organization_id, before, None)

        await self._state.change(delete, takes_access=True)


def _check_title(name: str) -> None:
    if len(name) > _LONGEST_NAME or not is_clean_text(name):
        raise BadInput("invalid_name", "The name is no text of at most 200 characters.", hint="Shorten it.")


def no_organization(organization_id: str) -> NotFound:
    """Return the error for an organisation that is not there."""
    return NotFound(
        f"There is no organisation {organization_id[:100]}.", hint="neurogate org list shows what there is."
    )
