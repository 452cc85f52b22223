"""`tokens`: who may ask this API; under `/api/v1` and `/functions/v1`. For owners and admins, those of the site too.

- `GET tokens`: those of the organisation; with a token of the site everybody's, or of the organisation it names
- `POST tokens` `{name, role?}`: 201 with the token, this once. With a token of the site also `"site": true`, for one
  that is the site's. An admin makes no owner
- `DELETE tokens/{id}`, or `tokens` with `id` in the body or the query: 204; of an owner's, for an owner
"""

from collections.abc import Iterable

from pydantic import ConfigDict
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model.reading import rfc3339
from gateway.model.roles import Role, may_grant
from gateway.operations.site import SharedSite
from gateway.operations.tokens import TokenDetails, create_token, list_tokens, revoke_token_by_id
from gateway.storage.tokens import NewToken, no_token
from gateway.web.authorization import Authorization, Forbidden
from gateway.web.device_requests import NamedQuery
from gateway.web.requests import Query, Request, one_of
from gateway.web.routes import Created, Route


class NewTokenRequest(Request):
    """A token that is to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "panel", "role": "member"}]})

    name: str
    role: Role = "member"
    site: bool = False


class RevokeRequest(Request):
    """A token that is to be taken away, where the path does not say it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "1f0c5a7e9b3d2468"}]})

    id: str | None = None


class Token(TypedDict):
    """All that is known of a token, but for itself."""

    id: str
    name: str
    organization_id: str | None
    role: str
    created_at: str


class TokenShown(Token):
    """A new token, shown this once."""

    token: str


class TokenList(TypedDict):
    """Tokens."""

    tokens: list[Token]


class TokenRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        changes = self._authorization.changes
        yield Route("GET", "tokens", self.list, changes)
        yield Route("POST", "tokens", self.create, changes, (409,))
        yield Route("DELETE", "tokens", self.revoke_named, changes)
        yield Route("GET", "tokens/{id}", self.show, changes)
        yield Route("DELETE", "tokens/{id}", self.revoke, changes)

    async def list(self, who: Caller, query: Query) -> TokenList:
        """Return the tokens of the organisation, but not what they are.

        With a token of the site, those of everybody unless an organisation is named.
        """
        known = await self._known(who, everybodys=query.organization_id is None)
        return {"tokens": [_shown(one) for one in known.values()]}

    async def show(self, who: Caller, id: str) -> Token:  # noqa: A002 - its name in the path
        """Return one token, but not what it is."""
        return _shown(await self._one(who, id))

    async def create(self, who: Caller, body: NewTokenRequest) -> Created[TokenShown]:
        """Make a token, and show it this once."""
        if body.site:
            self._authorization.of_site(who)
        organization_id = None if body.site else who.organization_id
        _check_grant(who, organization_id, body.role)
        site = self._site.acting(who.actor)
        new = await create_token(site, name=body.name, organization_id=organization_id, role=body.role)
        answer: TokenShown = {**_shown(new), "token": new.token}
        return Created(answer)

    async def revoke(self, who: Caller, id: str, body: RevokeRequest) -> None:  # noqa: A002
        """Take a token away."""
        token = await self._one(who, one_of("token", id, body.id))
        _check_grant(who, token.organization_id, token.role)
        await revoke_token_by_id(self._site.acting(who.actor), token_id=token.id)

    async def revoke_named(self, who: Caller, query: NamedQuery, body: RevokeRequest) -> None:
        """Take away the token that the body or the query names."""
        await self.revoke(who, one_of("token", query.id, body.id), body)

    async def _one(self, caller: Caller, token_id: str) -> TokenDetails:
        token = (await self._known(caller, everybodys=True)).get(token_id)
        if token is None:
            raise no_token(token_id)
        return token

    async def _known(self, caller: Caller, *, everybodys: bool) -> dict[str, TokenDetails]:
        """Return the tokens of the organisation in which the caller acts; `everybodys` if they are of the site."""
        return {
            one.id: one
            for one in await list_tokens(self._site)
            if one.organization_id == caller.organization_id or (everybodys and caller.is_of_site)
        }


def _check_grant(caller: Caller, organization_id: str | None, role: Role) -> None:
    """Raise Forbidden where the caller would reach above themselves; who manages the site is above organisations."""
    is_above = caller.is_of_site and organization_id is not None
    if not (is_above or may_grant(caller.role, role)):
        raise Forbidden(
            f"A token of the role {caller.role} may neither make nor take away an owner's.", hint="Use one of an owner."
        )


def _shown(one: TokenDetails | NewToken) -> Token:
    return {
        "id": one.id,
        "name": one.name,
        "organization_id": one.organization_id,
        "role": one.role,
        "created_at": rfc3339(one.created_at_ms),
    }
