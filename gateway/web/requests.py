"""What is asked: bodies and queries read into models, and only for the organisation of whoever asks."""

from typing import Any, TypeVar

from multidict import MultiMapping
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway.callers import Caller
from gateway.model.errors import BadInput
from gateway.web.authorization import Forbidden


class Request(BaseModel):
    """What every request may name, as those of the platform do; unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    organization_id: str | None = None


class Query(BaseModel):
    """The parameters behind the `?`; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


_Query = TypeVar("_Query", bound=BaseModel)


def read_body(model: TypeAdapter[Any], body: bytes, who: object) -> Any:  # noqa: ANN401 - what the model says
    """Read a body. Raises BadInput with its first fault, and Forbidden when it names another organisation.

    What was sent is not repeated, as it may be secret.
    """
    try:
        asked = model.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        code = "invalid_request"
        if first["type"].startswith("union_tag"):
            code = f"unknown_{first['ctx']['discriminator']}".replace("'", "")
        hint = "What it takes is at /api/openapi.json, and in the README."
        raise BadInput(code, f"{where}: {first['msg']}.", hint=hint) from None
    named = asked.organization_id if isinstance(asked, Request) else None
    if isinstance(who, Caller) and named not in (None, who.organization_id):
        raise Forbidden(f"The token is for {who.organization_id}.", hint="Leave organization_id out, or name that.")
    return asked


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
