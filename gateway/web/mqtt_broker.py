"""`mqtt-broker`: publish, subscribe, test and credentials over HTTP, for programs that do not speak MQTT.

`POST …/mqtt-broker` with `{"operation": …}`, or `POST …/mqtt-hybrid/{operation}`; under `/api/v1` and `/functions/v1`.

- `publish` `messages: [{topic, payload, qos?, retain?}]`: 200 all published, 207 some, else the first error; each has
  its result, and what was published is on disk
- `subscribe` `topics, callback_url?`: 201; what matches from then on is kept, and POSTed to the callback, signed with
  the secret that is shown this once
- `test`: a real login and a message there and back
- `credentials` `action: create|list|rotate|revoke`: those of the organisation
- `GET …/subscriptions`, `DELETE …/subscriptions/{id}`, `GET …/messages?subscription_id&after&limit`
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from aiohttp import web
from pydantic_core import to_json

from gateway.callers import Caller
from gateway.model.errors import BadInput, NeurogateError, NotFound, error_document
from gateway.model.reading import rfc3339
from gateway.operations.credentials import (
    CredentialDetails,
    add_credential,
    list_credentials,
    revoke_credential,
    rotate_credential,
)
from gateway.operations.site import Site
from gateway.parsers.routes import ParserRoutes
from gateway.storage.mqtt_messages import MqttMessages
from gateway.storage.mqtt_subscriptions import SubscriptionRow
from gateway.web.authorization import Authorization
from gateway.web.mqtt_requests import (
    CredentialsRequest,
    Named,
    PublishRequest,
    SubscribeRequest,
    TestRequest,
)
from gateway.web.publishing import Publishes, as_reading
from gateway.web.requests import parsed, read

_PAGE = 100
_PAGE_AT_MOST = 1_000
_DIGITS = 19  # of a number that SQLite can hold


class CallbackState(Protocol):
    """How a callback does."""

    state: str
    delivered: int
    refused: int
    last_error: str


class Callbacks(Protocol):
    """What sends messages to callbacks."""

    def state(self, subscription_id: str) -> CallbackState:
        """Return how one does."""
        ...

    def secret_of(self, subscription_id: str) -> str:
        """Return what signs its messages."""
        ...

    def message_id(self, number: int) -> str:
        """Return a message's id in the world."""
        ...


class Tested(Protocol):
    """What came of a test."""

    @property
    def success(self) -> bool:
        """Whether it works."""
        ...

    @property
    def message(self) -> str:
        """What happened."""
        ...

    @property
    def round_trip_ms(self) -> float | None:
        """How long a message took there and back."""
        ...


class MqttBroker:
    """The routes and their handlers."""

    def __init__(
        self,
        authorization: Authorization,
        publish: Publishes,
        messages: MqttMessages,
        callbacks: Callbacks,
        test: Callable[[], Awaitable[Tested]],
        too_long: Callable[[str], str],
        site: Site,
    ) -> None:
        """`too_long` says what of a topic or a filter is too long, nothing when nothing is."""
        self._authorization = authorization
        self._publish_one = publish
        self._messages = messages
        self._callbacks = callbacks
        self._test_broker = test
        self._too_long = too_long
        self._site = site
        self._routes = ParserRoutes.of(site.settings)
        self._operations: dict[str, Callable[[Caller, bytes], Awaitable[web.Response]]] = {
            "publish": self._publish,
            "subscribe": self._subscribe,
            "test": self._test,
            "credentials": self._credentials,
        }

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        for prefix in ("/api/v1", "/functions/v1"):
            router.add_post(f"{prefix}/mqtt-broker", self.post)
            router.add_post(f"{prefix}/mqtt-hybrid/{{operation}}", self.post)
            router.add_get(f"{prefix}/mqtt-broker/subscriptions", self.list_subscriptions)
            router.add_delete(f"{prefix}/mqtt-broker/subscriptions/{{id}}", self.unsubscribe)
            router.add_get(f"{prefix}/mqtt-broker/messages", self.list_messages)

    async def post(self, request: web.Request) -> web.Response:
        """Carry out the operation that the path or the body names."""
        caller = self._authorization.changer(await self._authorization.reader(request))
        body = await request.read()
        told, name = request.match_info.get("operation"), read(Named, body).operation
        if told is not None and name not in {"", told}:
            raise BadInput("contradiction", f"The path says {told[:50]}, the body {name[:50]}.", hint="Leave one out.")
        name = told or name
        operation = self._operations.get(name)
        if operation is None:
            raise BadInput(
                "unknown_operation",
                f"There is no operation {name[:50]!r}." if name else "The operation is missing.",
                hint=f"Use one of: {', '.join(self._operations)}.",
            )
        return await operation(caller, body)

    async def _publish(self, caller: Caller, body: bytes) -> web.Response:
        asked = parsed(PublishRequest, body, caller)
        # Handed in together, in order: a commit each would take a hundred times as long.
        verdicts = await asyncio.gather(
            *(
                self._publish_one(caller.organization_id, one.topic, one.content, one.qos, retain=one.retain)
                for one in asked.messages
            ),
            return_exceptions=True,
        )
        results: list[dict[str, object]] = []
        failures: list[NeurogateError] = []
        for one, verdict in zip(asked.messages, verdicts, strict=True):
            if isinstance(verdict, NeurogateError):
                failures.append(verdict)
                document = error_document(verdict.code, verdict.message, verdict.hint)
                results.append({"topic": one.topic, "status": "refused", **document})
            elif isinstance(verdict, BaseException):
                raise verdict
            else:
                results.append({"topic": one.topic, "status": "published"} | as_reading(verdict))
        published = len(results) - len(failures)
        answer: dict[str, object] = {"published": published, "results": results}
        if not published:
            first = failures[0]
            answer |= error_document(first.code, first.message, first.hint)
        status = 200 if not failures else 207 if published else failures[0].http_status
        return web.json_response(answer, status=status)

    async def _subscribe(self, caller: Caller, body: bytes) -> web.Response:
        asked = parsed(SubscribeRequest, body, caller)
        rights = self._routes.rights_of(caller.organization_id, None)
        for topic_filter in asked.topics:
            if too := self._too_long(topic_filter):
                raise BadInput(
                    "invalid_topic",
                    f"The topic filter {topic_filter[:50]!r}… has {too}.",
                    hint="The bounds are mqtt.max_topic_levels and mqtt.max_topic_bytes.",
                )
            if not rights.may_subscribe(topic_filter):
                raise BadInput(
                    "foreign_topic",
                    f"{topic_filter[:200]!r} is no topic filter inside those of {caller.organization_id}.",
                    hint=f"Inside one of: {', '.join(rights.subscribe)}.",
                )
        url = None if asked.callback_url is None else str(asked.callback_url)
        row = await self._messages.subscribe(caller.organization_id, tuple(dict.fromkeys(asked.topics)), url)
        answer = self._details(row)
        if url is not None:
            answer["secret"] = self._callbacks.secret_of(row.id)
        return web.json_response(answer, status=201)

    async def _test(self, caller: Caller, body: bytes) -> web.Response:
        parsed(TestRequest, body, caller)
        tested = await self._test_broker()
        return web.json_response(
            {"success": tested.success, "message": tested.message, "round_trip_ms": tested.round_trip_ms}
        )

    async def _credentials(self, caller: Caller, body: bytes) -> web.Response:
        asked = parsed(CredentialsRequest, body, caller)
        organization_id, site = caller.organization_id, self._site
        own = {one.username: one for one in await list_credentials(site) if one.organization_id == organization_id}
        if asked.action == "list":
            return web.json_response({"credentials": [_shown(one) for one in own.values()]})
        if asked.action == "create":
            name = asked.username or f"{organization_id}-{secrets.token_hex(4)}"
            new = await add_credential(site, name=name, organization_id=organization_id)
            prefix = f"org_{organization_id}/devices/#"
            return web.json_response(
                {"username": new.username, "password": new.password, "topic_prefix": prefix}, status=201
            )
        if asked.username not in own:
            raise NotFound(
                f"There is no credential {(asked.username or '')[:50]!r}.", hint='"action": "list" shows what there is.'
            )
        if asked.action == "rotate":
            overlap_ms = round(asked.overlap_h * 3_600_000)
            new = await rotate_credential(site, username=asked.username, overlap_ms=overlap_ms)
            return web.json_response({"username": new.username, "password": new.password})
        await revoke_credential(site, username=asked.username)
        return web.json_response({"username": asked.username, "revoked": True})

    # Subscriptions

    async def list_subscriptions(self, request: web.Request) -> web.Response:
        """Return the organisation's subscriptions, and how their callbacks do."""
        caller = await self._authorization.reader(request)
        return web.json_response({"subscriptions": [self._details(row) for row in self._own(caller)]})

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """End a subscription."""
        caller = self._authorization.changer(await self._authorization.reader(request))
        await self._messages.unsubscribe(caller.organization_id, request.match_info["id"])
        return web.Response(status=204)

    async def list_messages(self, request: web.Request) -> web.Response:
        """Return kept messages of one subscription, oldest first, and where to go on."""
        caller = await self._authorization.reader(request)
        wanted = request.query.get("subscription_id", "")
        row = next((row for row in self._own(caller) if row.id == wanted), None)
        if row is None:
            raise NotFound(
                f"There is no subscription {wanted[:50]!r}.", hint="Name one: ?subscription_id=…; see subscriptions."
            )
        after = max(_number(request, "after", 0), row.start)
        limit = min(_number(request, "limit", _PAGE), _PAGE_AT_MOST)
        found, until = await self._messages.read(row, after, until=self._messages.newest, limit=limit)
        answer = {
            "messages": [message.on_the_wire(self._callbacks.message_id(message.id)) for message in found],
            "next": until,
            "missed": await self._messages.has_missed(caller.organization_id, after),
        }
        body = await asyncio.to_thread(to_json, answer)
        return web.Response(body=body, content_type="application/json")

    def _own(self, caller: Caller) -> Iterable[SubscriptionRow]:
        for row in self._messages.subscriptions.values():
            if row.organization_id == caller.organization_id:
                yield row

    def _details(self, row: SubscriptionRow) -> dict[str, Any]:
        details: dict[str, Any] = {
            "id": row.id,
            "organization_id": row.organization_id,
            "topics": list(row.topics),
            "callback_url": row.callback_url,
            "created_at": rfc3339(row.created_at_ms),
        }
        if row.callback_url is not None:
            state = self._callbacks.state(row.id)
            details["callback"] = {
                "state": state.state,
                "delivered": state.delivered,
                "refused": state.refused,
                "lost": self._messages.lost.get(row.id, 0),
                "last_error": state.last_error,
            }
        return details


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS):
        raise BadInput(
            "invalid_request", f"{name} is {text[:50]!r}, not a number.", hint="Leave it out, or correct it."
        )
    return int(text)


def _shown(one: CredentialDetails) -> dict[str, object]:
    return {
        "username": one.username,
        "device_id": one.device_id,
        "created_at": rfc3339(one.created_at_ms),
        "last_connected_at": None if one.last_connected_at_ms is None else rfc3339(one.last_connected_at_ms),
        "connections": one.connections,
        "refused_logins": one.refused_logins,
        "messages_in": one.messages_in,
    }
