"""`/ws`: readings out as they are committed, and readings in, over one WebSocket. Text messages of JSON.

- who: `Authorization: Bearer …` or `x-api-key` with the request, or `{"type":"auth","token":…}` as the first message: a
  token (one of the site's is about the organisation in the query, `?organization_id=`, or the gateway's own), a
  device's password (then it is about that device), or a hub's
- out: after `{"type":"subscribe","filters":{"device_ids":[…],"sensors":[…]}}` come `{"type":"sensor-data","data":{…}}`;
  a client that reads too slowly gets `{"type":"missed","count":…}` for what it lost
- in: `{"type":"reading","data":{…},"ref":…}` is answered `{"type":"ack","ref":…}` when it is on disk, or with an error
- errors are `{"type":"error","ref":…,"error":{"code","message","hint"}}` and end nothing but a failed login; a fault of
  ours closes with 1011
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from gateway.access import Access, Device
from gateway.callers import Callers
from gateway.clock import Clock
from gateway.ingest import Ingest, worst
from gateway.live_feed import LiveFeed, Wanted
from gateway.login_delay import LoginDelay
from gateway.metrics import Metrics
from gateway.model.errors import BadInput, NeurogateError, error_document
from gateway.model.roles import may_hand_in, may_read
from gateway.parsers.standard import named_device
from gateway.rate_limit import RateLimits
from gateway.web.authorization import (
    Authorization,
    Forbidden,
    TooManyRequests,
    Unauthorized,
    bearer_token,
    wait_after_failure,
)
from gateway.web.routes import RawAnswer, Route

logger = logging.getLogger(__name__)

_AUTH_S = 10.0
_HEARTBEAT_S = 30.0
_STUCK_S = 30.0  # a client that reads nothing for so long is dropped
_SOCKETS_AT_MOST = 200  # that have logged in
_SOCKETS_OF_ONE = 20  # of one token or credential: it takes no place from the others; a dashboard has one a window
_STRANGERS_AT_MOST = 50  # that have not yet: they take no place from those who have
_LOOK_AT_LEAST_S = 0.05
_LOOK_EVERY_S = 60.0
_NO_ROOM = "There are as many connections as the gateway has room for."
_HINT = "The types are auth, subscribe, unsubscribe and reading."


class _Auth(BaseModel):
    type: Literal["auth"]
    token: str


class _Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    device_ids: list[str] = Field([], max_length=1_000)
    sensors: list[str] = Field([], max_length=100)


class _Subscribe(BaseModel):
    type: Literal["subscribe"]
    filters: _Filters = _Filters()


class _Unsubscribe(BaseModel):
    type: Literal["unsubscribe"]


class _Refers(BaseModel):
    ref: str | int | None = None


class _Reading(_Refers):
    type: Literal["reading"]
    data: dict[str, Any]


_Asked = _Auth | _Subscribe | _Unsubscribe | _Reading
_ASKED: TypeAdapter[_Asked] = TypeAdapter(Annotated[_Asked, Field(discriminator="type")])


@dataclass(slots=True, frozen=True)
class _Peer:
    """Who is at the other end."""

    name: str
    organization_id: str
    device: Device | None
    """The only one it is about; None when it is about all of the organisation."""
    may_watch: bool
    may_send: bool
    is_current: Callable[[], bool]
    expires_at_ms: int | None = None
    """When its token ends by itself."""


class NoRoom(NeurogateError):
    """All places are taken."""

    code = "service_unavailable"
    http_status = 503
    retry_after_s = 5


class TooManySockets(NeurogateError):
    """One more than a token or a credential may have open at once."""

    code = "too_many_sockets"
    http_status = 429


class Live:
    """The route and its handler."""

    def __init__(
        self,
        access: Access,
        callers: Callers,
        authorization: Authorization,
        ingest: Ingest,
        feed: LiveFeed,
        limits: RateLimits,
        delay: LoginDelay,
        clock: Clock,
        metrics: Metrics,
        *,
        max_message_bytes: int,
    ) -> None:
        self._access = access
        self._callers = callers
        self._authorization = authorization
        self._ingest = ingest
        self._feed = feed
        self._limits = limits
        self._delay = delay
        self._clock = clock
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._open: set[_Socket] = set()
        self._is_stopping = False
        access.on_change.append(self._drop_revoked)

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        switched = {101: RawAnswer("From here on the WebSocket is spoken.")}
        errors = (400, 401, 403, 404, 429)
        yield Route("GET", "/ws", self.serve, errors=errors, answers=switched, is_endless=True)

    async def stop(self) -> None:
        """End every connection, and let no new one begin."""
        self._is_stopping = True
        await self._close(list(self._open), WSCloseCode.GOING_AWAY, b"the gateway stops")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Speak over a WebSocket: readings out as they are committed, and readings in.

        A token or a device's password comes with the request, or as the first message: `{"type":"auth","token":…}`.
        """
        if self._is_stopping:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_S, compress=False, max_msg_size=self._max_message_bytes, timeout=1.0
        )
        if not socket.can_prepare(request):
            raise BadInput("not_a_websocket", "Only WebSockets are spoken here.", hint="Use ws:// and an upgrade.")
        secret = request.headers.get("x-api-key") or bearer_token(request)
        peer = await self._authenticate(secret, request) if secret else None
        if peer is not None:
            self._admit(peer)
        elif sum(one.peer is None for one in self._open) >= _STRANGERS_AT_MOST:
            raise NoRoom(_NO_ROOM, hint="Try again later.")
        await socket.prepare(request)
        one = _Socket(socket, request)
        one.peer = peer
        self._open.add(one)
        try:
            await one.guarded(self._talk(one))
        finally:
            self._open.discard(one)
        return socket

    def _admit(self, peer: _Peer) -> None:
        """Let one more in who has logged in. Raises TooManySockets and NoRoom."""
        known = [one.peer.name for one in self._open if one.peer is not None]
        if known.count(peer.name) >= _SOCKETS_OF_ONE:
            self._metrics.refused.labels("too_many_live_of_one").inc()
            raise TooManySockets(
                f"{_SOCKETS_OF_ONE} connections are open with this token or password.",
                hint="Close one, or give each application a token of its own.",
            )
        if len(known) >= _SOCKETS_AT_MOST:
            raise NoRoom(_NO_ROOM, hint="Close some, or try again later.")

    async def _talk(self, one: "_Socket") -> None:
        try:
            if one.peer is None:
                async with asyncio.timeout(_AUTH_S):
                    await self._log_in(one)
        except (TimeoutError, NeurogateError) as error:
            wrong = error if isinstance(error, NeurogateError) else _no_login()
            await one.fail(wrong)
            await one.close(WSCloseCode.POLICY_VIOLATION, b"not logged in")
            return
        peer = one.peer
        if peer is None:  # it has gone
            return
        over = None
        if peer.expires_at_ms is not None:
            over = asyncio.create_task(one.guarded(self._end_when_over(one, peer)))
        try:
            await self._serve(one, peer)
        finally:
            await _ended(over)

    async def _end_when_over(self, one: "_Socket", peer: _Peer) -> None:
        """End the connection when its token ends by itself."""
        while peer.is_current():
            left_s = ((peer.expires_at_ms or 0) - self._clock.now_ms()) / 1000
            await asyncio.sleep(min(max(left_s, _LOOK_AT_LEAST_S), _LOOK_EVERY_S))  # the clock may be set meanwhile
        await one.close(WSCloseCode.POLICY_VIOLATION, b"the token is over")

    async def _serve(self, one: "_Socket", peer: _Peer) -> None:
        with ExitStack() as following:
            sending: asyncio.Task[None] | None = None
            try:
                async for asked in one.asked():
                    if isinstance(asked, _Subscribe | _Unsubscribe):
                        await _ended(sending)
                        following.close()
                        sending = None
                    try:
                        if isinstance(asked, _Subscribe):
                            follower = following.enter_context(self._feed.follow(_wanted(peer, asked.filters)))
                            await one.say({"type": "subscribed", "filters": asked.filters.model_dump()})
                            sending = asyncio.create_task(one.guarded(one.send_all(follower.next)))
                        elif isinstance(asked, _Unsubscribe):
                            await one.say({"type": "unsubscribed"})
                        elif isinstance(asked, _Reading):
                            await self._take(one, peer, asked)
                        else:
                            raise BadInput(
                                "already_logged_in", "This connection has logged in.", hint="Open another one."
                            )
                    except NeurogateError as error:
                        await one.fail(error, asked.ref if isinstance(asked, _Reading) else None)
            finally:
                await _ended(sending)

    async def _log_in(self, one: "_Socket") -> None:
        async for asked in one.asked():
            if not isinstance(asked, _Auth):
                raise _no_login()
            peer = await self._authenticate(asked.token, one.request)
            self._admit(peer)
            one.peer = peer
            await one.say({"type": "authenticated", "organization_id": peer.organization_id})
            return

    async def _authenticate(self, secret: str, request: web.Request) -> _Peer:
        caller = self._callers.authenticate(secret)
        if caller is not None:
            caller = self._authorization.within_query(caller, request)
            return _Peer(
                caller.key,
                caller.organization_id,
                None,
                may_watch=may_read(caller.role),
                may_send=may_hand_in(caller.role),
                is_current=lambda: self._callers.is_current(caller),
                expires_at_ms=caller.expires_at_ms,
            )
        credential = self._access.authenticate_key(secret)
        if credential is not None and credential.organization_id is not None:
            return _Peer(
                credential.username,
                credential.organization_id,
                credential.device,
                may_watch=True,
                may_send=True,
                is_current=lambda: self._access.is_current(credential),
            )
        await wait_after_failure(self._delay, request)
        raise Unauthorized(
            "The token or password is wrong.",
            hint="neurogate token create makes a token, neurogate device add a device.",
        )

    async def _take(self, one: "_Socket", peer: _Peer, asked: _Reading) -> None:
        wait_s = self._limits.take(peer.name)
        if wait_s > 0:
            raise TooManyRequests(int(wait_s) + 1)
        device = await self._sender(peer, asked.data)
        verdict = worst(await self._ingest.take_document(device, to_json(asked.data), source="ws"))
        if not verdict.stored:
            raise BadInput(verdict.code, verdict.message, hint=verdict.hint)
        await one.say({"type": "ack", "ref": asked.ref})

    async def _sender(self, peer: _Peer, data: dict[str, Any]) -> Device:
        if not peer.may_send:
            raise Forbidden("This token may not send readings.", hint="Use a device's password.")
        if peer.device is not None:
            return peer.device
        try:
            device_id = named_device(data)
        except BadInput as error:
            await self._ingest.refuse(peer.organization_id, to_json(data), error, source="ws")
            raise
        return self._access.devices.heard(peer.organization_id, device_id)

    async def _drop_revoked(self) -> None:
        gone = [one for one in self._open if one.peer is not None and not one.peer.is_current()]
        await self._close(gone, WSCloseCode.POLICY_VIOLATION, b"revoked")

    @staticmethod
    async def _close(sockets: "list[_Socket]", code: int, why: bytes) -> None:
        if sockets:
            await asyncio.wait([asyncio.ensure_future(one.close(code, why)) for one in sockets], timeout=2.0)


class _Socket:
    """One client's WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self.request = request
        self.peer: _Peer | None = None

    async def asked(self) -> AsyncIterator[_Asked]:
        """Yield what the client asks; what cannot be understood is answered here."""
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                await self.fail(BadInput("not_text", "Only text messages of JSON are understood.", hint=_HINT))
                continue
            try:
                yield _ASKED.validate_json(message.data)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"])) or "the message"
                wrong = BadInput("invalid_message", f"{where}: {first['msg']}.", hint=_HINT)
                await self.fail(wrong, _ref_in(message.data))

    async def send_all(self, next_message: Callable[[], Awaitable[tuple[int, bytes]]]) -> None:
        """Send what is followed, until it is cancelled."""
        while True:
            missed, message = await next_message()
            if missed:
                await self.say({"type": "missed", "count": missed})
            await self._send(message.decode())

    async def guarded(self, work: Awaitable[None]) -> None:
        """Do it; a fault of ours ends the connection as the protocol has it: an answer of HTTP would be no frame."""
        try:
            await work
        except ConnectionError:
            raise
        except Exception:
            logger.exception("a live client is dropped by a fault of ours")
            await self.close(WSCloseCode.INTERNAL_ERROR, b"a fault of the gateway's; see its log")

    async def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        await self._send(to_json(message).decode())

    async def fail(self, error: NeurogateError, ref: str | int | None = None) -> None:
        """Say what went wrong."""
        document = error_document(error.code, error.message, error.hint)
        await self.say({"type": "error", "ref": ref, **document})

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(_STUCK_S):
                await self._socket.send_str(text)
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
        except (ConnectionError, RuntimeError):  # it has gone; whoever reads from it notices
            pass

    async def close(self, code: int, why: bytes) -> None:
        """End it."""
        with suppress(ConnectionError):
            await self._socket.close(code=code, message=why)


def _wanted(peer: _Peer, filters: _Filters) -> Wanted:
    if not peer.may_watch:
        raise Forbidden("This token may not watch readings.", hint="Use one of a member, an admin or an owner.")
    devices = frozenset(filters.device_ids)
    if peer.device is not None:
        if devices - {peer.device.device_id}:
            raise Forbidden("A device may watch only itself.", hint="Use a token: neurogate token create.")
        devices = frozenset({peer.device.device_id})
    return Wanted(peer.organization_id, devices, frozenset(filters.sensors))


def _ref_in(text: str) -> str | int | None:
    """Return the `ref` of a message that cannot be understood otherwise, so that its sender knows which it is."""
    try:
        return _Refers.model_validate_json(text).ref
    except ValidationError:
        return None


def _no_login() -> Unauthorized:
    return Unauthorized(
        "The first message must be a login.",
        hint='Send {"type":"auth","token":"…"} within 10 s, or an Authorization header.',
    )


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
