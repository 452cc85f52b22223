"""`organizations`: which there are on this site; under `/api/v1` and `/functions/v1`. For tokens of the site alone.

- `GET organizations`; `POST organizations` `{id, name?}`: 201
- `GET`, `PATCH` `{name}` and `DELETE organizations/{id}`; the latter two also without it in the path, and with `id` in
  the body or the query. One that has devices, or of which anything is stored, stays: 409
"""

from collections.abc import Iterable

from pydantic import ConfigDict
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model.reading import rfc3339
from gateway.operations.organizations import (
    add_organization,
    list_organizations,
    remove_organization,
    rename_organization,
    show_organization,
)
from gateway.operations.site import SharedSite
from gateway.storage.organizations import OrganizationRow
from gateway.web.authorization import Authorization
from gateway.web.device_requests import NamedQuery
from gateway.web.requests import Request, one_of
from gateway.web.routes import Created, Route


class NewOrganization(Request):
    """An organisation that is to be added."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "acme", "name": "Acme Ltd."}]})

    id: str
    name: str = ""


class Renamed(Request):
    """An organisation that is to be called otherwise."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "alpha", "name": "Alpha Ltd."}]})

    id: str | None = None
    name: str


class Removed(Request):
    """An organisation that is to go, where the path does not say it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "acme"}]})

    id: str | None = None


class Organization(TypedDict):
    """An organisation."""

    id: str
    name: str
    devices: int
    created_at: str


class Organizations(TypedDict):
    """All of them."""

    organizations: list[Organization]


class OrganizationRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        manages = self._authorization.manages
        yield Route("GET", "organizations", self.list, manages)
        yield Route("POST", "organizations", self.add, manages, (409,))
        yield Route("PATCH", "organizations", self.rename_named, manages)
        yield Route("DELETE", "organizations", self.remove_named, manages, (409,))
        yield Route("GET", "organizations/{id}", self.show, manages)
        yield Route("PATCH", "organizations/{id}", self.rename, manages)
        yield Route("DELETE", "organizations/{id}", self.remove, manages, (409,))

    async def list(self, who: Caller) -> Organizations:  # noqa: ARG002 - that they may is all it takes
        """Return every organisation."""
        known = await list_organizations(self._site)
        return {"organizations": [_shown(one) for one in known]}

    async def show(self, who: Caller, id: str) -> Organization:  # noqa: A002, ARG002
        """Return one organisation."""
        return _shown(await show_organization(self._site, organization_id=id))

    async def add(self, who: Caller, body: NewOrganization) -> Created[Organization]:
        """Add an organisation."""
        new = await add_organization(self._site.acting(who.actor), organization_id=body.id, name=body.name)
        return Created(_shown(new))

    async def rename(self, who: Caller, id: str, body: Renamed) -> Organization:  # noqa: A002
        """Give an organisation another name; its id stays."""
        organization_id = one_of("organisation", id, body.id)
        one = await rename_organization(self._site.acting(who.actor), organization_id=organization_id, name=body.name)
        return _shown(one)

    async def rename_named(self, who: Caller, query: NamedQuery, body: Renamed) -> Organization:
        """Give another name to the organisation that the body or the query names."""
        return await self.rename(who, one_of("organisation", query.id, body.id), body)

    async def remove(self, who: Caller, id: str, body: Removed) -> None:  # noqa: A002
        """Take away an organisation that has no devices and of which nothing is stored, and its tokens."""
        organization_id = one_of("organisation", id, body.id)
        await remove_organization(self._site.acting(who.actor), organization_id=organization_id)

    async def remove_named(self, who: Caller, query: NamedQuery, body: Removed) -> None:
        """Take away the organisation that the body or the query names."""
        await self.remove(who, one_of("organisation", query.id, body.id), body)


def _shown(one: OrganizationRow) -> Organization:
    return {"id": one.id, "name": one.name, "devices": one.devices, "created_at": rfc3339(one.created_at_ms)}
