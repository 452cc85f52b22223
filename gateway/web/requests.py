"""What is asked: bodies and queries read into models."""

from typing import Any, TypeVar

from multidict import MultiMapping
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway.model.errors import BadInput


class Request(BaseModel):
    """What every request may name, as those of the platform do; unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)  # a gateway starts without being asked

    organization_id: str | None = None


class Query(BaseModel):
    """The parameters behind the `?`; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    organization_id: str | None = Field(
        None, description="For tokens of the site: in which organisation; without it, the gateway's own."
    )


_Query = TypeVar("_Query", bound=BaseModel)


def read_body(model: TypeAdapter[Any], body: bytes) -> Any:  # noqa: ANN401 - what the model says
    """Read a body; none is an empty object. Raises BadInput with its first fault.

    What was sent is not repeated, as it may be secret.
    """
    try:
        return model.validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        code = "invalid_request"
        if first["type"].startswith("union_tag"):
            code = f"unknown_{first['ctx']['discriminator']}".replace("'", "")
        hint = "What it takes is at /api/openapi.json, and in gateway/web/README.md."
        raise BadInput(code, f"{where}: {first['msg']}.", hint=hint) from None


def named_organization(query: MultiMapping[str], body: object) -> str | None:
    """Return the organisation that a request names. Raises BadInput when it names several."""
    told = {*query.getall("organization_id", []), body.organization_id if isinstance(body, Request) else None} - {None}
    if len(told) > 1:
        raise BadInput("contradiction", "The request names more than one organisation.", hint="Name one.")
    return told.pop() if told else None


def one_of(what: str, *named: str | None) -> str:
    """Return the one `what` that a request names, in whichever of its places. Raises BadInput."""
    told = {one for one in named if one is not None}
    if len(told) > 1:
        raise BadInput("contradiction", f"The request names more than one {what}.", hint="Name one.")
    if not told:
        raise BadInput("invalid_request", "The id is missing.", hint="Name it in the path, the query or the body.")
    return told.pop()


def read_query(model: type[_Query], query: MultiMapping[str]) -> _Query:
    """Read a query. Raises BadInput with its first fault."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    for name in query:
        if len(query.getall(name)) > 1:
            raise _invalid(name, "stands there more than once", "Name one.")
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise _invalid(name, "is no parameter", f"Use {', '.join(names)}.") from None
        if first["type"] == "missing":
            raise _invalid(name, "is missing", "Add it.") from None
        what, hint = _words(first)
        raise _invalid(name, what, hint) from None


def _words(error: ErrorDetails) -> tuple[str, str]:
    said = f"is {str(error['input'])[:50]!r}"
    own = error.get("ctx", {})
    if error["type"] == "parameter":  # it has its own words (`parameters.py`)
        return f"{said}, {own['what']}", own["hint"]
    return f"{said}: {error['msg']}", "Leave it out, or correct it."


def _invalid(name: str, what: str, hint: str) -> BadInput:
    return BadInput("invalid_parameter", f"{name[:50]} {what}.", hint=hint)
