"""`POST …/mqtt-listener`: a customer's broker with an HTTP hook hands in messages; under `/api/v1` and `/functions/v1`.

What it may send is in `parsers/broker_hook.py`. Messages are dealt with as if a hub of the organisation had published
them: the same topics, stored like any others. The answer comes when all of it is on disk:

- 200 all taken; 207 some refused, each with its result; else the first one's error. A reading that cannot be used is
  quarantined and counts as taken, or the broker would send it for ever. What is no message is quarantined and refused:
  a broker that has it wrong should hear so, and most hooks send nothing a second time
- 503 with Retry-After when the disk has not taken everything: then all of it is to come again. What has come already is
  known by `boot_id` and `seq` of the reading; by the broker's own `id` of the message, as long as the gateway runs

Who hands in shows a token (of the role device, admin or owner: its organisation's), or signs the body with
`ingest.hook_secret` (`X-Webhook-Signature: sha256=<hex HMAC-SHA256>`: the gateway's organisation).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, NotRequired

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from cloud_sync.signing import body_hmac
from gateway.ingest import Ingest, Verdict
from gateway.model.errors import BadInput, NeurogateError, StoreFailed
from gateway.parsers.broker_hook import HookBody, HookMessage, NoMessage, parse_hook
from gateway.web.authorization import Authorization, Unauthorized
from gateway.web.errors import AllRefused, ErrorWords, words_of
from gateway.web.publishing import AsReading, Publishes, as_reading
from gateway.web.requests import Query, named_organization
from gateway.web.routes import BEARER, JSON, SIGNATURE, Content, Guard, Mixed, Route

_REMEMBERED = 10_000
_SOURCE = "mqtt-listener"


class HookQuery(Query):
    """How payloads come."""

    encoding: Literal["plain", "base64"] = Field("plain", description="Of all payloads that are texts.")


class HookResult(AsReading):
    """What became of one message."""

    status: Literal["accepted", "refused", "ignored"]
    topic: NotRequired[str]
    repeated: NotRequired[Literal[True]]
    error: NotRequired[ErrorWords]


class HandedIn(TypedDict):
    """What became of all of them, in their order."""

    accepted: int
    results: list[HookResult]


@dataclass(slots=True, frozen=True)
class _Refused:
    """What was not taken."""

    error: NeurogateError
    is_kept: bool = False
    """Whether it is in quarantine."""


_Outcome = HookResult | _Refused
_Key = tuple[str, str, str, bytes]
"""Organisation, and a broker's id of a message."""


class MqttListener:
    """The route and its handler. With an empty `secret` nobody can sign."""

    def __init__(
        self, authorization: Authorization, publish: Publishes, ingest: Ingest, *, organization_id: str, secret: str
    ) -> None:
        self._authorization = authorization
        self._publish = publish
        self._ingest = ingest
        self._organization_id = organization_id
        self._secret = secret
        self._handed_in: OrderedDict[_Key, asyncio.Task[Verdict | None]] = OrderedDict()
        """What came with an id: it is on its way, or on disk."""

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        words = "a device's token, an admin's or an owner's; or whoever signs with `ingest.hook_secret`"
        guard = Guard(self._sender, (BEARER, SIGNATURE), words)
        yield Route("POST", "mqtt-listener", self.post, guard, (404,))

    async def post(
        self, who: str, query: HookQuery, body: Annotated[bytes, Content(JSON, HookBody)]
    ) -> HandedIn | Mixed[HandedIn]:
        """Take messages in; answered when all of it is on disk."""
        try:
            messages = parse_hook(body, is_base64=query.encoding == "base64")
        except BadInput as problem:
            await self._ingest.refuse(who, body, problem, source=_SOURCE)
            raise
        # All begin in their order and share commits; each is answered for when it is on disk.
        outcomes = await asyncio.gather(*(self._take(who, message) for message in messages))
        refused = [outcome.error for outcome in outcomes if isinstance(outcome, _Refused)]
        for error in refused:
            if isinstance(error, StoreFailed):
                raise error
        results = [_refusal(one) if isinstance(one, _Refused) else one for one in outcomes]
        answer: HandedIn = {"accepted": len(outcomes) - len(refused), "results": results}
        if not refused:
            return answer
        if not answer["accepted"]:
            raise AllRefused(refused[0], {**answer})
        return Mixed(answer)

    async def _sender(self, request: web.Request) -> str:
        """Return for which organisation a body is handed in."""
        signature = request.headers.get(body_hmac.HEADER)
        if signature is None:
            caller = await self._authorization.hands_in.check(request)
            named = named_organization(request.query, None)
            return (
                caller.organization_id if named is None else self._authorization.within(caller, named).organization_id
            )
        body = await request.read() if self._secret else b""
        if not self._secret or not body_hmac.verify(self._secret, signature, body):
            await self._authorization.wait_after_failure(request)
            raise Unauthorized(
                "The signature is wrong, or nothing is known that could be signed with.",
                hint="Sign the very bytes of the body with ingest.hook_secret, or send a token.",
            )
        self._authorization.take_turn("the hook's secret")
        return self._organization_id

    async def _take(self, organization_id: str, message: HookMessage | NoMessage | None) -> _Outcome:
        try:
            if message is None:
                return {"status": "ignored"}
            if isinstance(message, NoMessage):
                await self._ingest.refuse(organization_id, message.piece, message.problem, source=_SOURCE)
                return _Refused(message.problem, is_kept=True)
            shown: HookResult = {"topic": message.topic, "status": "accepted"}
            if not message.id:
                return {**shown, **as_reading(await self._published(organization_id, message))}
            # With what it says: some hooks give ids that are only one client's, or come again.
            key = (organization_id, message.id, message.topic, sha256(message.payload).digest())
            task = self._handed_in.get(key)
            is_repeated = task is not None
            if task is None:
                task = asyncio.create_task(self._published(organization_id, message))
                self._remember(key, task)
            verdict = await asyncio.shield(task)  # another request may wait for it, too
        except NeurogateError as error:
            return _Refused(error)
        if is_repeated:
            shown["repeated"] = True
        return {**shown, **as_reading(verdict)}

    def _published(self, organization_id: str, message: HookMessage) -> Coroutine[Any, Any, Verdict | None]:
        return self._publish(organization_id, message.topic, message.payload, message.qos, retain=message.retain)

    def _remember(self, key: _Key, task: asyncio.Task[Verdict | None]) -> None:
        self._handed_in[key] = task
        if len(self._handed_in) > _REMEMBERED:
            self._handed_in.popitem(last=False)
        task.add_done_callback(self._forget_failed(key))

    def _forget_failed(self, key: _Key) -> Callable[[asyncio.Task[Verdict | None]], None]:
        def done(task: asyncio.Task[Verdict | None]) -> None:
            if task.cancelled() or task.exception() is not None:
                self._handed_in.pop(key, None)

        return done


def _refusal(refused: _Refused) -> HookResult:
    said: HookResult = {"status": "refused", "error": words_of(refused.error)}
    if refused.is_kept:
        said["reading"] = "quarantined"
    return said
