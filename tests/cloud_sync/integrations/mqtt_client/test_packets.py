"""What a broker sends is read whole and in any pieces, or refused as malformed; nothing else happens."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from cloud_sync.integrations.mqtt_client import packets, properties
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Framer
from cloud_sync.integrations.mqtt_client.properties import Malformed, Property, varint

MADE: Any = PahoProperties
LEVELS = (MQTT_311, MQTT_5)
READERS: list[Callable[[bytes], object]] = [
    packets.read_disconnect,
    *(lambda body, level=level: packets.read_connack(level, body) for level in LEVELS),
    *(lambda body, level=level: packets.read_puback(level, body) for level in LEVELS),
    *(lambda body, level=level: packets.read_suback(level, body) for level in LEVELS),
    *(lambda body, level=level: packets.read_publish(level, 0x32, body, 0) for level in LEVELS),
]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_malformed(body: bytes) -> None:
    for read in READERS:
        with suppress(Malformed):
            read(body)


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=300)), max_size=8), st.integers(1, 50))
def test_packets_are_found_in_whatever_pieces_they_come(messages: list[tuple[str, bytes]], size: int) -> None:
    whole = b"".join(packets.publish(MQTT_5, f"t{topic}", payload, 7) for topic, payload in messages)
    framer = Framer(100_000)
    found = [one for at in range(0, len(whole), size) for one in framer.feed(whole[at : at + size])]
    read = [packets.read_publish(MQTT_5, *one) for one in found]
    assert [(one.topic[1:], one.payload, one.packet_id) for one in read] == [(*one, 7) for one in messages]


def test_of_a_message_that_is_too_long_the_topic_is_left() -> None:
    framer = Framer(1_000)
    large = packets.publish(MQTT_5, "a/b", b"x" * 200_000, 9, properties=[(Property.CONTENT_TYPE, "x")])
    stream = large + packets.publish(MQTT_5, "c", b"y", 10)
    found = [one for at in range(0, len(stream), 1_000) for one in framer.feed(stream[at : at + 1_000])]
    assert len(framer._buffer) < 1_000
    first, second = (packets.read_publish(MQTT_5, *one) for one in found)
    assert (first.topic, first.payload, first.packet_id, first.cut_bytes) == ("a/b", b"", 9, 200_012)
    assert (second.topic, second.payload, second.cut_bytes) == ("c", b"y", 0)


def test_what_is_said_beside_a_message_is_neither_read_nor_kept() -> None:
    said = b"\x26\x00\x00\x00\x00" * 200_000  # user properties, each with nothing in it
    body = b"\x00\x01a\x00\x07" + varint(len(said)) + said + b"x"
    found = packets.read_publish(MQTT_5, 0x32, body, 0)
    assert (found.topic, found.payload) == ("a", b"x")
    assert not [one for one in vars(type(found)) if "propert" in one]


@pytest.mark.parametrize(
    "stream", [b"\x40\xff\xff\xff\xff\x01", b"\x20\xff\xff\x7f" + b"x" * 70_000], ids=["length", "large"]
)
def test_what_is_no_packet_is_malformed(stream: bytes) -> None:
    with pytest.raises(Malformed):
        list(Framer(1_000).feed(stream))


@pytest.mark.parametrize(
    "body", [b"\x00\x05abc", b"\x00\x02\xff\xff\x00\x07", b"\x00\x01a\x00\x00", b"\x00\x01a\x00\x07\x02\x1f"]
)
def test_a_message_that_does_not_fit_into_its_packet_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        packets.read_publish(MQTT_5, 0x32, body, 0)
    with pytest.raises(Malformed):
        packets.read_publish(MQTT_311, 0x30, b"\x00\x05abc", 0)


def test_pahos_properties_are_ours() -> None:
    paho = MADE(PacketTypes.CONNACK)
    paho.ReceiveMaximum, paho.MaximumPacketSize, paho.ReasonString = 20, 100_000, "ü"
    paho.AssignedClientIdentifier, paho.RetainAvailable, paho.SessionExpiryInterval = "x", 1, 7
    paho.UserProperty = [("a", "b"), ("a", "c")]
    found, _ = properties.read(paho.pack(), 0)
    assert found == {
        Property.RECEIVE_MAXIMUM: 20,
        Property.MAXIMUM_PACKET_BYTES: 100_000,
        Property.REASON: "ü",
        Property.ASSIGNED_CLIENT_ID: "x",
        Property.RETAIN_AVAILABLE: 1,
        Property.SESSION_EXPIRY_S: 7,
    }
    assert found.user == [("a", "b"), ("a", "c")]
    back = MADE(PacketTypes.CONNACK)
    back.unpack(properties.written([*found.items(), *((Property.USER, one) for one in found.user)]))
    assert back.json() == paho.json()
