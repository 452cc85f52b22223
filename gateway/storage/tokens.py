"""The tokens in `state.db`: who may ask the HTTP API, for which organisation, in which role.

A token is random and known to its owner alone; what is stored is its keyed hash, as of passwords.
"""

import re
from dataclasses import dataclass, field

import aiosqlite

from gateway.model.errors import AlreadyExists, BadInput, NotFound
from gateway.model.roles import Role
from gateway.storage.passwords import generate_password
from gateway.storage.state import State, check_name

PREFIX = "ngt_"
"""How every token begins: whoever finds one in a file knows what it opens."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,99}")


@dataclass(slots=True, frozen=True)
class TokenRow:
    """Who may ask."""

    name: str
    organization_id: str
    role: Role
    token_hash: bytes = field(repr=False)
    created_at_ms: int


@dataclass(slots=True, frozen=True)
class NewToken:
    """A new token; the only time that it is seen."""

    name: str
    organization_id: str
    role: Role
    token: str = field(repr=False)


class Tokens:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> list[TokenRow]:
        """Return all tokens."""
        rows = await self._state.fetch(
            "SELECT name, organization_id, role, token_hash, created_at FROM tokens ORDER BY organization_id, name"
        )
        return [TokenRow(*row) for row in rows]

    async def add(self, name: str, organization_id: str, role: Role) -> NewToken:
        """Make a token. Raises BadInput for an unusable name, AlreadyExists when it is taken."""
        if not _NAME.fullmatch(name):
            raise BadInput(
                "invalid_token_name",
                f"{name!r} cannot be the name of a token.",
                hint="Use letters, digits, '_', '.', '@', ':' and '-', at most 100.",
            )
        check_name("organization", organization_id)
        new = NewToken(name, organization_id, role, PREFIX + generate_password())

        async def insert(db: aiosqlite.Connection) -> bool:
            added = await db.execute(
                """INSERT INTO tokens (name, organization_id, role, token_hash, created_at) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT DO NOTHING""",
                (name, organization_id, role, self._state.password_hash(new.token), self._state.now_ms()),
            )
            return added.rowcount > 0

        if not await self._state.change(insert):
            raise AlreadyExists(
                f"There is a token {name} already.",
                hint=f"Choose another name, or revoke that one: neurogate token revoke {name}",
            )
        return new

    async def revoke(self, name: str) -> None:
        """Take a token away. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> bool:
            return (await db.execute("DELETE FROM tokens WHERE name = ?", (name,))).rowcount > 0

        if not await self._state.change(delete, takes_access=True):
            raise NotFound(f"There is no token {name}.", hint="neurogate token list shows what there is.")
