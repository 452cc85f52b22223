"""`GET …/quarantine`: what came in and could not be used, and why; under `/api/v1` and `/functions/v1`.

The payload is what came, somebody's data: for those who may read readings. Each organisation sees its own; a token of
the site sees everybody's, or those of the organisation that it names.

- `device_id`, `code`: of that device, for that kind of reason only
- `limit`: in one page, 1,000 at most; `cursor`: the `next_cursor` of the page before, with the same question. There is
  more as long as there is a `next_cursor`, however little is in a page
"""

from collections.abc import Iterable

from pydantic import Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.operations.quarantine import ToldQuarantine, page_quarantine, told
from gateway.operations.site import SharedSite
from gateway.web.authorization import Authorization, whose
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query
from gateway.web.routes import Route

_AT_MOST = 1_000


class QuarantineQuery(Query):
    """Which of it."""

    device_id: str | None = Field(None, description="Of that device only.")
    code: str | None = Field(None, description="For that kind of reason only.", examples=["invalid_json"])
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before, with the same question.")


class QuarantineAnswer(TypedDict):
    """One page of it."""

    quarantine: list[ToldQuarantine]
    next_cursor: str | None


class Quarantine:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield Route("GET", "quarantine", self.get, self._authorization.reads, is_large=True)

    async def get(self, who: Caller, query: QuarantineQuery) -> QuarantineAnswer:
        """Return a page of what came in and could not be used, the newest first.

        With a token of the site, of everybody unless an organisation is named.
        """
        page = await page_quarantine(
            self._site,
            organization_id=whose(who, query),
            device_id=query.device_id or None,
            code=query.code or None,
            before=query.cursor,
            limit=min(query.limit, _AT_MOST),
        )
        next_cursor = None if page.before is None else str(page.before)
        return {"quarantine": [told(one) for one in page.found], "next_cursor": next_cursor}
