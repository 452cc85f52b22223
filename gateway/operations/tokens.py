"""Tokens: who may ask the HTTP API, for which organisation, in which role. A change holds when it returns."""

from dataclasses import dataclass

from gateway.model.roles import Role
from gateway.operations.devices import take_effect
from gateway.operations.site import Site
from gateway.storage.tokens import NewToken, Tokens


@dataclass(slots=True, frozen=True)
class TokenDetails:
    """All that is known of a token, but for itself."""

    name: str
    organization_id: str
    role: Role
    created_at_ms: int


async def list_tokens(site: Site) -> list[TokenDetails]:
    """Return every token."""
    rows = await Tokens(await site.state()).all()
    return [TokenDetails(row.name, row.organization_id, row.role, row.created_at_ms) for row in rows]


async def create_token(site: Site, *, name: str, organization_id: str, role: Role) -> NewToken:
    """Make a token; it may be used at once. Raises BadInput or AlreadyExists."""
    new = await Tokens(await site.state()).add(name, organization_id, role)
    await take_effect(site)
    return new


async def revoke_token(site: Site, *, name: str) -> None:
    """Take a token away. Raises NotFound."""
    await Tokens(await site.state()).revoke(name)
    await take_effect(site)
