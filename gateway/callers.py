"""Who asks over HTTP: an in-memory view of the tokens in `state.db`, so that a request costs microseconds; and JWTs."""

from dataclasses import dataclass, replace
from typing import Self

from gateway.clock import Clock
from gateway.model.roles import Role
from gateway.signed_tokens import SignedTokens
from gateway.storage.organizations import Organizations
from gateway.storage.passwords import hash_password
from gateway.storage.state import State
from gateway.storage.tokens import Tokens


@dataclass(slots=True, frozen=True)
class Caller:
    """The holder of a token."""

    name: str
    organization_id: str
    """In which organisation they act: their own; who is of the site acts in whichever they name."""
    role: Role
    is_of_site: bool = False
    token_id: str = ""
    """Empty for a JWT."""
    expires_at_ms: int | None = None

    @property
    def actor(self) -> str:
        """Who they are in the activity log."""
        return f"token:{self.name}" if self.token_id else f"jwt:{self.name}"

    @property
    def key(self) -> str:
        """What their requests are counted by; nobody else has it, not even a credential (it has no space)."""
        return f"token {self.token_id}" if self.token_id else f"jwt {self.organization_id} {self.name}"

    def within(self, organization_id: str) -> Self:
        """Return them as they act in another organisation."""
        return replace(self, organization_id=organization_id)


class Callers:
    """See the module's own words. Whoever changes tokens or organisations calls `refresh`; then the change holds.

    `home` is the organisation in which whoever is of the site acts unless they name another.
    """

    def __init__(self, state: State, password_key: bytes, clock: Clock, *, home: str, jwt_secret: str = "") -> None:
        self._tokens = Tokens(state)
        self._organizations = Organizations(state)
        self._password_key = password_key
        self._clock = clock
        self._home = home
        self._signed = SignedTokens(jwt_secret, clock)
        self._by_hash: dict[bytes, Caller] = {}
        self._token_ids: frozenset[str] = frozenset()
        self._known: frozenset[str] = frozenset()

    async def refresh(self) -> None:
        """Read tokens and organisations again."""
        known = frozenset({self._home, *(row.id for row in await self._organizations.all())})
        rows = await self._tokens.all()
        self._by_hash = {
            row.token_hash: Caller(
                row.name, row.organization_id or self._home, row.role, row.organization_id is None, row.id
            )
            for row in rows
        }
        self._token_ids = frozenset(row.id for row in rows)
        self._known = known

    def authenticate(self, token: str) -> Caller | None:
        """Return whose token this is. The look-up is by keyed hash, so timing tells nothing."""
        found = self._by_hash.get(hash_password(self._password_key, token))
        if found is not None:
            return found
        claims = self._signed.read(token)
        if claims is None or not self.is_organization(claims.organization_id):
            return None
        return Caller(claims.subject, claims.organization_id, claims.role, expires_at_ms=claims.expires_at_ms)

    def is_current(self, caller: Caller) -> bool:
        """Whether the caller's token is still good, and there is the organisation that they act in."""
        if not self.is_organization(caller.organization_id):
            return False
        if caller.expires_at_ms is None:
            return caller.token_id in self._token_ids
        return self._clock.now_ms() < caller.expires_at_ms

    def is_organization(self, organization_id: str) -> bool:
        """Whether there is an organisation of that id."""
        return organization_id in self._known
