"""MQTT 3.1.1 packets, as far as the front door reads and writes them itself (OASIS standard, sections 2 and 3).

Pure functions over bytes. What violates the standard raises MalformedPacket: the connection is then closed.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from gateway.model.topics import is_topic_filter


class PacketType(IntEnum):
    """The four high bits of the first byte (table 2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


PUBACK = b"\x40\x02"
PUBREC = b"\x50\x02"
PUBREL = b"\x62\x02"
PUBCOMP = b"\x70\x02"
UNSUBACK = b"\xb0\x02"
"""Each followed by the two bytes of the packet id."""
PINGRESP = b"\xd0\x00"

_LONGEST_STANDARD = 65_535
_LONGEST_TEXT = 65_000  # before a topic the door puts the organisation
LONGEST_CLIENT_ID = 1_000
"""The standard asks for 23 characters at least; a longer one than this is answered with "identifier rejected"."""

CONNACK_ACCEPTED = b"\x20\x02\x00\x00"
CONNACK_SESSION_PRESENT = b"\x20\x02\x01\x00"
CONNACK_BAD_PROTOCOL = b"\x20\x02\x00\x01"
CONNACK_BAD_CLIENT_ID = b"\x20\x02\x00\x02"
CONNACK_UNAVAILABLE = b"\x20\x02\x00\x03"
CONNACK_NOT_AUTHORIZED = b"\x20\x02\x00\x05"
CONNACK_V5_BAD_PROTOCOL = b"\x20\x03\x00\x84\x00"
"""For an MQTT 5 client, in its own form (MQTT 5.0, 3.2.2.2)."""


class MalformedPacket(Exception):
    """The bytes are not what the standard allows; the message says what is wrong."""


class BeyondLimit(Exception):
    """What the standard allows and the settings do not; `reason` is that of the closed connection."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnsupportedProtocol(Exception):
    """A CONNECT of another protocol version; `answer` is the CONNACK it understands, or empty."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("only MQTT 3.1.1 is spoken here")
        self.answer = answer


@dataclass(slots=True, frozen=True)
class Message:
    """An application message."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(slots=True, frozen=True)
class Connect:
    """A CONNECT packet."""

    client_id: str
    clean_session: bool
    keepalive_s: int
    username: str | None
    password: str | None
    will: Message | None


def remaining_length(data: bytes, position: int) -> tuple[int, int]:
    """Decode the remaining length at `position`; returns it and the position after it, or (-1, 0) if bytes miss."""
    value = shift = 0
    while shift <= 21:
        if position >= len(data):
            return -1, 0
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedPacket("the remaining length has more than four bytes")


def encode_packet(first_byte: int, body: bytes) -> bytes:
    """Put the fixed header before a packet's body."""
    return _fixed_header(first_byte, len(body)) + body


def _fixed_header(first_byte: int, length: int) -> bytes:
    header = bytearray([first_byte])
    while True:
        length, digit = length >> 7, length & 0x7F
        header.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(header)


def encode_text(text: str) -> bytes:
    """Encode a UTF-8 string with its two-byte length (1.5.3)."""
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def check_topic(topic: bytes) -> str:
    """Return the topic name of a PUBLISH or will as text (3.3.2.1, 4.7.3)."""
    text = _utf8(topic, "topic")
    if not text:
        raise MalformedPacket("the topic is empty")
    if "+" in text or "#" in text:
        raise MalformedPacket("the topic holds a wildcard")
    return text


def decode_connect(flags: int, body: bytes) -> Connect:
    """Decode a CONNECT (3.1). Raises MalformedPacket or UnsupportedProtocol."""
    if flags:
        raise MalformedPacket("CONNECT has reserved flags set")
    reader = _Reader(body)
    protocol, level = reader.binary(), reader.byte()
    if (protocol, level) != (b"MQTT", 4):
        raise UnsupportedProtocol(_refusal(protocol, level))
    connect_flags, keepalive = reader.byte(), reader.integer()
    if connect_flags & 0x01:
        raise MalformedPacket("the reserved connect flag is set")
    will_flag, will_qos, will_retain = connect_flags & 0x04, connect_flags >> 3 & 0x03, connect_flags & 0x20
    if will_qos == 3 or (not will_flag and (will_qos or will_retain)):
        raise MalformedPacket("the will flags contradict each other")
    if connect_flags & 0x40 and not connect_flags & 0x80:
        raise MalformedPacket("a password without a username")
    client_id = _utf8(reader.binary(), "client id", at_most=_LONGEST_STANDARD)
    will = None
    if will_flag:
        will = Message(check_topic(reader.binary()), reader.binary(), will_qos, bool(will_retain))
    username = _utf8(reader.binary(), "username") if connect_flags & 0x80 else None
    password = reader.binary().decode(errors="replace") if connect_flags & 0x40 else None
    reader.end()
    return Connect(client_id, bool(connect_flags & 0x02), keepalive, username, password, will)


def decode_subscribe(first: int, body: bytes, *, at_most: int) -> tuple[bytes, list[tuple[str, int]]]:
    """Return the packet id of a SUBSCRIBE (3.8) or UNSUBSCRIBE (3.10), and its filters, each with its QoS (or 0).

    Raises MalformedPacket, and BeyondLimit at the first filter that is one too many.
    """
    if first & 0x0F != 0x02:
        raise MalformedPacket("SUBSCRIBE or UNSUBSCRIBE has wrong flags")
    with_qos = first >> 4 == PacketType.SUBSCRIBE
    reader = _Reader(body)
    if reader.integer() == 0:
        raise MalformedPacket("packet id 0")
    asked: list[tuple[str, int]] = []
    while not reader.at_end():
        if len(asked) == at_most:
            raise BeyondLimit("too_many_filters", f"more than {at_most} in one packet")
        topic_filter = _utf8(reader.binary(), "topic filter")
        if not is_topic_filter(topic_filter):
            raise MalformedPacket("the topic filter is empty, or a wildcard in it stands where none may")
        qos = reader.byte() if with_qos else 0
        if qos > 2:
            raise MalformedPacket("QoS 3")
        asked.append((topic_filter, qos))
    if not asked:
        raise MalformedPacket("no topic filter")
    return body[:2], asked


def encode_suback(packet_id: bytes, codes: bytes) -> bytes:
    """Encode a SUBACK (3.9): one return code for each filter."""
    return encode_packet(0x90, packet_id + codes)


def encode_publish(
    topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, *, retain: bool = False, dup: bool = False
) -> bytes:
    """Encode a PUBLISH (3.3); QoS 0 needs no packet id."""
    first = 0x30 | dup << 3 | qos << 1 | retain
    if not qos:
        return _publish_head(first, topic, len(payload)) + payload
    return b"%b%b%b" % (_publish_head(first, topic, len(payload) + 2), packet_id.to_bytes(2, "big"), payload)


@lru_cache(maxsize=256)
def _publish_head(first: int, topic: str, length: int) -> bytes:
    """Return all that stands before the packet id: for the subscribers of one message it is the same."""
    name = encode_text(topic)
    return _fixed_header(first, len(name) + length) + name


def packet_id(body: bytes) -> bytes:
    """Return the two bytes of the packet id of an acknowledgement, which holds nothing else."""
    if len(body) != 2 or body == b"\0\0":
        raise MalformedPacket("an acknowledgement without a packet id")
    return body


def _refusal(protocol: bytes, level: int) -> bytes:
    if protocol == b"MQTT" and level == 5:
        return CONNACK_V5_BAD_PROTOCOL
    return CONNACK_BAD_PROTOCOL if protocol in (b"MQTT", b"MQIsdp") else b""


def _utf8(data: bytes, what: str, *, at_most: int = _LONGEST_TEXT) -> str:
    """Decode a string of the standard: UTF-8, without U+0000 (1.5.3). The door must be able to add to it."""
    if len(data) > at_most:
        raise MalformedPacket(f"the {what} is longer than {at_most} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MalformedPacket(f"the {what} is not UTF-8") from None
    if "\0" in text:
        raise MalformedPacket(f"the {what} holds U+0000")
    return text


class _Reader:
    """Reads a packet's body from front to back; a read beyond its end is a malformed packet."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def at_end(self) -> bool:
        return self._position == len(self._body)

    def _take(self, count: int) -> bytes:
        start = self._position
        self._position = start + count
        if self._position > len(self._body):
            raise MalformedPacket("the packet ends too early")
        return self._body[start : self._position]

    def byte(self) -> int:
        return self._take(1)[0]

    def integer(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def binary(self) -> bytes:
        return self._take(self.integer())

    def end(self) -> None:
        if not self.at_end():
            raise MalformedPacket("the packet is longer than its content")
