"""The credentials in `state.db`: who may log in, since when, and how often each has.

- a username with a slash is a device's, `NAME@ORGANISATION` an organisation's (an older one may be without), any
  other the site's: so nobody finds out what others have called theirs, or takes a name from them; what each may do is
  said in gateway/model/rights.py
- a password is known to its owner alone; a new one does not end the old one at once, so that a board can be flashed,
  or a hub told, without a gap. What is left to the old one is time in which the gateway runs: a clock that jumps, or a
  gateway that was off, ends it neither early nor unseen
- the statistics are written now and then and are not worth a copy
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import aiosqlite

from gateway.model.errors import AlreadyExists, NotFound
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.passwords import generate_password
from gateway.storage.state import State, check_name

HOME_ASSISTANT = "homeassistant/#"
"""The `topic_prefix` of a credential for Home Assistant, whatever its discovery prefix is."""


@dataclass(slots=True, frozen=True)
class CredentialRow:
    """Who may log in. `organization_id` None is the site's, `device_id` None an organisation's or the site's."""

    username: str
    organization_id: str | None
    device_id: str | None
    password_hash: bytes = field(repr=False)
    old_password_hash: bytes | None = field(repr=False)
    old_password_left_ms: int
    """How much longer the old password is good, in time that the gateway runs."""
    created_at_ms: int
    last_connected_at_ms: int | None
    connections: int
    refused_logins: int
    messages_in: int
    topic_prefix: str = ""

    @property
    def is_home_assistant(self) -> bool:
        """Whether it listens only; where, is said in gateway/model/rights.py."""
        return self.topic_prefix == HOME_ASSISTANT


@dataclass(slots=True, frozen=True)
class Usage:
    """What is written of a credential now and then."""

    username: str
    last_connected_at_ms: int | None
    connections: int
    refused_logins: int
    messages_in: int
    old_password_hash: bytes | None = field(default=None, repr=False)
    old_password_left_ms: int = 0
    """Written only while that is still the old password."""


@dataclass(slots=True, frozen=True)
class NewPassword:
    """A username and its new password; the only time that it is seen."""

    username: str
    organization_id: str | None
    password: str = field(repr=False)


class Credentials:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[CredentialRow]:
        """Return all credentials."""
        rows = await self._state.fetch(
            """SELECT username, organization_id, device_id, password_hash, old_password_hash, old_password_left_ms,
                created_at, last_connected_at, connections, refused_logins, messages_in, topic_prefix
            FROM mqtt_credentials ORDER BY organization_id, device_id, username"""
        )
        return [CredentialRow(*row) for row in rows]

    async def add(
        self, name: str, organization_id: str | None, *, is_home_assistant: bool = False, by: str | None = GATEWAY
    ) -> NewPassword:
        """Make a credential of an organisation, or (None) of the site. With `by` None it is not worth a note.

        Raises BadInput for an unusable name, AlreadyExists when it is taken there.
        """
        check_name("credential", name)
        if organization_id is not None:
            check_name("organization", organization_id)
        username = organization_username(organization_id, name) if organization_id is not None else name
        new = NewPassword(username, organization_id, generate_password())
        prefix = "#" if organization_id is None else f"org_{organization_id}/devices/#"

        async def insert(db: aiosqlite.Connection) -> bool:
            added = await db.execute(
                """INSERT INTO mqtt_credentials (username, organization_id, password_hash, topic_prefix, created_at)
                VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
                (
                    username,
                    organization_id,
                    self._state.password_hash(new.password),
                    HOME_ASSISTANT if is_home_assistant else prefix,
                    self._state.now_ms(),
                ),
            )
            if added.rowcount > 0 and by is not None:
                after, now_ms = {"username": username}, self._state.now_ms()
                await note(db, now_ms, by, organization_id, "credential.add", username, None, after)
            return added.rowcount > 0

        if not await self._state.change(insert):
            raise AlreadyExists(
                f"There is a credential {username} already.",
                hint=f"Choose another name, or give it a new password: neurogate credential rotate {username}",
            )
        return new

    async def rotate(self, username: str, overlap_ms: int, *, by: str = GATEWAY) -> str:
        """Return a new password; the one before stays good for so long, one from before that ends. Raises NotFound."""
        password = generate_password()

        async def update(db: aiosqlite.Connection) -> bool:
            changed = await db.execute_fetchall(
                """UPDATE mqtt_credentials SET password_hash = ?1,
                    old_password_hash = CASE WHEN ?2 > 0 THEN password_hash END, old_password_left_ms = ?2
                WHERE username = ?3 RETURNING organization_id""",
                (self._state.password_hash(password), overlap_ms, username),
            )
            for (organization_id,) in changed:
                after = {"overlap_s": overlap_ms / 1000}
                await note(db, self._state.now_ms(), by, organization_id, "credential.rotate", username, None, after)
                return True
            return False

        if not await self._state.change(update, takes_access=True):
            raise no_credential(username)
        return password

    async def end_old_passwords(self, ending: Iterable[tuple[str, bytes]]) -> None:
        """Forget old passwords (username, hash) whose time is up."""
        rows = list(ending)

        async def update(db: aiosqlite.Connection) -> None:
            await db.executemany(
                """UPDATE mqtt_credentials SET old_password_hash = NULL, old_password_left_ms = 0
                WHERE username = ? AND old_password_hash = ?""",
                rows,
            )

        await self._state.change(update, takes_access=True)

    async def revoke(self, username: str, *, by: str | None = GATEWAY) -> None:
        """Take the credential of an organisation or the site away, whatever its passwords. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> bool:
            changed = await db.execute_fetchall(
                "DELETE FROM mqtt_credentials WHERE username = ? AND device_id IS NULL RETURNING organization_id",
                (username,),
            )
            for (organization_id,) in changed:
                if by is not None:
                    before, now_ms = {"username": username}, self._state.now_ms()
                    await note(db, now_ms, by, organization_id, "credential.revoke", username, before, None)
                return True
            return False

        if not await self._state.change(delete, takes_access=True):
            raise no_credential(username)

    async def note(self, usages: Iterable[Usage]) -> None:
        """Write down how credentials were used; one that is gone is left out."""
        rows = [
            (
                usage.last_connected_at_ms,
                usage.connections,
                usage.refused_logins,
                usage.messages_in,
                usage.old_password_hash,
                usage.old_password_left_ms,
                usage.username,
            )
            for usage in usages
        ]

        async def update(db: aiosqlite.Connection) -> None:
            await db.executemany(
                """UPDATE mqtt_credentials SET last_connected_at = ?, connections = ?, refused_logins = ?,
                    messages_in = ?,
                    old_password_left_ms = iif(old_password_hash = ?, ?, old_password_left_ms)
                WHERE username = ?""",
                rows,
            )

        await self._state.change(update, copied=False)


def organization_username(organization_id: str, name: str) -> str:
    """Return the name under which an organisation's hub logs in; a name has no `@`."""
    return f"{name}@{organization_id}"


def no_credential(username: str) -> NotFound:
    """Return the error for a username that nobody has."""
    return NotFound(f"There is no credential {username}.", hint="neurogate credential list shows what there is.")
