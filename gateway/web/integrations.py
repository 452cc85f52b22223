"""`integrations`: where an organisation's readings and notifications go; under `/api/v1` and `/functions/v1`.

- `GET integrations` `?integration_type`, `GET integrations/{id}`: members too; those of the configuration file as well
- `POST integrations` `{integration_type, name, settings, …}`: 201
- `PATCH integrations/{id}` with what is to change; `DELETE integrations/{id}` (204). Both also without the id in the
  path, and with `id` in the body or the query. One of the file is changed there alone: 409
- `POST integrations/{id}/test` tries one as it is, `POST integrations/test` settings that are not kept
- `GET integrations/types`: which kinds there are, and the schema of each one's settings

What is secret goes in and never comes out: `secrets_set` says what there is. Settings are changed key by key; a secret
that is not named stays, and null takes it away.
"""

import asyncio
from collections.abc import Iterable

from cloud_sync.registry import class_of
from gateway.callers import Caller
from gateway.config.schema import fields_of
from gateway.model.errors import BadInput, ConfigError
from gateway.operations.integration_trials import try_settings
from gateway.operations.integrations import (
    IntegrationFields,
    add_integration,
    change_integration,
    integration_schemas,
    list_integrations,
    remove_integration,
    show_integration,
    try_integration,
)
from gateway.operations.site import SharedSite
from gateway.web import integration_answers as answers
from gateway.web.authorization import Authorization, whose
from gateway.web.device_requests import NamedQuery
from gateway.web.integration_columns import Settings, with_columns
from gateway.web.integration_requests import (
    Configured,
    IntegrationChanges,
    IntegrationsQuery,
    NamedIntegration,
    NewIntegration,
    Trial,
)
from gateway.web.requests import Query, one_of
from gateway.web.routes import Created, Route

_TESTS_AT_ONCE = 4


class IntegrationRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site
        self._tests = asyncio.Semaphore(_TESTS_AT_ONCE)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        reads, changes = self._authorization.reads, self._authorization.changes
        missing, taken = (404,), (400, 404, 409)
        yield Route("GET", "integrations", self.list, reads)
        yield Route("POST", "integrations", self.add, changes, (409,))
        yield Route("PATCH", "integrations", self.change_named, changes, taken)
        yield Route("DELETE", "integrations", self.remove_named, changes, taken)
        yield Route("GET", "integrations/types", self.types, reads)
        yield Route("POST", "integrations/test", self.try_settings, changes)
        yield Route("GET", "integrations/{id}", self.show, reads, missing)
        yield Route("PATCH", "integrations/{id}", self.change, changes, taken)
        yield Route("DELETE", "integrations/{id}", self.remove, changes, taken)
        yield Route("POST", "integrations/{id}/test", self.test, changes, missing)

    async def list(self, who: Caller, query: IntegrationsQuery) -> answers.IntegrationList:
        """Return the integrations of the organisation, and those of the configuration file that serve it.

        With a token of the site, those of all organisations unless one is named.
        """
        known = await list_integrations(self._site, organization_id=whose(who, query))
        wanted = query.integration_type
        return {"integrations": [answers.shown(one) for one in known if wanted in (None, one.integration_type)]}

    async def types(self, who: Caller) -> answers.IntegrationTypes:  # noqa: ARG002 - that they may is all it takes
        """Return which kinds of integrations there are, and the settings of each."""
        return {"types": [answers.type_shown(one) for one in await integration_schemas(self._site)]}

    async def show(self, who: Caller, id: str, query: Query) -> answers.Integration:  # noqa: A002 - as in the path
        """Return one integration; of what is secret, which there is."""
        scope = whose(who, query)
        return answers.shown(await show_integration(self._site, integration_id=id, organization_id=scope))

    async def add(self, who: Caller, body: NewIntegration) -> Created[answers.Integration]:
        """Add an integration, which begins at once."""
        settings, fields = _said(body, body.integration_type)
        new = await add_integration(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            integration_type=body.integration_type,
            name=body.name,
            settings=settings,
            fields=fields,
        )
        return Created(answers.shown(new))

    async def change(
        self,
        who: Caller,
        id: str,  # noqa: A002 - as in the path
        query: Query,
        body: IntegrationChanges,
    ) -> answers.Integration:
        """Change an integration: what is named, the rest stays. It takes effect at once, and on nothing else."""
        integration_id, scope = one_of("integration", id, body.id), whose(who, query, body)
        old = await show_integration(self._site, integration_id=integration_id, organization_id=scope)
        if body.integration_type not in (None, old.integration_type):
            raise BadInput(
                "invalid_request",
                f"integration_type: this one is of the type {old.integration_type}, and stays so.",
                hint="Add another integration, and remove this one.",
            )
        settings, fields = _said(body, old.integration_type)
        changed = await change_integration(
            self._site.acting(who.actor),
            integration_id=integration_id,
            organization_id=scope,
            name=body.name,
            settings=settings or None,
            fields=fields,
        )
        return answers.shown(changed)

    async def change_named(self, who: Caller, query: NamedQuery, body: IntegrationChanges) -> answers.Integration:
        """Change the integration that the body or the query names."""
        return await self.change(who, one_of("integration", query.id, body.id), query, body)

    async def remove(self, who: Caller, id: str, query: Query, body: NamedIntegration) -> None:  # noqa: A002
        """Remove an integration, with its place in the log and what it has refused."""
        integration_id, scope = one_of("integration", id, body.id), whose(who, query, body)
        site = self._site.acting(who.actor)
        await remove_integration(site, integration_id=integration_id, organization_id=scope)

    async def remove_named(self, who: Caller, query: NamedQuery, body: NamedIntegration) -> None:
        """Remove the integration that the body or the query names."""
        await self.remove(who, one_of("integration", query.id, body.id), query, body)

    async def test(self, who: Caller, id: str, query: Query, body: NamedIntegration) -> answers.Tested:  # noqa: A002
        """Connect, authenticate and say what is wrong, without sending anything that counts.

        One of the configuration file is tried with a token of the site.
        """
        integration_id, scope = one_of("integration", id, body.id), whose(who, query, body)
        one = await show_integration(self._site, integration_id=integration_id, organization_id=scope)
        if one.origin == "file":
            self._authorization.of_site(who)
        async with self._tests:
            found = await try_integration(self._site, integration_id=integration_id, organization_id=scope)
        return answers.tested(found)

    async def try_settings(self, who: Caller, body: Trial) -> answers.Tested:
        """Try settings that are not saved, and keep nothing of them."""
        settings, _ = _said(body, body.integration_type)
        async with self._tests:
            found = await try_settings(
                self._site,
                organization_id=who.organization_id,
                integration_type=body.integration_type,
                settings=settings,
            )
        return answers.tested(found)


def _said(body: Configured, integration_type: str) -> tuple[Settings, IntegrationFields]:
    """Return the settings, and the rest. Raises BadInput."""
    try:
        keys = frozenset(fields_of(class_of(integration_type).Config))
    except ConfigError as error:
        raise BadInput("invalid_request", error.message, hint=error.hint) from None
    settings, left = with_columns(body.configuration(), body.columns(), keys)
    return settings, body.fields(left)
