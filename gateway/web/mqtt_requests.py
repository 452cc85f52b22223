"""What `mqtt-broker` is asked, in the documented fields; unknown ones are refused."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, JsonValue, ValidationError
from pydantic_core import to_json

from gateway.callers import Caller
from gateway.model.errors import BadInput
from gateway.operations.devices import OVERLAP_MS
from gateway.web.authorization import Forbidden

MESSAGES_AT_ONCE = 100
"""That one request may publish."""
TOPICS_AT_ONCE = 50
"""Filters of one subscription."""


class Request(BaseModel):
    """What every operation may name: the platform's documents do, and there is one broker."""

    model_config = ConfigDict(extra="forbid")

    operation: str = ""
    organization_id: str | None = None
    integration_id: str | None = None


_Asked = TypeVar("_Asked", bound=Request)


class NewMessage(BaseModel):
    """A message to be published."""

    model_config = ConfigDict(extra="forbid")

    topic: str
    payload: JsonValue
    qos: Literal[0, 1, 2] = 0
    retain: bool = False

    @property
    def content(self) -> bytes:
        """A text as it is, nothing as an empty payload, anything else as JSON."""
        if self.payload is None:
            return b""
        return self.payload.encode() if isinstance(self.payload, str) else to_json(self.payload)


class PublishRequest(Request):
    """`publish`."""

    messages: list[NewMessage] = Field(min_length=1, max_length=MESSAGES_AT_ONCE)


def _without_credentials(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("it contains credentials; check the signature instead")
    return url


class SubscribeRequest(Request):
    """`subscribe`."""

    topics: list[str] = Field(min_length=1, max_length=TOPICS_AT_ONCE)
    callback_url: Annotated[HttpUrl, AfterValidator(_without_credentials)] | None = None


class TestRequest(Request):
    """`test`: nothing more."""


_Action = Literal["create", "list", "rotate", "revoke"]


class CredentialsRequest(Request):
    """`credentials`: whose, and what is to become of it."""

    action: _Action = "create"
    username: str | None = None
    overlap_h: float = Field(OVERLAP_MS / 3_600_000, ge=0, le=8_760)


class Named(BaseModel):
    """As much of a body as says what is asked."""

    operation: str = ""


_Model = TypeVar("_Model", bound=BaseModel)


def read(model: type[_Model], body: bytes) -> _Model:
    """Read a body. Raises BadInput with its first fault; what was sent is not repeated, as it may be secret."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BadInput("invalid_request", f"{where}: {first['msg']}.", hint="See the README, mqtt-broker.") from None


def parsed(model: type[_Asked], body: bytes, caller: Caller) -> _Asked:
    """Read a request. Raises BadInput, and Forbidden when it names another organisation than the token's."""
    asked = read(model, body)
    if asked.organization_id not in (None, caller.organization_id):
        raise Forbidden(f"The token is for {caller.organization_id}.", hint="Leave organization_id out, or name that.")
    return asked
