"""`devices/{id}/commands`: tell a device what to do, and see what came of it; under `/api/v1` and `/functions/v1`.

- `POST` `{method, params?, timeout_s?, id?, wait?}`: 202 as soon as it is on disk; with `wait` 200 when there is a
  result, or 202 if there is none in the time that an answer may take. The same `id` again is the same command
- `GET` `?state&limit&cursor`, the newest first; `GET devices/{id}/commands/{command_id}`

Owners and admins send; a member sees, as everywhere: a command changes something, if not here. Who sent one stands in
it (`sent_by`) and not in the activity log, which many commands would empty of everything else.
"""

from collections.abc import Iterable

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model import command as model
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.model.wire import Json
from gateway.operations.commands import await_command, list_commands, send_command, show_command
from gateway.operations.site import SharedSite
from gateway.web.authorization import Authorization
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query, Request
from gateway.web.routes import Accepted, Route

_AT_MOST = 100
_SPARE_S = 5.0
"""Of the time in which an answer must be there."""


class CommandRequest(Request):
    """A command that is to be sent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"method": "identify", "params": {"seconds": 5}, "timeout_s": 30}]}
    )

    method: str = Field(description="What to do, as the device calls it.")
    params: dict[str, Json] = Field(default_factory=dict, description="What the method takes.")
    timeout_s: float = Field(30.0, ge=1, le=model.LONGEST_MS / 1000, description="How long its result is awaited.")
    id: str | None = Field(None, description="One of your own: sent again with it, it is the same command.")
    wait: bool = Field(default=False, description="Answer with the result, if it comes soon enough.")


class CommandsQuery(Query):
    """Which commands."""

    state: model.State | None = Field(None, description="In this state only.")
    limit: Above0 = Field(_AT_MOST, description="In one page; 100 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before.")


class Late(TypedDict):
    """What the device has said after the deadline."""

    state: model.Answered
    result: Json
    at: str


class Command(TypedDict):
    """A command, and what has become of it."""

    id: str
    organization_id: str
    device_id: str
    method: str
    params: dict[str, Json]
    state: model.State
    result: Json
    sent_by: str
    created_at: str
    deadline: str
    sent_at: str | None
    finished_at: str | None
    late: Late | None


class Commands(TypedDict):
    """One page of a device's commands."""

    commands: list[Command]
    next_cursor: str | None


class CommandRoutes:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site
        limit_s = site.settings.http.request_timeout_s
        self._patience_s = max(limit_s - _SPARE_S, limit_s / 2)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        reads, changes = self._authorization.reads, self._authorization.changes
        yield Route("POST", "devices/{id}/commands", self.send, changes, (404, 409))
        yield Route("GET", "devices/{id}/commands", self.list, reads, (404,))
        yield Route("GET", "devices/{id}/commands/{command_id}", self.show, reads, (404,))

    async def send(self, who: Caller, id: str, body: CommandRequest) -> Command | Accepted[Command]:  # noqa: A002
        """Send a command to a device; with `wait`, answer with what came of it."""
        site = self._site.acting(who.actor)
        command = await send_command(
            site,
            organization_id=who.organization_id,
            device_id=id,
            method=body.method,
            params=body.params,
            timeout_ms=round(body.timeout_s * 1000),
            command_id=body.id,
        )
        if body.wait:
            command = await await_command(site, command=command, timeout_s=self._patience_s)
        return Accepted(_shown(command)) if command.is_pending else _shown(command)

    async def list(self, who: Caller, id: str, query: CommandsQuery) -> Commands:  # noqa: A002
        """Return one page of a device's commands, the newest first."""
        limit = min(query.limit, _AT_MOST)
        rows = await list_commands(
            self._site,
            organization_id=who.organization_id,
            device_id=id,
            state=query.state,
            before=query.cursor,
            limit=limit + 1,
        )
        page = rows[:limit]
        next_cursor = str(page[-1].number) if len(rows) > limit else None
        return {"commands": [_shown(one) for one in page], "next_cursor": next_cursor}

    async def show(self, who: Caller, id: str, command_id: str) -> Command:  # noqa: A002
        """Return one command."""
        one = await show_command(self._site, organization_id=who.organization_id, device_id=id, command_id=command_id)
        return _shown(one)


def _shown(one: model.Command) -> Command:
    late: Late | None = None
    if one.late is not None:
        late = {"state": one.late.state, "result": one.late.result, "at": rfc3339(one.late.at_ms)}
    return {
        "id": one.id,
        "organization_id": one.organization_id,
        "device_id": one.device_id,
        "method": one.method,
        "params": one.params,
        "state": one.state,
        "result": one.result,
        "sent_by": one.actor,
        "created_at": rfc3339(one.created_at_ms),
        "deadline": rfc3339(one.deadline_ms),
        "sent_at": rfc3339_or_null(one.sent_at_ms),
        "finished_at": rfc3339_or_null(one.finished_at_ms),
        "late": late,
    }
