"""MQTT packets as a client writes and reads them: 3.1.1 and 5 (OASIS standards), QoS 0 and 1.

Pure functions over bytes. `level` is the protocol level of CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from cloud_sync.integrations.mqtt_client.properties import (
    Malformed,
    Properties,
    Property,
    Value,
    binary,
    end_of_properties,
    read,
    read_text,
    read_varint,
    text,
    varint,
    written,
)

Level = Literal[4, 5]
MQTT_311: Level = 4
MQTT_5: Level = 5

REFUSED = 0x80
"""A reason code from here on is a refusal."""
_QOS_1, _QOS_2, _RETAIN, _DUP = 0x02, 0x04, 0x01, 0x08
_RETAINED_WHEN_NEW = 0x10  # an option of a subscription (MQTT 5, 3.8.3.1)
_TOPIC_AT_MOST = 65_535 + 4
"""Of a message that is too long to be kept, so much is: the topic and the packet id are in it."""


class Kind(IntEnum):
    """The four high bits of the first byte (table 2-1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


PINGREQ = b"\xc0\0"
DISCONNECT = b"\xe0\0"


@dataclass(slots=True, frozen=True)
class Will:
    """What the broker publishes when we are gone without a word, at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(slots=True, frozen=True)
class Login:
    """What a CONNECT says."""

    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = 60
    is_clean: bool = True
    """False: the broker keeps the session, with what was not acknowledged, for `session_s`."""
    session_s: int = 24 * 3600
    """MQTT 5 only; a broker of 3.1.1 keeps it as long as it likes."""
    will: Will | None = None
    receive_maximum: int = 1_000
    """MQTT 5 only: how many messages may be on their way that we have not acknowledged."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A reason code, and what the broker says to it, which MQTT 5 knows alone."""

    code: int
    reason: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether it says no."""
        return self.code >= REFUSED


@dataclass(slots=True, frozen=True)
class Connack:
    """The answer to CONNECT; in MQTT 3.1.1 a code other than 0 is a refusal."""

    answer: Answer
    session_present: bool
    properties: Properties


@dataclass(slots=True, frozen=True, eq=False)
class Message:
    """A message that has come."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int
    """0 at QoS 0."""
    cut_bytes: int = 0
    """More than 0: the packet had so many bytes, too many to keep, and the payload is left out."""
    is_repeated: bool = False
    """Whether the broker has sent it before (DUP)."""


def framed(first: int, body: bytes) -> bytes:
    """Put the fixed header before a packet's body."""
    return bytes([first]) + varint(len(body)) + body


def connect(level: Level, login: Login, *, longest: int) -> bytes:
    """Return a CONNECT (3.1). Raises ValueError for what MQTT cannot carry. `longest`: bytes in a packet to us."""
    flags = _RETAIN * 2 if login.is_clean else 0
    payload = text(login.client_id)
    if (will := login.will) is not None:
        flags |= 0x04 | 1 << 3 | (0x20 if will.retain else 0)
        payload += (written([]) if level == MQTT_5 else b"") + text(will.topic) + binary(will.payload)
    if login.username is not None:
        flags, payload = flags | 0x80, payload + text(login.username)
    if login.password is not None:
        flags, payload = flags | 0x40, payload + text(login.password)
    properties = b""
    if level == MQTT_5:
        said: list[tuple[Property, Value]] = [
            (Property.RECEIVE_MAXIMUM, login.receive_maximum),
            (Property.MAXIMUM_PACKET_BYTES, longest),
        ]
        if not login.is_clean:
            said.append((Property.SESSION_EXPIRY_S, login.session_s))
        properties = written(said)
    head = text("MQTT") + bytes([level, flags]) + struct.pack("!H", login.keepalive_s)
    return framed(Kind.CONNECT << 4, head + properties + payload)


def publish(
    level: Level,
    topic: str,
    payload: bytes,
    packet_id: int,
    *,
    retain: bool = False,
    properties: Sequence[tuple[Property, Value]] = (),
) -> bytes:
    """Return a PUBLISH (3.3), at QoS 1; a `packet_id` of 0 makes it QoS 0. Raises ValueError for a topic too long."""
    first = Kind.PUBLISH << 4 | (_QOS_1 if packet_id else 0) | (_RETAIN if retain else 0)
    head = text(topic) + (struct.pack("!H", packet_id) if packet_id else b"")
    return framed(first, head + (written(properties) if level == MQTT_5 else b"") + payload)


def puback(packet_id: int) -> bytes:
    """Return a PUBACK that says yes (3.4), in either version."""
    return framed(Kind.PUBACK << 4, struct.pack("!H", packet_id))


def subscribe(level: Level, packet_id: int, filters: Sequence[str], qos: int) -> bytes:
    """Return a SUBSCRIBE (3.8); in MQTT 5 what is retained only comes when the subscription is new."""
    options = qos | (_RETAINED_WHEN_NEW if level == MQTT_5 else 0)
    head = struct.pack("!H", packet_id) + (written([]) if level == MQTT_5 else b"")
    return framed(Kind.SUBSCRIBE << 4 | 2, head + b"".join(text(one) + bytes([options]) for one in filters))


class Framer:
    """Cuts what comes into packets; of a message with more than `longest` bytes only the beginning is kept."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._cut: tuple[int, bytes, int] | None = None
        self._to_skip = 0

    def feed(self, content: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Yield the first byte of each packet, its body, and how long it was if it is cut. Raises Malformed."""
        buffer, at = self._buffer, 0
        buffer += content
        while True:
            if self._cut is not None:
                skipped = min(self._to_skip, len(buffer) - at)
                self._to_skip, at = self._to_skip - skipped, at + skipped
                if self._to_skip:
                    break
                yield self._cut
                self._cut = None
            try:
                length, begin = read_varint(buffer, at + 1)
            except IndexError:
                break
            kept = min(length, max(self._longest, _TOPIC_AT_MOST))
            if kept < length and buffer[at] >> 4 != Kind.PUBLISH:
                raise Malformed(f"a packet of {length:,} bytes that is no message")
            if len(buffer) < begin + kept:
                break
            packet = buffer[at], bytes(buffer[begin : begin + kept]), length if length > self._longest else 0
            at = begin + kept
            if kept < length:
                self._cut, self._to_skip = packet, length - kept
            else:
                yield packet
        del buffer[:at]


def read_connack(level: Level, body: bytes) -> Connack:
    """Read a CONNACK (3.2). Raises Malformed."""
    if len(body) < 2 or body[0] > 1 or (level == MQTT_311 and len(body) != 2):  # noqa: PLR2004 - flags and code
        raise Malformed("an answer to CONNECT that is none")
    # A broker that does not know MQTT 5 may refuse it in the form of 3.1.1: two bytes.
    properties = read(body, 2)[0] if len(body) > 2 else Properties()  # noqa: PLR2004 - flags and code
    return Connack(Answer(body[1], properties.text(Property.REASON)), bool(body[0]), properties)


def read_puback(level: Level, body: bytes) -> tuple[int, Answer]:
    """Read a PUBACK (3.4): its packet id and what it says. Raises Malformed."""
    packet_id, code = _packet_id(body), 0
    if level == MQTT_5:
        return packet_id, _read_reason(body, 2)
    if len(body) != 2:  # noqa: PLR2004 - the packet id
        raise Malformed("a PUBACK of another length")
    return packet_id, Answer(code)


def read_suback(level: Level, body: bytes) -> tuple[int, list[Answer]]:
    """Read a SUBACK (3.9): its packet id and what it says to each filter. Raises Malformed."""
    packet_id, at, reason = _packet_id(body), 2, ""
    if level == MQTT_5:
        properties, at = read(body, at)
        reason = properties.text(Property.REASON)
    return packet_id, [Answer(code, reason) for code in body[at:]]


def read_disconnect(body: bytes) -> Answer:
    """Read a DISCONNECT (MQTT 5, 3.14). Raises Malformed."""
    return _read_reason(body, 0)


def read_publish(level: Level, first: int, body: bytes, cut_bytes: int) -> Message:
    """Read a PUBLISH (3.3). Raises Malformed."""
    if first & _QOS_2:
        raise Malformed("a message at QoS 2, which nobody has asked for")
    topic, at = read_text(body, 0)
    if not topic:
        raise Malformed("a message without a topic")
    packet_id = 0
    if first & _QOS_1:
        packet_id, at = _packet_id(body, at), at + 2
    if level == MQTT_5 and not cut_bytes:
        at = end_of_properties(body, at)
    payload = b"" if cut_bytes else body[at:]
    qos, is_repeated = 1 if packet_id else 0, bool(first & _DUP)
    return Message(topic, payload, qos, bool(first & _RETAIN), packet_id, cut_bytes, is_repeated)


def _packet_id(body: bytes, at: int = 0) -> int:
    packet_id = int.from_bytes(body[at : at + 2], "big")
    if len(body) < at + 2 or not packet_id:
        raise Malformed("a packet without its id")
    return packet_id


def _read_reason(body: bytes, at: int) -> Answer:
    """Read what may be left out: no code is success, and no properties are none."""
    if len(body) <= at:
        return Answer(0)
    properties = read(body, at + 1)[0] if len(body) > at + 1 else Properties()
    return Answer(body[at], properties.text(Property.REASON))
