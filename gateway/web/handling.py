"""From a request to its route's handler, and from what that returns to the answer: as the route declares it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web

from gateway.model.errors import BadInput, NeurogateError
from gateway.web.requests import named_organization, read_body, read_query
from gateway.web.routes import JSON, Answer, Route, Signature, Typed

logger = logging.getLogger(__name__)


class UnreadBody(BadInput):
    """A body of a kind that is not read."""

    http_status = 415


def handler_of(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return what aiohttp calls for a route."""
    signature = Signature.of(route)
    written = {status: _writer(body, in_a_thread=route.is_large) for status, body in signature.answers.items()}

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            answer = await route.handler(**await _arguments(route, signature, request))
        except NeurogateError as error:
            if error.http_status not in signature.errors:
                logger.warning("the OpenAPI document lacks %d of %s %s", error.http_status, route.method, route.path)
            raise
        if isinstance(answer, web.StreamResponse):
            return answer
        if answer is None:
            return web.Response(status=204)
        status, content = (answer.status, answer.body) if isinstance(answer, Answer) else (200, answer)
        return web.Response(body=await written[status](content), status=status, content_type=JSON)

    return handle


async def _arguments(route: Route, signature: Signature, request: web.Request) -> dict[str, Any]:
    """Return what the handler is given; who asks is known before anything of theirs is read."""
    arguments: dict[str, Any] = {name: request.match_info[name] for name in signature.path}
    who = None if route.guard is None else await route.guard.check(request)
    if signature.takes_request:
        arguments["request"] = request
    if signature.query is not None:
        arguments["query"] = read_query(signature.query, request.query)
    if signature.takes_body:
        body = await _as_it_came(request)
        media_types = [one.media_type for one in signature.contents]
        if body and request.content_type not in media_types:
            words = "The body does not say that it is of a kind that is read here."
            raise UnreadBody("unsupported_media_type", words, hint=f"Content-Type: {', or '.join(media_types)}")
        arguments["body"] = body if signature.body is None else read_body(signature.body.adapter, body)
    if route.guard is not None and route.guard.within is not None:
        named = named_organization(request.query, arguments.get("body"))
        if named is not None:
            who = route.guard.within(who, named)
    if signature.takes_who:
        arguments["who"] = who
    return arguments


async def _as_it_came(request: web.Request) -> bytes:
    """Return the body. A compressed one is refused: a few bytes can become many, and what is signed are those."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnreadBody(
            "unsupported_encoding", "A body must come as it is.", hint="Send no Content-Encoding; gzip is not read."
        )
    return await request.read()


def _writer(type_: Typed, *, in_a_thread: bool) -> Callable[[Any], Awaitable[bytes]]:
    """Return what writes a body by its schema: a field that is not in it does not leave."""

    async def write(body: Any) -> bytes:  # noqa: ANN401 - what the adapter's type says
        dump = type_.adapter.dump_json
        return await asyncio.to_thread(dump, body) if in_a_thread else dump(body)

    return write
