"""The OpenAPI 3.1 document, made from the very routes that are served: what is not declared is neither.

Its schemas are pydantic's, JSON Schema 2020-12, of the types that requests are read into and answers are written by.
Everything is there under `/api/v1`; `/functions/v1` answers the same, and is listed as well.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Literal

from pydantic import TypeAdapter

from gateway import __version__
from gateway.web.errors import Error
from gateway.web.requests import Query
from gateway.web.routes import (
    BEARER,
    CLIENT_CERTIFICATE,
    DEVICE_KEY,
    JSON,
    PIPELINE,
    SIGNATURE,
    Content,
    Route,
    Signature,
)

_Schema = dict[str, Any]
_Mode = Literal["validation", "serialization"]

_SCHEMES: dict[str, _Schema] = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "`neurogate token create` makes a token."},
    DEVICE_KEY: {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "A device's password, of `neurogate device add`. It may come as the bearer token as well.",
    },
    CLIENT_CERTIFICATE: {
        "type": "mutualTLS",
        "description": "A device's certificate (`neurogate certs issue`), over HTTPS; then no key is looked at.",
    },
    SIGNATURE: {
        "type": "apiKey",
        "in": "header",
        "name": "X-Webhook-Signature",
        "description": "`sha256=` and the HMAC-SHA256 of the body with `ingest.hook_secret`, in hex.",
    },
    PIPELINE: {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The `webhook_secret` of an integration.",
    },
}
_ERROR = ("", "error")
_RETRY_AFTER = {"description": "Seconds until it is worth another try.", "schema": {"type": "integer", "minimum": 0}}
_MAY_WAIT = (429, 503)


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document."""
    described = [_Described(route) for route in routes]
    schemas = _Schemas()
    for one in described:
        for key, mode, type_ in one.types():
            schemas.add((one.name, key), mode, type_)
    schemas.add(_ERROR, "serialization", Error)
    components = schemas.components()
    statuses = frozenset[int]().union(*(one.errors for one in described))
    paths: dict[str, Any] = {}
    for one in described:
        for path in one.route.paths:
            paths.setdefault(path, {})[one.route.method.lower()] = one.operation(path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "neurogate",
            "version": __version__,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            "description": "All that is under `/api/v1` answers under `/functions/v1`, too. A request whose body is"
            " larger than `http.max_body_bytes` or compressed, or that is no HTTP, is refused before any of this.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "responses": {str(status): _error(status, schemas) for status in sorted(statuses)},
            "securitySchemes": _SCHEMES,
        },
    }


class _Schemas:
    """Schemas of many types, which share their definitions."""

    def __init__(self) -> None:
        self._inputs: list[tuple[tuple[str, str], _Mode, TypeAdapter[Any]]] = []
        self._found: dict[tuple[tuple[str, str], _Mode], Any] = {}

    def add(self, key: tuple[str, str], mode: _Mode, type_: Any) -> None:  # noqa: ANN401 - a type
        self._inputs.append((key, mode, type_ if isinstance(type_, TypeAdapter) else TypeAdapter(type_)))

    def components(self) -> _Schema:
        """Work them out, and return those with a name."""
        self._found, document = TypeAdapter.json_schemas(self._inputs, ref_template="#/components/schemas/{model}")
        named: _Schema = document.get("$defs", {})
        return dict(sorted(named.items()))

    def of(self, key: tuple[str, str], mode: _Mode) -> _Schema:
        schema: _Schema = self._found[key, mode]
        return schema


class _Described:
    """One route's operation, as far as it is the same at all its paths."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.name = f"{route.method} {route.path}"
        self._signature = Signature.of(route)
        self.errors = self._signature.errors

    def types(self) -> Iterator[tuple[str, _Mode, Any]]:
        """Yield what needs a schema: a key, whether it comes or goes, and its type or adapter."""
        for content in self._signature.contents:
            yield content.media_type, "validation", content.type
        for status, body in self._signature.answers.items():
            if status != HTTPStatus.NO_CONTENT:
                yield str(status), "serialization", body.adapter
        for status, raw in self.route.answers.items():
            if raw.media_type is not None:
                yield str(status), "serialization", raw.type

    def operation(self, path: str, schemas: _Schemas) -> _Schema:
        route, signature = self.route, self._signature
        words = inspect.getdoc(route.handler) or ""
        summary, _, more = words.partition("\n")
        guard = route.guard
        who = "" if guard is None else f"For {guard.words}."
        operation: _Schema = {
            "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_"),
            "tags": [path.removeprefix("/api/v1").removeprefix("/functions/v1").split("/")[1]],
            "summary": summary.rstrip("."),
            "description": "\n\n".join(filter(None, (more.strip(), who))),
            "security": [] if guard is None else [{scheme: []} for scheme in guard.schemes],
            "responses": dict(sorted(dict(self._responses(schemas)).items())),
        }
        if parameters := [*self._parameters()]:
            operation["parameters"] = parameters
        if signature.takes_body:
            contents = {one.media_type: {"schema": self._body(one, schemas)} for one in signature.contents}
            operation["requestBody"] = {"required": signature.needs_body, "content": contents}
        return operation

    def _body(self, content: Content, schemas: _Schemas) -> _Schema:
        return schemas.of((self.name, content.media_type), "validation")

    def _parameters(self) -> Iterator[_Schema]:
        for name in self._signature.path:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        query = self._signature.query
        if query is None and self.route.guard is not None and self.route.guard.within is not None:
            query = Query
        if query is not None:
            schema = query.model_json_schema()
            for name, described in schema["properties"].items():
                is_required = name in schema.get("required", ())
                yield _without_none(described) | {"name": name, "in": "query", "required": is_required}

    def _responses(self, schemas: _Schemas) -> Iterator[tuple[str, _Schema]]:
        route, signature = self.route, self._signature
        for status in signature.errors:
            yield str(status), {"$ref": f"#/components/responses/{status}"}
        for status in signature.answers:
            content = (
                {} if status == HTTPStatus.NO_CONTENT else _json(schemas.of((self.name, str(status)), "serialization"))
            )
            if status in signature.errors:  # a status of its own, and the one of errors
                both = [content["content"][JSON]["schema"], schemas.of(_ERROR, "serialization")]
                content = _json({"anyOf": both})
            yield str(status), {"description": HTTPStatus(status).phrase} | content
        for status, raw in route.answers.items():
            content = {}
            if raw.media_type is not None:
                schema = schemas.of((self.name, str(status)), "serialization")
                content = {"content": {raw.media_type: {"schema": schema}}}
            yield str(status), {"description": raw.words} | content


def _json(schema: _Schema) -> _Schema:
    return {"content": {JSON: {"schema": schema}}}


def _error(status: int, schemas: _Schemas) -> _Schema:
    answer: _Schema = {"description": HTTPStatus(status).phrase} | _json(schemas.of(_ERROR, "serialization"))
    if status in _MAY_WAIT:
        answer["headers"] = {"Retry-After": _RETRY_AFTER}
    return answer


def _without_none(schema: _Schema) -> _Schema:
    """Return what a parameter is when it is there; its words stand beside its schema."""
    kept = {name: value for name, value in schema.items() if name not in ("title", "description", "anyOf")}
    if kept.get("default", ...) is None:
        del kept["default"]
    for one in schema.get("anyOf", ()):
        if one != {"type": "null"}:
            kept |= one
    words = [schema.get("description"), kept.pop("description", None)]
    description = " ".join(filter(None, words))
    return {"schema": kept} | ({"description": description} if description else {})
