"""The owner's secrets in the vault: what the configuration calls `${vault:NAME}`."""

from dataclasses import dataclass

import aiosqlite

from gateway.model.errors import BadInput, NotFound
from gateway.model.secret import Secret, is_secret_name
from gateway.storage.state import State
from gateway.storage.vault import SECRETS, Unreadable, Vault

MOST_BYTES = 65_536


@dataclass(slots=True, frozen=True)
class SecretRow:
    """What may be shown of a secret."""

    name: str
    created_at_ms: int
    changed_at_ms: int
    unreadable: str
    """Why it cannot be decrypted; empty when it can."""


class Secrets:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._vault = Vault(state)

    async def all(self) -> list[SecretRow]:
        """Return all of them, by name, without what they are."""
        rows = await self._state.fetch("SELECT name, value, created_at, changed_at FROM secrets ORDER BY name")
        return [
            SecretRow(name, created, changed, await self._why(name, value)) for name, value, created, changed in rows
        ]

    async def value(self, name: str) -> Secret:
        """Return one. Raises NotFound, or Unreadable when it is there and cannot be decrypted."""
        for known, value in await self._state.fetch("SELECT name, value FROM secrets"):
            if known == name:
                return await self._vault.unseal(SECRETS.place(name), value)
        raise NotFound(f"There is no secret {name}.", hint=f"Put it in with: neurogate secrets set {name}")

    async def put(self, name: str, value: Secret) -> None:
        """Keep a secret, in place of the one of this name. Raises BadInput, or ConfigError for the vault's key."""
        if not is_secret_name(name):
            raise BadInput(
                "invalid_secret_name",
                f"{name!r} cannot be the name of a secret.",
                hint="Use letters, digits, '_', '.' and '-', at most 64; begin with a letter or digit.",
            )
        size = len(value.get_secret_value().encode())
        if not 0 < size <= MOST_BYTES:
            raise BadInput(
                "invalid_secret", f"A secret has 1 to {MOST_BYTES:,} bytes, not {size:,}.", hint="Nothing was changed."
            )

        async def write(db: aiosqlite.Connection) -> None:
            now = self._state.now_ms()
            await db.execute(
                """INSERT INTO secrets (name, value, created_at, changed_at) VALUES (?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET value = excluded.value, changed_at = excluded.changed_at""",
                (name, await self._vault.seal(db, SECRETS.place(name), value), now, now),
            )

        await self._state.change(write)

    async def remove(self, name: str) -> None:
        """Forget a secret. Raises NotFound."""

        async def delete(db: aiosqlite.Connection) -> bool:
            return (await db.execute("DELETE FROM secrets WHERE name = ?", (name,))).rowcount > 0

        if not await self._state.change(delete, takes_access=True):
            raise NotFound(f"There is no secret {name}.", hint="neurogate secrets list shows what there is.")

    async def _why(self, name: str, value: bytes) -> str:
        try:
            await self._vault.unseal(SECRETS.place(name), value)
        except Unreadable as error:
            return str(error)
        return ""
