"""`POST …/golioth-webhook`: a pipeline of Golioth hands in what its devices say; under `/api/v1` and `/functions/v1`.

Golioth signs nothing. Its pipeline shows a secret in `x-api-key`: the setting `webhook_secret` of an integration
`golioth`, and by it the request is of that integration's organisation. What it may send is in `parsers/golioth.py`.

- 200 when all of it is on disk, in quarantine too: what cannot be used would be handed in for ever. The headers are not
  more to be trusted than the body, so without `Ce-Source` it goes there as well
- 503 with Retry-After when the disk has not taken it: then it is to come again
- the same data of a device twice counts once, as long as the gateway runs and is not handed in more than it remembers:
  for good where the data says its time, else when it follows itself within 10 s, as a request does whose answer was
  lost. `boot_id` and `seq` of a reading count beyond a restart, as everywhere
- a device of Golioth speaks for itself alone, unless the integration's `webhook_gateways` names it: else one that is
  not to be trusted could tell what any device of the organisation measures
- what this gateway itself has sent to Golioth, and a pipeline hands back, is answered and left out
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Literal, NotRequired

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from gateway.access import Access
from gateway.clock import Clock
from gateway.ingest import Ingest, Verdict
from gateway.model.errors import BadInput
from gateway.parsers.golioth import Event, is_echo, parser_of, says_when
from gateway.parsers.standard import load_json
from gateway.web.authorization import Authorization, Forbidden, Unauthorized
from gateway.web.publishing import AsReading, as_reading
from gateway.web.routes import JSON, PIPELINE, Content, Guard, Route

_REMEMBERED = 10_000
_REMEMBERED_BYTES = 10_000_000
"""Of bodies: what is kept of one, an answer for each reading, is as large."""
_AGAIN_WITHIN_MS = 10_000
_EXAMPLE = {"temperature": 21.5, "ts": "2026-11-20T12:00:00Z"}
_Data = Annotated[
    Any, Field(description="What holds no reading goes to quarantine.", examples=[_EXAMPLE, [_EXAMPLE], 21.5])
]
_Raw = Annotated[str, Field(description="Goes to quarantine, unless it is JSON all the same.", examples=["warm"])]


@dataclass(slots=True, frozen=True)
class GoliothDoor:
    """An integration through which data comes in."""

    integration_id: str
    organization_id: str
    project_id: str | None
    """Of whose pipelines alone; None: of any."""
    secret: str = field(repr=False)
    gateways: Collection[str] = ()
    """Golioth's ids of devices that may speak for others."""


class GoliothAnswer(TypedDict):
    """What became of what was handed in."""

    status: Literal["accepted", "ignored"]
    repeated: NotRequired[Literal[True]]
    results: list[AsReading]
    """A reading each, in their order."""


@dataclass(slots=True)
class _HandedIn:
    digest: bytes
    size: int
    at_ms: int
    task: "asyncio.Task[list[Verdict]]"


_Name = tuple[str, str, str, bytes]
"""Integration, device, path, and the content where that says its time."""


class GoliothWebhook:
    """The route and its handler."""

    def __init__(
        self,
        authorization: Authorization,
        doors: Callable[[], Iterable[GoliothDoor]],
        access: Access,
        ingest: Ingest,
        clock: Clock,
        *,
        is_ours: Callable[[str], bool],
    ) -> None:
        """`is_ours` tells the ids of this gateway's own readings."""
        self._authorization = authorization
        self._doors = doors
        self._access = access
        self._ingest = ingest
        self._clock = clock
        self._is_ours = is_ours
        self._handed_in: OrderedDict[_Name, _HandedIn] = OrderedDict()
        self._remembered_bytes = 0

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        guard = Guard(self._door, (PIPELINE,), "a pipeline of Golioth, with an integration's `webhook_secret`")
        yield Route("POST", "golioth-webhook", self.post, guard)

    async def post(
        self,
        who: GoliothDoor,
        request: web.Request,
        body: Annotated[
            bytes,
            Content(JSON, _Data),
            Content("application/cbor", _Raw),
            Content("application/octet-stream", _Raw),
            Content("text/plain", _Raw),
        ],
    ) -> GoliothAnswer:
        """Take data in; answered when all of it is on disk."""
        event = Event(*(_header(request, name) for name in ("Ce-Source", "Ce-Subject", "Ce-Type")))
        value: Any = None
        with suppress(BadInput):
            value = load_json(body)
        if is_echo(value, self._is_ours):
            return {"status": "ignored", "results": []}
        digest, has_time, now_ms = sha256(body).digest(), says_when(value), self._clock.monotonic_ms()
        name = (who.integration_id, event.source, event.type, digest if has_time else b"")
        known = self._handed_in.get(name)
        if known is not None and known.digest == digest and (has_time or now_ms - known.at_ms <= _AGAIN_WITHIN_MS):
            return {**_answer(await asyncio.shield(known.task)), "repeated": True}
        task = asyncio.create_task(self._take(who, event, body))
        self._remember(name, _HandedIn(digest, len(body), now_ms, task))
        return _answer(await asyncio.shield(task))  # another request may wait for it, too

    async def _take(self, door: GoliothDoor, event: Event, body: bytes) -> list[Verdict]:
        parser = parser_of(event, self._is_ours)
        if event.source in door.gateways:
            routed = self._access.sent_within(door.organization_id, parser)
        else:
            routed = self._access.sent_for_itself(door.organization_id, parser, event.source)
        return await self._ingest.take_message(routed, body, source=f"golioth-webhook {event.source[:100]}".rstrip())

    async def _door(self, request: web.Request) -> GoliothDoor:
        """Return through which integration a request comes in."""
        shown = request.headers.get("x-api-key", "").encode(errors="surrogateescape")
        # Each is compared, whichever is right: how long that takes tells nothing.
        theirs = [door for door in self._doors() if hmac.compare_digest(door.secret.encode(), shown)]
        if not theirs:
            if shown:
                await self._authorization.wait_after_failure(request)
            raise Unauthorized(
                "The secret is missing, or no integration has it.",
                hint="Let the pipeline send the header x-api-key with the webhook_secret of an integration golioth.",
            )
        project_id = _header(request, "Ce-Subject")
        door = next((door for door in theirs if door.project_id in {None, project_id}), None)
        if door is None:
            raise Forbidden(
                "The integration with this secret is for another project.", hint="Correct its project_id, or add one."
            )
        self._authorization.take_turn(f"golioth {door.integration_id}")
        return door

    def _remember(self, name: _Name, one: _HandedIn) -> None:
        self._forget(name)
        self._handed_in[name] = one
        self._remembered_bytes += one.size
        while len(self._handed_in) > _REMEMBERED or self._remembered_bytes > _REMEMBERED_BYTES:
            self._forget(next(iter(self._handed_in)))
        one.task.add_done_callback(partial(self._forget_failed, name, one))

    def _forget_failed(self, name: _Name, one: _HandedIn, task: "asyncio.Task[list[Verdict]]") -> None:
        if (task.cancelled() or task.exception() is not None) and self._handed_in.get(name) is one:
            self._forget(name)

    def _forget(self, name: _Name) -> None:
        known = self._handed_in.pop(name, None)
        self._remembered_bytes -= 0 if known is None else known.size


def _header(request: web.Request, name: str) -> str:
    """Return a header; bytes that are no UTF-8 are question marks."""
    return request.headers.get(name, "").encode(errors="replace").decode()


def _answer(verdicts: list[Verdict]) -> GoliothAnswer:
    return {"status": "accepted", "results": [as_reading(verdict) for verdict in verdicts]}
