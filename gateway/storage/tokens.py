"""The tokens in `state.db`: who may ask the HTTP API, for which organisation (or all of the site), in which role.

A token is random and known to its owner alone; what is stored is its keyed hash, as of passwords.
"""

import re
import secrets
from dataclasses import dataclass, field

import aiosqlite

from gateway.model.errors import AlreadyExists, BadInput, NotFound
from gateway.model.roles import Role
from gateway.storage.activity_log import GATEWAY, note
from gateway.storage.passwords import generate_password
from gateway.storage.state import State, check_name

PREFIX = "ngt_"
"""How every token begins: whoever finds one in a file knows what it opens."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,99}")


@dataclass(slots=True, frozen=True)
class TokenRow:
    """Who may ask."""

    id: str
    name: str
    """One of its organisation, or of the site."""
    organization_id: str | None
    """None for a token of the site: it is for every organisation, and manages them."""
    role: Role
    token_hash: bytes = field(repr=False)
    created_at_ms: int


@dataclass(slots=True, frozen=True)
class NewToken:
    """A new token; the only time that it is seen."""

    id: str
    name: str
    organization_id: str | None
    role: Role
    token: str = field(repr=False)
    created_at_ms: int


class Tokens:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[TokenRow]:
        """Return all tokens, those of the site first."""
        rows = await self._state.fetch(
            "SELECT id, name, organization_id, role, token_hash, created_at FROM tokens ORDER BY organization_id, name"
        )
        return [TokenRow(*row) for row in rows]

    async def add(self, name: str, organization_id: str | None, role: Role, *, by: str = GATEWAY) -> NewToken:
        """Make a token of an organisation, or (None) of the site.

        Raises BadInput for an unusable name or role, AlreadyExists when the name is taken there.
        """
        if not _NAME.fullmatch(name):
            raise BadInput(
                "invalid_token_name",
                f"{name!r} cannot be the name of a token.",
                hint="Use letters, digits, '_', '.', '@', ':' and '-', at most 100.",
            )
        if organization_id is not None:
            check_name("organization", organization_id)
        elif role == "device":
            raise BadInput(
                "invalid_role", "A token of the role device is for an organisation.", hint="Name one, or another role."
            )
        token, now_ms = PREFIX + generate_password(), self._state.now_ms()
        new = NewToken(secrets.token_hex(8), name, organization_id, role, token, now_ms)

        async def insert(db: aiosqlite.Connection) -> None:
            added = await db.execute(
                """INSERT INTO tokens (id, name, organization_id, role, token_hash, created_at)
                VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
                (new.id, name, organization_id, role, self._state.password_hash(token), now_ms),
            )
            if added.rowcount <= 0:
                raise AlreadyExists(
                    f"There is a token {name} already.",
                    hint=f"Choose another name, or revoke that one: neurogate token revoke {name}",
                )
            after = {"name": name, "role": role}
            await note(db, now_ms, by, organization_id, "token.create", new.id, None, after)

        await self._state.change(insert)
        return new

    async def revoke(self, token_id: str, *, by: str = GATEWAY) -> None:
        """Take a token away, by its id. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> None:
            found = await db.execute_fetchall(
                "DELETE FROM tokens WHERE id = ? RETURNING name, organization_id, role", (token_id,)
            )
            for name, organization_id, role in found:
                before = {"name": name, "role": role}
                await note(db, self._state.now_ms(), by, organization_id, "token.revoke", token_id, before, None)
                return
            raise no_token(token_id)

        await self._state.change(delete, takes_access=True)


def no_token(name: str) -> NotFound:
    """Return the error for a token that is not there."""
    return NotFound(f"There is no token {name[:100]}.", hint="neurogate token list shows what there is.")
