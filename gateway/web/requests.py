"""Bodies of requests: read into a model, and only for the organisation of whoever asks."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.callers import Caller
from gateway.model.errors import BadInput
from gateway.web.authorization import Forbidden


class Request(BaseModel):
    """What every request may name, as those of the platform do; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    organization_id: str | None = None


_Asked = TypeVar("_Asked", bound=Request)
_Model = TypeVar("_Model", bound=BaseModel)


def read(model: type[_Model], body: bytes) -> _Model:
    """Read a body. Raises BadInput with its first fault; what was sent is not repeated, as it may be secret."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BadInput("invalid_request", f"{where}: {first['msg']}.", hint="See the README.") from None


def parsed(model: type[_Asked], body: bytes, caller: Caller) -> _Asked:
    """Read a request. Raises BadInput, and Forbidden when it names another organisation than the token's."""
    asked = read(model, body)
    if asked.organization_id not in (None, caller.organization_id):
        raise Forbidden(f"The token is for {caller.organization_id}.", hint="Leave organization_id out, or name that.")
    return asked
