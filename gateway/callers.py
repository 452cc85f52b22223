"""Who asks over HTTP: an in-memory view of the tokens in `state.db`, so that a request costs microseconds."""

from dataclasses import dataclass

from gateway.model.roles import Role
from gateway.storage.passwords import hash_password
from gateway.storage.state import State
from gateway.storage.tokens import Tokens


@dataclass(slots=True, frozen=True)
class Caller:
    """The holder of a token."""

    name: str
    organization_id: str
    role: Role


class Callers:
    """See the module's own words. Whoever changes the tokens calls `refresh`; then the change holds."""

    def __init__(self, state: State, password_key: bytes) -> None:
        self._tokens = Tokens(state)
        self._password_key = password_key
        self._by_hash: dict[bytes, Caller] = {}

    async def refresh(self) -> None:
        """Read the tokens again."""
        self._by_hash = {
            row.token_hash: Caller(row.name, row.organization_id, row.role) for row in await self._tokens.all()
        }

    def authenticate(self, token: str) -> Caller | None:
        """Return whose token this is. The look-up is by keyed hash, so timing tells nothing."""
        return self._by_hash.get(hash_password(self._password_key, token))

    def is_current(self, caller: Caller) -> bool:
        """Whether the caller's token is still good."""
        return caller in self._by_hash.values()
