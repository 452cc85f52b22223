"""What a route is: one declaration, from which its registration, guard, validation and documentation are made.

The rest is told by the handler's own signature, so that mypy checks what the document says:

- `who`: what the route's guard has found out about who asks
- `query`, `body`: models that the request is read into; `body: Annotated[bytes, Content(…)]` is the bytes as they come
- parameters that the path names: text
- `request`: the request itself, for what none of these say
- what it returns: a body is answered with 200, `None` with 204, and `Created[…]`, `Mixed[…]` and the like with
  theirs. It is written by the schema that is documented: a field that is not in it does not leave. A
  `web.StreamResponse` is sent as it is, and its route says in `answers` what that is

Errors are raised, and all have one shape; `errors` names the statuses that not every route of its kind has.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

PREFIXES = ("/api/v1/", "/functions/v1/")
"""Of every path that does not begin with a slash: ours, and that of the platform which existing clients speak to."""

JSON = "application/json"

BEARER = "bearer"
DEVICE_KEY = "device_key"
CLIENT_CERTIFICATE = "client_certificate"
SIGNATURE = "signature"
PIPELINE = "pipeline"
"""Names of the ways to say who asks; `openapi.py` says what they are."""

_ALWAYS = (500, 503)
_WITH_A_GUARD = (401, 403, 429)
_WITH_AN_ORGANIZATION = (400, 404)
_WITH_A_BODY = (400, 408, 413, 415)
_WITH_A_QUERY = (400,)

_Body = TypeVar("_Body")
_Who = TypeVar("_Who")


@dataclass(slots=True, frozen=True)
class Answer(Generic[_Body]):
    """An answer whose status is not 200."""

    status: ClassVar[int]
    body: _Body


class Created(Answer[_Body]):
    """There is something new."""

    status = 201


class Accepted(Answer[_Body]):
    """It is on disk."""

    status = 202


class Mixed(Answer[_Body]):
    """Some of it was done, some not: the body says what."""

    status = 207


class Unavailable(Answer[_Body]):
    """It does not work, and the body says why."""

    status = 503


@dataclass(slots=True, frozen=True)
class Guard(Generic[_Who]):
    """Who may ask. `check` returns who asks, or raises."""

    check: Callable[[web.Request], Awaitable[_Who]]
    schemes: tuple[str, ...]
    """Names of security schemes (`openapi.py`), one of which is to be met."""
    words: str
    """Whom it lets in."""
    within: Callable[[_Who, str], _Who] | None = None
    """Returns who asks as they act in the organisation that the request names, in its query or its body, or raises."""


@dataclass(slots=True, frozen=True)
class Content:
    """How a body that is taken as bytes looks in one media type."""

    media_type: str
    type: Any


@dataclass(slots=True, frozen=True)
class RawAnswer:
    """What a handler answers by itself; without a media type it has no body."""

    words: str
    media_type: str | None = None
    type: Any = None


@dataclass(slots=True, frozen=True)
class Route:
    """See the module's own words. A path that begins with a slash is there once, any other under both prefixes."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Callable[..., Awaitable[Any]]
    guard: Guard[Any] | None = None
    """None: anybody."""
    errors: tuple[int, ...] = ()
    answers: Mapping[int, RawAnswer] = field(default_factory=dict)
    is_large: bool = False
    """Its answers may be: they are written by a thread, as the event loop is everybody's."""
    is_endless: bool = False
    """A WebSocket: it ends when one of the two has enough."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Where it is."""
        return (self.path,) if self.path.startswith("/") else tuple(prefix + self.path for prefix in PREFIXES)


class Routes(Protocol):
    """A group of routes."""

    def routes(self) -> Iterable[Route]:
        """Return them."""
        ...


class Typed:
    """A type and how it is read and written, which is worked out when first needed: few routes are asked in a day."""

    def __init__(self, type_: Any) -> None:  # noqa: ANN401 - a type
        self.type = type_

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Reads and writes it."""
        return TypeAdapter(self.type)


@dataclass(slots=True)
class Signature:
    """What a handler's signature says."""

    query: type[BaseModel] | None = None
    body: Typed | None = None
    """None as well for a body that is taken as bytes."""
    contents: tuple[Content, ...] = ()
    """How a body may look."""
    path: tuple[str, ...] = ()
    takes_who: bool = False
    takes_request: bool = False
    takes_body: bool = False
    answers: dict[int, Typed] = field(default_factory=dict)
    errors: frozenset[int] = frozenset()
    """Every status that an error of it has."""

    @classmethod
    def of(cls, route: Route) -> "Signature":
        """Read it. Raises TypeError for what is no route's."""
        hints = get_type_hints(route.handler, include_extras=True)
        found = cls()
        for name in inspect.signature(route.handler).parameters:
            if name == "who":
                found.takes_who = True
            elif name == "request":
                found.takes_request = True
            elif name == "query":
                found.query = hints[name]
            elif name == "body":
                found._read_body(hints[name])
            elif f"{{{name}}}" in route.path:
                found.path += (name,)
            else:
                msg = f"{route.method} {route.path}: nothing is known that {name} could be."
                raise TypeError(msg)
        if found.takes_who and route.guard is None:
            msg = f"{route.method} {route.path}: nobody finds out who asks."
            raise TypeError(msg)
        found._read_answers(hints["return"])
        found.errors = frozenset(
            (*_ALWAYS, *route.errors)
            + (_WITH_A_GUARD if route.guard is not None else ())
            + (_WITH_AN_ORGANIZATION if route.guard is not None and route.guard.within is not None else ())
            + (_WITH_A_BODY if found.takes_body else ())
            + (_WITH_A_QUERY if found.query is not None else ())
        )
        return found

    @property
    def needs_body(self) -> bool:
        """False when all of it may be left out: then there need not be one."""
        return self.takes_body and (self.body is None or not _may_be_empty(self.body.adapter))

    def _read_body(self, hint: Any) -> None:  # noqa: ANN401 - a type
        self.takes_body = True
        contents = tuple(one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Content))
        if contents:
            self.contents = contents
        else:
            self.body = Typed(hint)
            self.contents = (Content(JSON, hint),)

    def _read_answers(self, hint: Any) -> None:  # noqa: ANN401 - a type
        bodies: dict[int, list[Any]] = {}
        for one in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
            origin = get_origin(one) or one
            if isinstance(origin, type) and issubclass(origin, web.StreamResponse):
                continue
            if isinstance(origin, type) and issubclass(origin, Answer):
                bodies.setdefault(origin.status, []).append(get_args(one)[0])
            else:
                bodies.setdefault(204 if one is type(None) else 200, []).append(one)
        self.answers = {status: Typed(_union(types)) for status, types in bodies.items()}


def _may_be_empty(body: TypeAdapter[Any]) -> bool:
    try:
        body.validate_json(b"{}")
    except ValidationError:
        return False
    return True


def _union(types: list[Any]) -> Any:  # noqa: ANN401 - a type
    return Union[tuple(types)]  # noqa: UP007 - made of what is only known now
