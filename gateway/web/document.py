"""`GET /api/openapi.json`: what this gateway answers to (`openapi.py`).

It tells no secret, but it asks for a token, of any role: without one only `/health` and `/ready` answer, and a stranger
need not learn what there is to be tried. Who has no token yet reads the README.
"""

from collections.abc import Iterable

from aiohttp import web
from pydantic_core import to_json

from gateway.web.authorization import Authorization
from gateway.web.openapi import openapi
from gateway.web.routes import JSON, RawAnswer, Route


class Document:
    """The route and its handler."""

    def __init__(self, authorization: Authorization) -> None:
        self._authorization = authorization
        self._document = b""

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        document = RawAnswer("This document.", JSON, dict[str, object])
        yield Route("GET", "/api/openapi.json", self.get, self._authorization.is_known, answers={200: document})

    def describe(self, routes: Iterable[Route]) -> None:
        """Write it; this route is one of them."""
        self._document = to_json(openapi(routes))

    async def get(self) -> web.Response:
        """Return the OpenAPI document of all that this gateway answers to."""
        return web.Response(body=self._document, content_type=JSON)
