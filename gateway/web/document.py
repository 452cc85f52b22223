"""`GET /api/openapi.json`: what this gateway answers to (`openapi.py`).

It tells no secret, but it asks for a token, of any role: without one only `/health` and `/ready` answer, and a stranger
need not learn what there is to be tried. Who has no token yet reads the README.
"""

import asyncio
from collections.abc import Iterable
from functools import cached_property

from aiohttp import web
from pydantic_core import to_json

from gateway.web.authorization import Authorization
from gateway.web.openapi import openapi
from gateway.web.routes import JSON, RawAnswer, Route


class Document:
    """The route and its handler."""

    def __init__(self, authorization: Authorization) -> None:
        self._authorization = authorization
        self._routes: Iterable[Route] = ()
        self._writing = asyncio.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        document = RawAnswer("This document.", JSON, dict[str, object])
        yield Route("GET", "/api/openapi.json", self.get, self._authorization.is_known, answers={200: document})

    def describe(self, routes: Iterable[Route]) -> None:
        """Say what it describes; this route is one of them."""
        self._routes = routes

    @cached_property
    def _document(self) -> bytes:
        """Most of a gateway's start would go into it, and few ask for it."""
        return to_json(openapi(self._routes))

    async def get(self) -> web.Response:
        """Return the OpenAPI document of all that this gateway answers to."""
        async with self._writing:
            document = await asyncio.to_thread(lambda: self._document)
        return web.Response(body=document, content_type=JSON)
