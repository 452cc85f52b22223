"""What a customer's MQTT broker POSTs of the messages that it has: one JSON object, a list, or `{"messages": […]}`.

- EMQX 4, plugin `emqx_web_hook`: `{"action": "message_publish", "topic", "payload", "qos", "retain", …}`
  (apps/emqx_web_hook/README.md of EMQX 4)
- EMQX 5, a rule with an HTTP action and no body of its own: `{"event": "message.publish", "id", "topic", "payload",
  "qos", "flags": {"retain", "dup"}, …}` (`eventmsg_publish` in emqx_rule_events.erl)
- anything else that has a `topic` and a `payload`, for example of a HiveMQ extension: `qos`, `retain`, `id` and
  `encoding` if need be

Other events of a broker, also those that repeat a message (delivered, acknowledged, dropped), are no messages. A
payload that is a text is taken as it is, or by base64 if that is said; anything else is its JSON.
"""

import binascii
from base64 import b64decode
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, WithJsonSchema
from pydantic_core import to_json

from gateway.model.errors import BadInput
from gateway.parsers.standard import explain, load_json

MESSAGES_AT_ONCE = 1_000

_PUBLISHED = frozenset({"message_publish", "message.publish"})


class HookMessage(NamedTuple):
    """One message that a broker hands on."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    id: str
    """What the broker calls it: the same when it is handed on again. Empty when it has no name."""


class NoMessage(NamedTuple):
    """What stands where a message should, and cannot be used."""

    problem: BadInput
    piece: bytes
    """All that came of it: the whole body when there is nothing else in that."""


_Flag = Annotated[bool, WithJsonSchema({"type": ["boolean", "integer", "string"]})]
"""Brokers say it in their own ways: true, 1, "true"."""


class HookFlags(BaseModel):
    """Of a message, as EMQX 5 has them."""

    retain: _Flag = False


class PostedMessage(BaseModel):
    """The fields that we read; brokers send many more."""

    topic: str
    payload: JsonValue
    qos: Literal[0, 1, 2] = 0
    retain: _Flag = False
    flags: HookFlags = HookFlags()
    id: str = Field("", max_length=200)
    encoding: Literal["plain", "base64"] = "plain"


class HookEvent(BaseModel):
    """Another event of a broker: answered, and ignored."""

    model_config = ConfigDict(extra="allow")

    event: str


class HookMessages(BaseModel):
    """Several at once."""

    messages: list[PostedMessage] = Field(min_length=1, max_length=MESSAGES_AT_ONCE)


_EXAMPLE = {
    "event": "message.publish",
    "id": "0005F8F84FFFAFB9F44200000D810002",
    "topic": "devices/esp32-kitchen/telemetry",
    "payload": '{"device_id": "esp32-kitchen", "sensors": {"pir": {"motion_detected": true}}}',
    "qos": 1,
}
HookBody = Annotated[
    PostedMessage
    | HookEvent
    | HookMessages
    | Annotated[list[PostedMessage], Field(min_length=1, max_length=MESSAGES_AT_ONCE)],
    Field(examples=[_EXAMPLE]),
]
"""What a body looks like, for its documentation: `parse_hook` reads it."""


def parse_hook(body: bytes, *, is_base64: bool = False) -> list[HookMessage | NoMessage | None]:
    """Read a body; None stands for another event. Raises BadInput for a whole body.

    `is_base64`: all payloads are in base64, as EMQX 4 sends them with `encode_payload` without saying so.
    """
    document = load_json(body)
    if isinstance(document, dict) and isinstance(document.get("messages"), list):
        document = document["messages"]
    if not isinstance(document, list):
        return [_message(document, is_base64, body)]
    if not 0 < len(document) <= MESSAGES_AT_ONCE:
        raise BadInput(
            "no_messages" if not document else "too_many_messages",
            f"There are {len(document)} messages in the body.",
            hint=f"Send 1 to {MESSAGES_AT_ONCE}.",
        )
    return [_message(value, is_base64, None) for value in document]


def _message(value: object, is_base64: bool, whole: bytes | None) -> HookMessage | NoMessage | None:
    """Read one; `whole` is the body, if there is nothing else in it."""
    try:
        return _read(value, is_base64)
    except BadInput as problem:
        return NoMessage(problem, to_json(value) if whole is None else whole)


def _read(value: object, is_base64: bool) -> HookMessage | None:
    if not isinstance(value, dict):
        raise _no_message("it is no object")
    event = value.get("action", value.get("event"))
    if event is not None and event not in _PUBLISHED:
        return None
    try:
        message = PostedMessage.model_validate(value)
    except ValidationError as error:
        raise _no_message(explain(error)) from None
    payload = _content(message.payload, is_base64 or message.encoding == "base64")
    if payload is None:
        raise BadInput("invalid_hook", "The payload is not in base64.", hint="Leave encoding out for a text.")
    return HookMessage(message.topic, payload, message.qos, message.retain or message.flags.retain, message.id)


def _no_message(why: str) -> BadInput:
    return BadInput("invalid_hook", f"This is no message of a broker: {why}.", hint="It needs a topic and a payload.")


def _content(payload: JsonValue, is_base64: bool) -> bytes | None:
    """Return the payload's bytes; None for what should be in base64 and is not."""
    if payload is None:
        return b""
    if not isinstance(payload, str):
        return to_json(payload)
    if not is_base64:
        return payload.encode()
    try:
        return b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return None
