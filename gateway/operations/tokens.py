"""Tokens: who may ask the HTTP API, for which organisation, in which role. A change holds when it returns."""

from dataclasses import dataclass

from gateway.model.errors import BadInput
from gateway.model.roles import Role
from gateway.operations.devices import take_effect
from gateway.operations.site import Site
from gateway.storage.tokens import NewToken, Tokens, no_token


@dataclass(slots=True, frozen=True)
class TokenDetails:
    """All that is known of a token, but for itself."""

    id: str
    name: str
    organization_id: str | None
    """None for the site's."""
    role: Role
    created_at_ms: int


async def list_tokens(site: Site) -> list[TokenDetails]:
    """Return every token."""
    rows = await Tokens(await site.state()).all()
    return [TokenDetails(row.id, row.name, row.organization_id, row.role, row.created_at_ms) for row in rows]


async def create_token(site: Site, *, name: str, organization_id: str | None, role: Role) -> NewToken:
    """Make a token of an organisation, or (None) of the site; it may be used at once.

    Raises BadInput or AlreadyExists.
    """
    new = await Tokens(await site.state()).add(name, organization_id, role, by=site.actor)
    await take_effect(site)
    return new


async def revoke_token(site: Site, *, name: str, organization_id: str | None = None, of_site: bool = False) -> None:
    """Take the token of that name away, of an organisation or of the site; of whichever has it, if neither is said.

    Raises NotFound, and BadInput when several have one.
    """
    found = [one for one in await list_tokens(site) if one.name == name]
    if of_site or organization_id is not None:
        found = [one for one in found if one.organization_id == organization_id]
    if not found:
        raise no_token(name)
    if len(found) > 1:
        whose = ", ".join(one.organization_id or "the site" for one in found)
        raise BadInput(
            "ambiguous_token", f"Several have a token {name}: {whose}.", hint="Say whose: --organization or --site."
        )
    await revoke_token_by_id(site, token_id=found[0].id)


async def revoke_token_by_id(site: Site, *, token_id: str) -> None:
    """Take a token away. Raises NotFound."""
    await Tokens(await site.state()).revoke(token_id, by=site.actor)
    await take_effect(site)
