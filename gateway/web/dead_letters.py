"""`dead-letters`: readings that destinations refused; under `/api/v1` and `/functions/v1`.

- `GET dead-letters` `?destination&device_id&limit&cursor`: which, and why, the newest first; one that is refused again
  keeps its place. What a reading says is among the `readings`, under the same `id`, as long as the log has it
- `POST dead-letters/replay` `{destination, rows?}`: those go out again. Each stays until its destination has it

Each organisation has those of its own readings, also at destinations of the configuration file, which may serve
several. A token of the site has everybody's, or those of the organisation that it names.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.operations.dead_letters import ToldDeadLetter, page_dead_letters, request_replay, told
from gateway.operations.site import SharedSite
from gateway.web.authorization import Authorization, whose
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query, Request
from gateway.web.routes import Accepted, Route

_AT_MOST = 1_000


class DeadLettersQuery(Query):
    """Which of them."""

    destination: str | None = Field(None, description="Of that destination only: an integration's id.")
    device_id: str | None = Field(None, description="Of that device's readings only.")
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before, with the same question.")


class DeadLettersAnswer(TypedDict):
    """One page of them."""

    dead_letters: list[ToldDeadLetter]
    next_cursor: str | None


class ReplayRequest(Request):
    """What is to go out again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"destination": "building-api"}]})

    destination: str = Field(min_length=1, max_length=100, description="Which destination: an integration's id.")
    rows: list[Annotated[int, Field(ge=1, lt=10**18)]] | None = Field(
        None, min_length=1, max_length=1_000, description="Which `row`s; without it, all that the destination refused."
    )


class ReplayRequested(TypedDict):
    """It is on disk; `dead-letters` says what becomes of it."""

    destination: str
    requested: int
    """How many readings."""
    waits_for_integration: bool
    """Whether none that is active is the destination."""


class DeadLetterRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield Route("GET", "dead-letters", self.list, self._authorization.reads, is_large=True)
        yield Route("POST", "dead-letters/replay", self.replay, self._authorization.changes)

    async def list(self, who: Caller, query: DeadLettersQuery) -> DeadLettersAnswer:
        """Return a page of readings that destinations refused, the newest first.

        With a token of the site, of everybody unless an organisation is named.
        """
        page = await page_dead_letters(
            self._site,
            organization_id=whose(who, query),
            destination=query.destination or None,
            device_id=query.device_id or None,
            before=query.cursor,
            limit=min(query.limit, _AT_MOST),
        )
        next_cursor = None if page.before is None else str(page.before)
        return {"dead_letters": [told(one) for one in page.found], "next_cursor": next_cursor}

    async def replay(self, who: Caller, query: Query, body: ReplayRequest) -> Accepted[ReplayRequested]:
        """Ask that refused readings go out again; each stays until its destination has it.

        With a token of the site, everybody's unless an organisation is named.
        """
        asked = await request_replay(
            self._site.acting(who.actor),
            rows=body.rows or [],
            destination=body.destination,
            organization_id=whose(who, query, body),
        )
        waits = bool(asked.absent)
        return Accepted({"destination": body.destination, "requested": len(asked.keys), "waits_for_integration": waits})
