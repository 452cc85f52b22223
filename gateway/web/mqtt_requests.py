"""What `mqtt-broker` is asked, in the documented fields; unknown ones are refused."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, JsonValue, field_validator
from pydantic_core import to_json

from gateway.model.json_values import is_finite
from gateway.operations.devices import OVERLAP_MS
from gateway.web.parameters import RowNumber
from gateway.web.requests import Query, Request

MESSAGES_AT_ONCE = 100
"""That one request may publish."""
TOPICS_AT_ONCE = 50
"""Filters of one subscription."""


class BrokerRequest(Request):
    """What every operation may name: the platform's documents do, and there is one broker."""

    integration_id: str | None = None


class NewMessage(BaseModel):
    """A message to be published."""

    model_config = ConfigDict(extra="forbid", strict=True)

    topic: str
    payload: JsonValue
    qos: Literal[0, 1, 2] = 0
    retain: bool = False

    @field_validator("payload")
    @classmethod
    def _refuse_what_json_cannot_express(cls, value: JsonValue) -> JsonValue:
        if not is_finite(value):
            msg = "it holds a number too large to be one"
            raise ValueError(msg)
        return value

    @property
    def content(self) -> bytes:
        """A text as it is, nothing as an empty payload, anything else as JSON."""
        if self.payload is None:
            return b""
        return self.payload.encode() if isinstance(self.payload, str) else to_json(self.payload)


class PublishRequest(BrokerRequest):
    """`publish`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation": "publish",
                    "messages": [
                        {
                            "topic": "devices/esp32-kitchen/commands/1",
                            "payload": {"method": "reboot"},
                            "qos": 1,
                            "retain": False,
                        }
                    ],
                }
            ]
        }
    )

    operation: Literal["publish"] = "publish"
    messages: list[NewMessage] = Field(min_length=1, max_length=MESSAGES_AT_ONCE)


def _without_credentials(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("it contains credentials; check the signature instead")
    return url


class SubscribeRequest(BrokerRequest):
    """`subscribe`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation": "subscribe",
                    "topics": ["devices/+/telemetry"],
                    "callback_url": "https://app.example.com/mqtt",
                }
            ]
        }
    )

    operation: Literal["subscribe"] = "subscribe"
    topics: list[str] = Field(min_length=1, max_length=TOPICS_AT_ONCE)
    callback_url: Annotated[HttpUrl, AfterValidator(_without_credentials)] | None = None


class TestRequest(BrokerRequest):
    """`test`: nothing more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "test"}]})

    operation: Literal["test"] = "test"


_Action = Literal["create", "list", "rotate", "revoke"]


class CredentialsRequest(BrokerRequest):
    """`credentials`: whose, and what is to become of it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operation": "credentials", "action": "create", "username": "hub"}]}
    )

    operation: Literal["credentials"] = "credentials"
    action: _Action
    username: str | None = None
    overlap_h: float = Field(OVERLAP_MS / 3_600_000, ge=0, le=8_760)


AnyRequest = Annotated[
    PublishRequest | SubscribeRequest | TestRequest | CredentialsRequest, Field(discriminator="operation")
]
"""What is asked without an operation in the path."""


class MessagesQuery(Query):
    """Which kept messages."""

    subscription_id: str = Field("", description="Of this subscription.")
    after: RowNumber = Field(0, description="`next` of the page before.")
    limit: RowNumber = Field(100, description="In one page; 1,000 at most, however much is asked for.")
