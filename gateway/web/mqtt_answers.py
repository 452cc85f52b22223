"""What `mqtt-broker` answers."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from gateway.storage.mqtt_messages import WireMessage
from gateway.web.errors import ErrorWords
from gateway.web.publishing import AsReading


class MessageResult(AsReading):
    """What became of one message."""

    topic: str
    status: Literal["published", "refused"]
    error: NotRequired[ErrorWords]


class Published(TypedDict):
    """What became of all of them, in their order."""

    published: int
    results: list[MessageResult]


class CallbackDetails(TypedDict):
    """How a callback does."""

    state: str
    delivered: int
    refused: int
    lost: int
    last_error: str


class Subscription(TypedDict):
    """A subscription."""

    id: str
    organization_id: str
    topics: list[str]
    callback_url: str | None
    created_at: str
    callback: NotRequired[CallbackDetails]


class NewSubscription(Subscription):
    """A subscription, and what signs its messages: shown this once."""

    secret: NotRequired[str]


class Subscriptions(TypedDict):
    """All of an organisation."""

    subscriptions: list[Subscription]


class Messages(TypedDict):
    """A page of messages, oldest first."""

    messages: list[WireMessage]
    next: int
    """What asks for the page after this one."""
    missed: bool
    """Whether some before these had to leave."""


class TestResult(TypedDict):
    """What came of a login and a message there and back."""

    success: bool
    message: str
    round_trip_ms: float | None


class Credential(TypedDict):
    """A credential of MQTT."""

    username: str
    device_id: str | None
    created_at: str
    last_connected_at: str | None
    connections: int
    refused_logins: int
    messages_in: int


class Credentials(TypedDict):
    """All of an organisation."""

    credentials: list[Credential]


class NewCredential(TypedDict):
    """A credential, and its password: shown this once."""

    username: str
    password: str
    topic_prefix: str


class NewPassword(TypedDict):
    """A new password: shown this once."""

    username: str
    password: str


class Revoked(TypedDict):
    """It is worth nothing any more."""

    username: str
    revoked: Literal[True]
