"""`POST …/mqtt-listener`: a customer's broker with an HTTP hook hands in messages; under `/api/v1` and `/functions/v1`.

What it may send is in `parsers/broker_hook.py`. Messages are dealt with as if a hub of the organisation had published
them: the same topics, stored like any others. The answer comes when all of it is on disk:

- 200 all taken; 207 some refused, each with its result; else the first one's error. A reading that cannot be used is
  quarantined and counts as taken, or the broker would send it for ever
- 503 with Retry-After when the disk has not taken everything: then all of it is to come again. What has come already is
  known by `boot_id` and `seq` of the reading; by the broker's own `id` of the message, as long as the gateway runs

Who hands in shows a token (of the role device, admin or owner: its organisation's), or signs the body with
`ingest.hook_secret` (`X-Webhook-Signature: sha256=<hex HMAC-SHA256>`: the gateway's organisation).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any

from aiohttp import web

from cloud_sync.signing import body_hmac
from gateway.ingest import Verdict
from gateway.model.errors import BadInput, NeurogateError, StoreFailed, error_document
from gateway.parsers.broker_hook import HookMessage, parse_hook
from gateway.web.authorization import Authorization, Unauthorized
from gateway.web.publishing import Publishes, as_reading

_REMEMBERED = 10_000

_Outcome = dict[str, Any] | NeurogateError
_Key = tuple[str, str, str, bytes]
"""Organisation, and a broker's id of a message."""


class MqttListener:
    """The route and its handler. With an empty `secret` nobody can sign."""

    def __init__(self, authorization: Authorization, publish: Publishes, *, organization_id: str, secret: str) -> None:
        self._authorization = authorization
        self._publish = publish
        self._organization_id = organization_id
        self._secret = secret
        self._handed_in: OrderedDict[_Key, asyncio.Task[Verdict | None]] = OrderedDict()
        """What came with an id: it is on its way, or on disk."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the route."""
        for prefix in ("/api/v1", "/functions/v1"):
            router.add_post(f"{prefix}/mqtt-listener", self.post)

    async def post(self, request: web.Request) -> web.Response:
        """Take messages in."""
        organization_id, body = await self._sender(request)
        encoding = request.query.get("encoding", "plain")
        if encoding not in ("plain", "base64"):
            raise BadInput("invalid_parameter", f"encoding is {encoding[:50]!r}.", hint="Use plain or base64.")
        messages = parse_hook(body, is_base64=encoding == "base64")
        # All begin in their order and share commits; each is answered for when it is on disk.
        outcomes = await asyncio.gather(*(self._take(organization_id, message) for message in messages))
        for outcome in outcomes:
            if isinstance(outcome, StoreFailed):
                raise outcome
        refused = [outcome for outcome in outcomes if isinstance(outcome, NeurogateError)]
        results = [_refusal(one) if isinstance(one, NeurogateError) else one for one in outcomes]
        answer: dict[str, Any] = {"accepted": len(outcomes) - len(refused), "results": results}
        if len(refused) < len(outcomes):
            return web.json_response(answer, status=207 if refused else 200)
        first = refused[0]
        return web.json_response(
            answer | error_document(first.code, first.message, first.hint), status=first.http_status
        )

    async def _sender(self, request: web.Request) -> tuple[str, bytes]:
        """Return for which organisation a body is handed in, and the body."""
        signature = request.headers.get(body_hmac.HEADER)
        if signature is None:
            caller = await self._authorization.hands_in(request)
            return caller.organization_id, await request.read()
        body = await request.read() if self._secret else b""
        if not self._secret or not body_hmac.verify(self._secret, signature, body):
            await self._authorization.wait_after_failure(request)
            raise Unauthorized(
                "The signature is wrong, or nothing is known that could be signed with.",
                hint="Sign the very bytes of the body with ingest.hook_secret, or send a token.",
            )
        self._authorization.take_turn("the hook's secret")
        return self._organization_id, body

    async def _take(self, organization_id: str, message: HookMessage | None) -> _Outcome:
        if message is None:
            return {"status": "ignored"}
        shown = {"topic": message.topic, "status": "accepted"}
        try:
            if not message.id:
                return shown | as_reading(await self._published(organization_id, message))
            # With what it says: some hooks give ids that are only one client's, or come again.
            key = (organization_id, message.id, message.topic, sha256(message.payload).digest())
            task = self._handed_in.get(key)
            is_repeated = task is not None
            if task is None:
                task = asyncio.create_task(self._published(organization_id, message))
                self._remember(key, task)
            verdict = await asyncio.shield(task)  # another request may wait for it, too
        except NeurogateError as error:
            return error
        return shown | as_reading(verdict) | ({"repeated": True} if is_repeated else {})

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


def _refusal(error: NeurogateError) -> dict[str, Any]:
    return {"status": "refused", **error_document(error.code, error.message, error.hint)}
