"""`GET …/activity-log`: who changed what, the newest first; under `/api/v1` and `/functions/v1`.

Of the token's organisation; a token of the site sees everybody's, or those of the organisation that it names.
`limit`: in one page, 1,000 at most; `cursor`: the `next_cursor` of the page before.
"""

from collections.abc import Iterable

from pydantic import Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model.reading import rfc3339
from gateway.model.wire import Json
from gateway.operations.activity import page_activity
from gateway.operations.site import Site
from gateway.storage.activity_log import ActivityRow
from gateway.web.authorization import Authorization, whose
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query
from gateway.web.routes import Route

_AT_MOST = 1_000


class ActivityQuery(Query):
    """Which page."""

    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before.")


class Change(TypedDict):
    """Who changed what. Of what was there before and after, it says what differs."""

    id: int
    at: str
    organization_id: str | None
    actor: str
    action: str
    subject: str
    before: dict[str, Json] | None
    after: dict[str, Json] | None


class Changes(TypedDict):
    """One page of changes."""

    activity: list[Change]
    next_cursor: str | None


class Activity:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: Site) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield Route("GET", "activity-log", self.get, self._authorization.reads)

    async def get(self, who: Caller, query: ActivityQuery) -> Changes:
        """Return a page of who changed what, the newest first.

        With a token of the site, of everybody unless an organisation is named.
        """
        limit = min(query.limit, _AT_MOST)
        rows = await page_activity(
            self._site,
            organization_id=who.organization_id,
            everybodys=whose(who, query) is None,
            before_id=query.cursor,
            limit=limit + 1,
        )
        page = rows[:limit]
        next_cursor = str(page[-1].id) if len(rows) > limit else None
        return {"activity": [_shown(one) for one in page], "next_cursor": next_cursor}


def _shown(one: ActivityRow) -> Change:
    return {
        "id": one.id,
        "at": rfc3339(one.at_ms),
        "organization_id": one.organization_id,
        "actor": one.actor,
        "action": one.action,
        "subject": one.subject,
        "before": one.before,
        "after": one.after,
    }
