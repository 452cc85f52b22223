"""What brokers' HTTP hooks send, as their own documents and sources show it."""

import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.errors import BadInput
from gateway.parsers.broker_hook import HookMessage, NoMessage, parse_hook

TOPIC = "devices/kitchen/telemetry"
PAYLOAD = '{"device_id":"kitchen","sensors":{"pir":{"motion_detected":true}}}'

EMQX_4: dict[str, Any] = {
    "action": "message_publish",
    "from_client_id": "C_1492410235117",
    "from_username": "C_1492410235117",
    "topic": TOPIC,
    "qos": 1,
    "retain": True,
    "payload": PAYLOAD,
    "ts": 1492412774,
}
"""The example of apps/emqx_web_hook/README.md, with a payload of ours."""

EMQX_5: dict[str, Any] = {
    "event": "message.publish",
    "id": "0006296E5D1E8F2DF44400000D5E0001",
    "clientid": "c_emqx",
    "username": "u_emqx",
    "payload": PAYLOAD,
    "peerhost": "192.168.0.10",
    "peername": "192.168.0.10:56431",
    "topic": TOPIC,
    "qos": 1,
    "flags": {"retain": True, "dup": False},
    "pub_props": {"User-Property": {}},
    "publish_received_at": 1645002753259,
    "timestamp": 1645002753259,
    "client_attrs": {},
    "node": "emqx@127.0.0.1",
    "metadata": {"rule_id": "neurogate"},
}
"""All columns of `eventmsg_publish`, as an HTTP action without a body of its own sends them."""

PLAIN: dict[str, Any] = {"topic": TOPIC, "payload": PAYLOAD}


def parse(document: object, **how: bool) -> list[HookMessage | NoMessage | None]:
    return parse_hook(json.dumps(document).encode(), **how)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (EMQX_4, HookMessage(TOPIC, PAYLOAD.encode(), 1, retain=True, id="")),
        (EMQX_5, HookMessage(TOPIC, PAYLOAD.encode(), 1, retain=True, id=EMQX_5["id"])),
        (PLAIN, HookMessage(TOPIC, PAYLOAD.encode(), 0, retain=False, id="")),
        (PLAIN | {"payload": json.loads(PAYLOAD)}, HookMessage(TOPIC, PAYLOAD.encode(), 0, retain=False, id="")),
        (PLAIN | {"payload": None}, HookMessage(TOPIC, b"", 0, retain=False, id="")),
        (
            PLAIN | {"payload": b64encode(b"\xff\x00").decode(), "encoding": "base64", "id": "7", "qos": 2},
            HookMessage(TOPIC, b"\xff\x00", 2, retain=False, id="7"),
        ),
    ],
)
def test_each_form_is_one_message(document: dict[str, Any], expected: HookMessage) -> None:
    assert parse(document) == [expected]
    assert parse([document, document]) == parse({"messages": [document, document]}) == [expected, expected]


def test_base64_that_is_said_beside_the_body() -> None:
    (message,) = parse(EMQX_4 | {"payload": b64encode(PAYLOAD.encode()).decode()}, is_base64=True)
    assert isinstance(message, HookMessage)
    assert message.payload == PAYLOAD.encode()


@pytest.mark.parametrize(
    "event",
    [
        EMQX_4 | {"action": "message_delivered"},
        EMQX_4 | {"action": "message_acked"},
        {"action": "client_connected", "clientid": "x"},
        EMQX_5 | {"event": "message.dropped"},
        {"event": "session.subscribed", "topic": "t"},
    ],
)
def test_another_event_is_no_message_also_one_that_repeats_a_message(event: dict[str, Any]) -> None:
    assert parse(event) == [None]


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        None,
        [],
        "text",
        {},
        {"topic": TOPIC},
        {"payload": "x"},
        PLAIN | {"qos": 3},
        PLAIN | {"topic": 5},
        PLAIN | {"encoding": "base64", "payload": "?"},
        PLAIN | {"encoding": "base62"},
        PLAIN | {"id": "x" * 201},
    ],
)
def test_p4_what_is_none_of_these_is_refused_and_the_others_are_read(wrong: object) -> None:
    first, refused, last = parse([PLAIN, wrong, PLAIN])
    assert isinstance(first, HookMessage)
    assert first == last
    assert isinstance(refused, NoMessage)
    assert "PostedMessage" not in str(refused.problem)
    assert json.loads(refused.piece) == wrong


def test_a_body_that_is_one_thing_and_no_message_is_kept_as_it_came() -> None:
    (refused,) = parse_hook(body := b'{ "topic": "a" }')
    assert isinstance(refused, NoMessage)
    assert refused.piece == body


@pytest.mark.parametrize("wrong", [[], {"messages": []}, [PLAIN] * 1_001])
def test_a_body_with_nothing_or_too_much_in_it_is_refused(wrong: object) -> None:
    with pytest.raises(BadInput):
        parse(wrong)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_nothing_raises_anything_but_bad_input(body: bytes) -> None:
    with suppress(BadInput):
        parse_hook(body)
