"""From a request to its route's handler, and from what that returns to the answer: as the route declares it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from gateway.web.requests import read_body, read_query
from gateway.web.routes import JSON, Answer, Route, Signature


def handler_of(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return what aiohttp calls for a route."""
    signature = Signature.of(route)
    written = {status: _writer(adapter, in_a_thread=route.is_large) for status, adapter in signature.answers.items()}

    async def handle(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {name: request.match_info[name] for name in signature.path}
        who = None if route.guard is None else await route.guard.check(request)
        if signature.takes_who:
            arguments["who"] = who
        if signature.takes_request:
            arguments["request"] = request
        if signature.query is not None:
            arguments["query"] = read_query(signature.query, request.query)
        if signature.takes_body:
            body = await request.read()
            arguments["body"] = body if signature.body is None else read_body(signature.body, body, who)
        answer = await route.handler(**arguments)
        if isinstance(answer, web.StreamResponse):
            return answer
        if answer is None:
            return web.Response(status=204)
        status, content = (answer.status, answer.body) if isinstance(answer, Answer) else (200, answer)
        return web.Response(body=await written[status](content), status=status, content_type=JSON)

    return handle


def _writer(adapter: TypeAdapter[Any], *, in_a_thread: bool) -> Callable[[Any], Awaitable[bytes]]:
    """Return what writes a body by its schema: a field that is not in it does not leave."""

    async def write(body: Any) -> bytes:  # noqa: ANN401 - what the adapter's type says
        return await asyncio.to_thread(adapter.dump_json, body) if in_a_thread else adapter.dump_json(body)

    return write
