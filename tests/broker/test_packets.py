"""MQTT packets: whatever bytes come, the answer is a value or MalformedPacket; what is written can be read again."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.broker.packets import (
    MalformedPacket,
    Message,
    UnsupportedProtocol,
    check_topic,
    decode_connect,
    decode_subscribe,
    encode_packet,
    encode_publish,
    encode_suback,
    encode_text,
    packet_id,
    remaining_length,
)
from gateway.model.topics import is_topic_filter
from tests.broker.raw import connect, publish, subscribe

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
FILTER = TEXT.filter(is_topic_filter)
TOPIC = TEXT.filter(lambda text: bool(text) and not {"+", "#"} & set(text))


def body_of(packet: bytes) -> bytes:
    length, start = remaining_length(packet, 1)
    assert start + length == len(packet)
    return packet[start:]


@given(st.integers(0, 15), st.binary() | st.binary().map(lambda rest: encode_text("MQTT") + b"\x04" + rest))
def test_no_bytes_of_a_connect_raise_anything_but_the_two_errors(flags: int, body: bytes) -> None:
    with suppress(MalformedPacket, UnsupportedProtocol):
        decode_connect(flags, body)


@given(TEXT, TEXT | st.none(), TEXT, TOPIC | st.none(), st.binary(max_size=40), st.integers(0, 2), st.booleans())
def test_a_connect_is_read_as_it_was_meant(
    client_id: str, username: str | None, password: str, topic: str | None, payload: bytes, qos: int, clean: bool
) -> None:
    secret = None if username is None else password
    will = None if topic is None else (topic, payload)
    packet = connect(
        client_id,
        username,
        secret,
        clean=clean,
        keepalive=777,
        will=will,
        will_qos=qos if topic else 0,
        will_retain=bool(topic),
    )
    read = decode_connect(0, body_of(packet))
    assert (read.client_id, read.username, read.password) == (client_id, username, secret)
    assert (read.clean_session, read.keepalive_s) == (clean, 777)
    assert read.will == (None if topic is None else Message(topic, payload, qos, retain=True))


@given(st.data())
def test_a_connect_that_is_cut_or_too_long_is_malformed(data: st.DataObject) -> None:
    body = body_of(connect("board", "user", "secret", will=("devices/a/b", b"offline")))
    cut = data.draw(st.integers(7, len(body) - 1))  # before, it might be another protocol
    for wrong in (body[:cut], body + b"\0"):
        with pytest.raises(MalformedPacket):
            decode_connect(0, wrong)


@pytest.mark.parametrize("flags", [0x01, 0x18, 0x08, 0x20, 0x1C, 0x40], ids=hex)
def test_connect_flags_that_contradict_each_other_are_malformed(flags: int) -> None:
    rest = b"".join(encode_text(text) for text in ("client", "topic", "payload", "user", "password"))
    with pytest.raises(MalformedPacket, match=r"flag|password"):
        decode_connect(0, encode_text("MQTT") + bytes([4, flags, 0, 60]) + rest)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
    ],
)
def test_the_remaining_length_is_that_of_table_2_4(length: int, header: bytes) -> None:
    packet = encode_packet(0x30, bytes(length))
    assert packet[: 1 + len(header)] == b"\x30" + header
    assert len(packet) == 1 + len(header) + length
    assert remaining_length(packet, 1) == (length, 1 + len(header))


@given(st.integers(0, 300_000), st.binary(max_size=3))
@example(16_383, b"")
@example(16_384, b"")
def test_a_remaining_length_is_read_back_wherever_it_stands(length: int, before: bytes) -> None:
    header = encode_packet(0x30, bytes(length))[: -length or None]
    assert remaining_length(before + header, len(before) + 1) == (length, len(before) + len(header))
    for cut in range(1, len(header)):
        assert remaining_length(before + header[:cut], len(before) + 1) == (-1, 0)


def test_a_fifth_byte_of_the_remaining_length_is_malformed() -> None:
    assert remaining_length(b"\xff\xff\xff", 0) == (-1, 0)
    with pytest.raises(MalformedPacket):
        remaining_length(b"\xff\xff\xff\xff", 0)


@given(st.lists(st.tuples(FILTER, st.integers(0, 2)), min_size=1, max_size=5), st.integers(1, 65_535))
def test_a_subscription_is_read_as_it_was_written(filters: list[tuple[str, int]], number: int) -> None:
    packet_id = number.to_bytes(2, "big")
    entries = b"".join(encode_text(name) + bytes([qos]) for name, qos in filters)
    assert decode_subscribe(0x82, packet_id + entries, at_most=len(filters)) == (packet_id, filters)
    names = b"".join(encode_text(name) for name, _ in filters)
    assert decode_subscribe(0xA2, packet_id + names, at_most=len(filters)) == (
        packet_id,
        [(name, 0) for name, _ in filters],
    )


@given(st.integers(0, 255), st.binary() | st.binary().map(lambda rest: b"\x00\x01\x00\x01a" + rest))
def test_no_bytes_of_a_subscription_raise_anything_but_malformed(first: int, body: bytes) -> None:
    with suppress(MalformedPacket):
        decode_subscribe(first, body, at_most=100)


def test_a_filter_that_its_namespace_makes_too_long_is_malformed() -> None:
    """The standard allows 65,535 bytes (1.5.3), so does a packet of the default size."""
    packet = subscribe("devices/kitchen/" + "x" * 65_512)
    with pytest.raises(MalformedPacket):
        decode_subscribe(0x82, body_of(packet), at_most=100)


@given(TOPIC, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.booleans())
def test_a_publish_is_written_as_the_standard_says(
    topic: str, payload: bytes, qos: int, retain: bool, dup: bool
) -> None:
    packet = encode_publish(topic, payload, qos, 9, retain=retain, dup=dup)
    assert packet == publish(topic, payload, qos=qos, packet_id=9, retain=retain, dup=dup)


def test_a_suback_has_one_code_for_each_filter() -> None:
    assert encode_suback(b"\x00\x07", b"\x00\x80") == b"\x90\x04\x00\x07\x00\x80"


@given(TOPIC)
def test_a_topic_is_its_text(topic: str) -> None:
    assert check_topic(topic.encode()) == topic


@pytest.mark.parametrize("topic", [b"", b"+", b"a/#", b"a/+/b", b"a+", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"a\0b"])
def test_what_cannot_be_a_topic_is_malformed(topic: bytes) -> None:
    with pytest.raises(MalformedPacket):
        check_topic(topic)


@given(st.binary(max_size=4))
def test_an_acknowledgement_holds_a_packet_id_and_nothing_else(body: bytes) -> None:
    if len(body) == 2 and body != b"\0\0":
        assert packet_id(body) == body
    else:
        with pytest.raises(MalformedPacket):
            packet_id(body)
