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
from typing import Protocol, TypeAlias

from gateway.callers import Caller
from gateway.config.masking import without_tokens
from gateway.model.errors import BadInput, NeurogateError, NotFound
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.operations.credentials import (
    CredentialDetails,
    add_credential,
    list_credentials,
    revoke_credential,
    rotate_credential,
)
from gateway.operations.site import SharedSite
from gateway.parsers.routes import ParserRoutes
from gateway.storage.credentials import organization_username
from gateway.storage.mqtt_messages import MqttMessages
from gateway.storage.mqtt_subscriptions import SubscriptionRow
from gateway.web.authorization import Authorization
from gateway.web.errors import AllRefused, words_of
from gateway.web.mqtt_answers import (
    Credential,
    Credentials,
    MessageResult,
    Messages,
    NewCredential,
    NewPassword,
    NewSubscription,
    Published,
    Revoked,
    Subscriptions,
    TestResult,
)
from gateway.web.mqtt_requests import (
    AnyRequest,
    CredentialsRequest,
    MessagesQuery,
    PublishRequest,
    SubscribeRequest,
    TestRequest,
)
from gateway.web.publishing import Publishes, as_reading
from gateway.web.routes import Created, Mixed, Route

_PAGE_AT_MOST = 1_000

_Published: TypeAlias = Published | Mixed[Published]
_Subscribed: TypeAlias = Created[NewSubscription]
_Credentials: TypeAlias = Credentials | Created[NewCredential] | NewPassword | Revoked


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
        site: SharedSite,
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

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        changes, reads = self._authorization.changes, self._authorization.reads
        errors = (404, 409)
        yield Route("POST", "mqtt-broker", self.post, changes, errors)
        yield Route("POST", "mqtt-hybrid/publish", self.publish, changes)
        yield Route("POST", "mqtt-hybrid/subscribe", self.subscribe, changes)
        yield Route("POST", "mqtt-hybrid/test", self.test, changes)
        yield Route("POST", "mqtt-hybrid/credentials", self.credentials, changes, errors)
        yield Route("GET", "mqtt-broker/subscriptions", self.list_subscriptions, reads)
        yield Route("DELETE", "mqtt-broker/subscriptions/{id}", self.unsubscribe, changes, (404,))
        yield Route("GET", "mqtt-broker/messages", self.list_messages, reads, (404,), is_large=True)

    async def post(self, who: Caller, body: AnyRequest) -> _Published | _Subscribed | TestResult | _Credentials:
        """Carry out the operation that the body names."""
        match body:
            case PublishRequest():
                return await self.publish(who, body)
            case SubscribeRequest():
                return await self.subscribe(who, body)
            case TestRequest():
                return await self.test(body)
            case CredentialsRequest():
                return await self.credentials(who, body)

    async def publish(self, who: Caller, body: PublishRequest) -> _Published:
        """Publish messages; what was published is on disk."""
        # Handed in together, in order: a commit each would take a hundred times as long.
        verdicts = await asyncio.gather(
            *(
                self._publish_one(who.organization_id, one.topic, one.content, one.qos, retain=one.retain)
                for one in body.messages
            ),
            return_exceptions=True,
        )
        results: list[MessageResult] = []
        failures: list[NeurogateError] = []
        for one, verdict in zip(body.messages, verdicts, strict=True):
            if isinstance(verdict, NeurogateError):
                failures.append(verdict)
                results.append({"topic": one.topic, "status": "refused", "error": words_of(verdict)})
            elif isinstance(verdict, BaseException):
                raise verdict
            else:
                result: MessageResult = {"topic": one.topic, "status": "published"}
                results.append({**result, **as_reading(verdict)})
        answer: Published = {"published": len(results) - len(failures), "results": results}
        if not failures:
            return answer
        if not answer["published"]:
            raise AllRefused(failures[0], {**answer})
        return Mixed(answer)

    async def subscribe(self, who: Caller, body: SubscribeRequest) -> _Subscribed:
        """Keep what matches from now on, and POST it to the callback, if there is one."""
        rights = self._routes.rights_of(who.organization_id, None)
        for topic_filter in body.topics:
            if too := self._too_long(topic_filter):
                raise BadInput(
                    "invalid_topic",
                    f"The topic filter {topic_filter[:50]!r}… has {too}.",
                    hint="The bounds are mqtt.max_topic_levels and mqtt.max_topic_bytes.",
                )
            if not rights.may_subscribe(topic_filter):
                raise BadInput(
                    "foreign_topic",
                    f"{topic_filter[:200]!r} is no topic filter inside those of {who.organization_id}.",
                    hint=f"Inside one of: {', '.join(rights.subscribe)}.",
                )
        url = None if body.callback_url is None else str(body.callback_url)
        topics = tuple(dict.fromkeys(body.topics))
        row = await self._messages.subscribe(who.organization_id, topics, url, by=who.actor)
        answer = self._details(row)
        if url is not None:
            answer["secret"] = self._callbacks.secret_of(row.id)
        return Created(answer)

    async def test(self, body: TestRequest) -> TestResult:  # noqa: ARG002 - that it is one is all it says
        """Log in, and send a message there and back."""
        tested = await self._test_broker()
        return {"success": tested.success, "message": tested.message, "round_trip_ms": tested.round_trip_ms}

    async def credentials(self, who: Caller, body: CredentialsRequest) -> _Credentials:
        """Create, list, rotate or revoke credentials of the organisation."""
        organization_id, site = who.organization_id, self._site.acting(who.actor)
        own = {one.username: one for one in await list_credentials(site) if one.organization_id == organization_id}
        if body.action == "list":
            return {"credentials": [_shown(one) for one in own.values()]}
        if body.action == "create":
            name = body.username or secrets.token_hex(4)
            new = await add_credential(site, name=name, organization_id=organization_id)
            shown: NewCredential = {
                "username": new.username,
                "password": new.password,
                "topic_prefix": f"org_{organization_id}/devices/#",
            }
            return Created(shown)
        username = body.username or ""
        if username not in own:
            username = organization_username(organization_id, username)  # by the name that it was made with
        if username not in own:
            raise NotFound(
                f"There is no credential {(body.username or '')[:50]!r}.", hint='"action": "list" shows what there is.'
            )
        if body.action == "rotate":
            overlap_ms = round(body.overlap_h * 3_600_000)
            new = await rotate_credential(site, username=username, overlap_ms=overlap_ms)
            return {"username": new.username, "password": new.password}
        await revoke_credential(site, username=username)
        return {"username": username, "revoked": True}

    # Subscriptions

    async def list_subscriptions(self, who: Caller) -> Subscriptions:
        """Return the organisation's subscriptions, and how their callbacks do."""
        return {"subscriptions": [self._details(row) for row in self._own(who)]}

    async def unsubscribe(self, who: Caller, id: str) -> None:  # noqa: A002 - its name in the path
        """End a subscription."""
        await self._messages.unsubscribe(who.organization_id, id, by=who.actor)

    async def list_messages(self, who: Caller, query: MessagesQuery) -> Messages:
        """Return kept messages of one subscription, oldest first, and where to go on."""
        wanted = query.subscription_id
        row = next((row for row in self._own(who) if row.id == wanted), None)
        if row is None:
            raise NotFound(
                f"There is no subscription {wanted[:50]!r}.", hint="Name one: ?subscription_id=…; see subscriptions."
            )
        after = max(query.after, row.start)
        limit = min(query.limit, _PAGE_AT_MOST)
        found, until = await self._messages.read(row, after, until=self._messages.newest, limit=limit)
        return {
            "messages": [message.on_the_wire(self._callbacks.message_id(message.id)) for message in found],
            "next": until,
            "missed": await self._messages.has_missed(who.organization_id, after),
        }

    def _own(self, caller: Caller) -> Iterable[SubscriptionRow]:
        for row in self._messages.subscriptions.values():
            if row.organization_id == caller.organization_id:
                yield row

    def _details(self, row: SubscriptionRow) -> NewSubscription:
        details: NewSubscription = {
            "id": row.id,
            "organization_id": row.organization_id,
            "topics": list(row.topics),
            "callback_url": None if row.callback_url is None else without_tokens(row.callback_url),
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


def _shown(one: CredentialDetails) -> Credential:
    return {
        "username": one.username,
        "device_id": one.device_id,
        "created_at": rfc3339(one.created_at_ms),
        "last_connected_at": rfc3339_or_null(one.last_connected_at_ms),
        "connections": one.connections,
        "refused_logins": one.refused_logins,
        "messages_in": one.messages_in,
    }
