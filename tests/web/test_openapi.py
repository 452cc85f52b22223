"""The OpenAPI document is valid, and it is what is served: no route without its operation, and the reverse."""

import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from gateway.web.handling import handler_of
from gateway.web.openapi import openapi
from gateway.web.routes import Created, Guard, Route, Signature
from tests.site import Site
from tests.web.api import asker

HOUSE = Path(__file__).parent.parent.parent
ROOMS = ("gateway", "cloud_sync")
PAGES = (HOUSE / "README.md", *sorted(page for room in ROOMS for page in (HOUSE / room).rglob("*.md")))
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)


async def document_of(site: Site) -> dict[str, Any]:
    status, document = await (await asker(site, "device")).get("/api/openapi.json")
    assert status == 200
    found: dict[str, Any] = document
    return found


def served(site: Site) -> set[tuple[str, str]]:
    """Return what aiohttp answers to; HEAD is GET without a body."""
    app = site.gateway._running.http._main._runner.app
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {(method, path) for method, path in routes if method != "HEAD"}


async def test_it_is_valid_and_whole(site: Site) -> None:
    document = await document_of(site)
    OpenAPIV31SpecValidator(document).validate()
    described = {(method.upper(), path) for path, one in document["paths"].items() for method in one}
    assert described == served(site)
    assert len(described) > 20
    ids = [operation["operationId"] for one in document["paths"].values() for operation in one.values()]
    assert len(ids) == len(set(ids))


async def test_a_device_may_show_its_certificate_where_it_hands_in_readings(site: Site) -> None:
    document = await document_of(site)
    schemes = document["components"]["securitySchemes"]
    ways = [
        schemes[name]["type"]
        for one in document["paths"]["/api/v1/sensor-data"]["post"]["security"]
        for name in one  # one of them is enough
    ]
    assert ways == ["apiKey", "http", "mutualTLS"]


async def test_every_error_is_of_one_shape(site: Site) -> None:
    document = await document_of(site)
    for answer in document["components"]["responses"].values():
        schema = answer["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}
    words = document["components"]["schemas"]["ErrorWords"]
    assert set(words["required"]) == {"code", "message", "hint"}


async def test_every_path_of_the_pages_is_in_it(site: Site) -> None:
    document = await document_of(site)
    named = set(re.findall(r"(/(?:api|functions)/v1/[\w/-]*\w)", TEXT))
    assert len(named) > 5
    templates = [re.sub(r"\{\w+\}", r"[^/]+", path) for path in document["paths"]]
    for path in named:
        assert any(re.fullmatch(template, path) for template in templates), path


async def test_every_body_of_the_pages_is_one_that_its_route_takes(site: Site) -> None:
    posted = [route for route in site.gateway._running.http._main.routes if route.method == "POST"]
    routes = {re.sub(r"\{\w+\}", r"[^/]+", path): route for route in posted for path in route.paths}
    one = r"^curl http://127\.0\.0\.1:8080(\S+)(?:(?!\n```|\ncurl ).)*?(?:-d|--json) '(.*?)'$"
    commands = re.findall(one, TEXT, re.MULTILINE | re.DOTALL)
    assert len(commands) > 8
    for path, body in commands:
        (route,) = (route for template, route in routes.items() if re.fullmatch(template, path))
        for content in Signature.of(route).contents[:1]:
            TypeAdapter(content.type).validate_json(body)


# A route of its own


class Wish(BaseModel):
    """What is wished for."""

    what: str


class Granted(TypedDict):
    """What there is now."""

    what: str


class Wishes:
    """A group of routes."""

    async def grant(self, who: str, body: Wish, id: str) -> Created[Granted]:  # noqa: A002, ARG002
        """Grant a wish.

        At once.
        """
        return Created({"what": body.what, "secret": "geheim"})  # type: ignore[typeddict-unknown-key]

    async def unknown(self, surprise: int) -> None:
        """Take what nobody gives."""

    async def anonymous(self, who: str) -> None:
        """Want to know who asks."""


async def somebody(_: web.Request) -> str:
    return "somebody"


ROUTE = Route("POST", "wishes/{id}", Wishes().grant, Guard(somebody, ("bearer",), "everybody"), errors=(404,))


def test_an_operation_comes_from_the_declaration_and_the_signature() -> None:
    document = openapi([ROUTE])
    assert set(document["paths"]) == {"/api/v1/wishes/{id}", "/functions/v1/wishes/{id}"}
    operation = document["paths"]["/api/v1/wishes/{id}"]["post"]
    assert (operation["summary"], operation["description"]) == ("Grant a wish", "At once.\n\nFor everybody.")
    assert operation["security"] == [{"bearer": []}]
    assert [(one["name"], one["in"]) for one in operation["parameters"]] == [("id", "path")]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Wish")
    assert operation["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/Granted")
    statuses = {"201", "400", "401", "403", "404", "408", "413", "415", "429", "500", "503"}
    assert set(operation["responses"]) == statuses
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.parametrize("handler", [Wishes().unknown, Wishes().anonymous])
def test_a_handler_that_wants_what_nobody_gives_is_refused_at_once(handler: Any) -> None:
    with pytest.raises(TypeError, match="POST wishes"):
        handler_of(Route("POST", "wishes", handler))


async def test_a_field_that_is_not_documented_does_not_leave() -> None:
    app = web.Application()
    app.router.add_post("/wishes/{id}", handler_of(ROUTE))
    async with TestClient(TestServer(app)) as client, client.post("/wishes/1", json={"what": "peace"}) as answer:
        assert (answer.status, await answer.json()) == (201, {"what": "peace"})
