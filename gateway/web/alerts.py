"""`alerts`: what somebody should look at; under `/api/v1` and `/functions/v1`.

- `GET alerts` `?state&kind&severity&limit&cursor`, the newest first; `GET alerts/{id}`
- `POST alerts/{id}/acknowledge`: somebody knows of it; `POST alerts/{id}/resolve`: it is done

Each organisation has its own. Those of the site (its certificates, the integrations of its configuration file) are for
tokens of the site, and for owners and admins of the gateway's own organisation.
"""

from collections.abc import Iterable

from pydantic import Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model.errors import NotFound
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.model.roles import may_change
from gateway.operations.alerts import acknowledge_alert, list_alerts, resolve_alert, show_alert
from gateway.operations.site import SharedSite
from gateway.storage.alerts import AlertRow, AlertState, Scope, Severity
from gateway.web.authorization import Authorization, whose
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query
from gateway.web.routes import Route

_AT_MOST = 1_000
_LONGEST_ID = 18


class AlertsQuery(Query):
    """Which alerts."""

    state: AlertState | None = Field(None, description="In this state only.")
    kind: str | None = Field(None, description="Of this kind only.", examples=["connection_failed"])
    severity: Severity | None = Field(None, description="Of this severity only.")
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before.")


class Alert(TypedDict):
    """What somebody should look at."""

    id: str
    organization_id: str | None
    kind: str
    severity: Severity
    subject: str
    message: str
    first_at: str
    last_at: str
    count: int
    state: AlertState
    acknowledged_by: str | None
    resolved_at: str | None


class Alerts(TypedDict):
    """One page of alerts."""

    alerts: list[Alert]
    next_cursor: str | None


class AlertRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        reads, changes = self._authorization.reads, self._authorization.changes
        yield Route("GET", "alerts", self.list, reads)
        yield Route("GET", "alerts/{id}", self.show, reads, (404,))
        yield Route("POST", "alerts/{id}/acknowledge", self.acknowledge, changes, (404, 409))
        yield Route("POST", "alerts/{id}/resolve", self.resolve, changes, (404,))

    async def list(self, who: Caller, query: AlertsQuery) -> Alerts:
        """Return one page of alerts, the newest first.

        With a token of the site, of everybody unless an organisation is named.
        """
        limit = min(query.limit, _AT_MOST)
        rows = await list_alerts(
            self._site,
            scope=self._scope(who, query),
            state=query.state,
            kind=query.kind,
            severity=query.severity,
            before_id=query.cursor,
            limit=limit + 1,
        )
        page = rows[:limit]
        return {
            "alerts": [_shown(one) for one in page],
            "next_cursor": str(page[-1].id) if len(rows) > limit else None,
        }

    async def show(self, who: Caller, id: str, query: Query) -> Alert:  # noqa: A002 - its name in the path
        """Return one alert."""
        return _shown(await show_alert(self._site, alert_id=_number(id), scope=self._scope(who, query)))

    async def acknowledge(self, who: Caller, id: str, query: Query) -> Alert:  # noqa: A002
        """Say that you know of it."""
        site = self._site.acting(who.actor)
        return _shown(await acknowledge_alert(site, alert_id=_number(id), scope=self._scope(who, query)))

    async def resolve(self, who: Caller, id: str, query: Query) -> Alert:  # noqa: A002
        """Say that it is done. One whose cause is still there opens again when that has been away."""
        site = self._site.acting(who.actor)
        return _shown(await resolve_alert(site, alert_id=_number(id), scope=self._scope(who, query)))

    def _scope(self, who: Caller, query: Query) -> Scope:
        if whose(who, query) is None:
            return Scope(everybodys=True)
        is_home = who.organization_id == self._site.settings.gateway.organization_id
        return Scope(who.organization_id, with_site=is_home and may_change(who.role))


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID:
        return int(text)
    raise NotFound(f"There is no alert {text[:50]!r}.", hint="GET alerts shows what there is.")


def _shown(one: AlertRow) -> Alert:
    return {
        "id": str(one.id),
        "organization_id": one.organization_id,
        "kind": one.kind,
        "severity": one.severity,
        "subject": one.subject,
        "message": one.message,
        "first_at": rfc3339(one.first_at_ms),
        "last_at": rfc3339(one.last_at_ms),
        "count": one.count,
        "state": one.state,
        "acknowledged_by": one.acknowledged_by,
        "resolved_at": rfc3339_or_null(one.resolved_at_ms),
    }
