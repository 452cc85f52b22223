"""Properties of MQTT 5 packets (OASIS standard, 2.2.2): bytes to values and back."""

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum


class Malformed(Exception):
    """Bytes that are no MQTT; the message says what is wrong."""


class Property(IntEnum):
    """Their identifiers (table 2-4)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY_S = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY_S = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE_S = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_S = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER = 0x26
    MAXIMUM_PACKET_BYTES = 0x27
    WILDCARDS_AVAILABLE = 0x28
    SUBSCRIPTION_IDS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTIONS_AVAILABLE = 0x2A


Value = int | str | bytes | tuple[str, str]

_NUMBERS: Mapping[Property, str] = {
    **dict.fromkeys(
        (
            *(Property.PAYLOAD_FORMAT, Property.REQUEST_PROBLEM_INFORMATION, Property.REQUEST_RESPONSE_INFORMATION),
            *(Property.MAXIMUM_QOS, Property.RETAIN_AVAILABLE, Property.WILDCARDS_AVAILABLE),
            *(Property.SUBSCRIPTION_IDS_AVAILABLE, Property.SHARED_SUBSCRIPTIONS_AVAILABLE),
        ),
        "!B",
    ),
    **dict.fromkeys(
        (
            *(Property.SERVER_KEEP_ALIVE_S, Property.RECEIVE_MAXIMUM),
            *(Property.TOPIC_ALIAS_MAXIMUM, Property.TOPIC_ALIAS),
        ),
        "!H",
    ),
    **dict.fromkeys(
        (
            *(Property.MESSAGE_EXPIRY_S, Property.SESSION_EXPIRY_S),
            *(Property.WILL_DELAY_S, Property.MAXIMUM_PACKET_BYTES),
        ),
        "!I",
    ),
}
_BINARY = (Property.CORRELATION_DATA, Property.AUTHENTICATION_DATA)
_MORE, _LAST_SHIFT = 0x80, 21
LONGEST_TEXT = 65_535


class Properties(dict[Property, Value]):
    """What a packet has of them; user properties, which may be there more than once, are beside."""

    def __init__(self) -> None:
        super().__init__()
        self.user: list[tuple[str, str]] = []

    def number(self, name: Property, default: int) -> int:
        """Return one that is a number."""
        value = self.get(name, default)
        assert isinstance(value, int)
        return value

    def text(self, name: Property) -> str:
        """Return one that is a text, or an empty one."""
        value = self.get(name, "")
        assert isinstance(value, str)
        return value


def written(properties: Iterable[tuple[Property, Value]]) -> bytes:
    """Return the bytes, with their length before them."""
    content = b"".join(bytes([name]) + _value(name, value) for name, value in properties)
    return varint(len(content)) + content


def end_of_properties(body: bytes, at: int) -> int:
    """Return where the properties end that begin there, whatever they are. Raises Malformed.

    Nobody reads those of a message, and a megabyte of them would take a second and ten times its size in memory.
    """
    length, at = _varint(body, at)
    if at + length > len(body):
        raise Malformed("properties longer than their packet")
    return at + length


def read(body: bytes, at: int) -> tuple[Properties, int]:
    """Return the properties that begin there, and where they end. Raises Malformed."""
    end, found = end_of_properties(body, at), Properties()
    _, at = _varint(body, at)
    while at < end:
        try:
            name = Property(body[at])
        except ValueError:
            raise Malformed(f"an unknown property {body[at]:#04x}") from None
        at += 1
        if name is Property.USER:
            key, at = read_text(body, at)
            value, at = read_text(body, at)
            found.user.append((key, value))
        elif name is Property.SUBSCRIPTION_ID:  # may be there several times; nobody asks for it
            found[name], at = _varint(body, at)
        elif name in found:
            raise Malformed(f"the property {name.name} twice")
        elif (form := _NUMBERS.get(name)) is not None:
            found[name], at = _number(form, body, at)
        elif name in _BINARY:
            found[name], at = read_binary(body, at)
        else:
            found[name], at = read_text(body, at)
    if at != end:
        raise Malformed("properties that do not end where they say")
    return found, end


def text(value: str) -> bytes:
    """Return a text with its length. Raises ValueError for one that MQTT cannot carry."""
    return binary(value.encode())


def binary(content: bytes) -> bytes:
    """Return bytes with their length. Raises ValueError for too many."""
    if len(content) > LONGEST_TEXT:
        raise ValueError(f"{len(content):,} bytes where MQTT has room for {LONGEST_TEXT:,}")
    return struct.pack("!H", len(content)) + content


def varint(number: int) -> bytes:
    """Return a number of 1 to 4 bytes (1.5.5)."""
    digits = b""
    while number >= _MORE:
        digits += bytes([number % _MORE | _MORE])
        number >>= 7
    return digits + bytes([number])


def read_varint(body: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends. Raises Malformed; IndexError where bytes miss."""
    number = shift = 0
    while True:
        digit = body[at]
        at += 1
        number |= (digit % _MORE) << shift
        if digit < _MORE:
            return number, at
        shift += 7
        if shift > _LAST_SHIFT:
            raise Malformed("a length of more than four bytes")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    try:
        return read_varint(body, at)
    except IndexError:
        raise Malformed("a number that is cut off") from None


def read_binary(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes that begin there, and where they end. Raises Malformed."""
    length, at = _number("!H", body, at)
    end = at + length
    if end > len(body):
        raise Malformed("a text longer than its packet")
    return body[at:end], end


def read_text(body: bytes, at: int) -> tuple[str, int]:
    """Return the text that begins there, and where it ends. Raises Malformed."""
    content, end = read_binary(body, at)
    try:
        return content.decode(), end
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None


def _value(name: Property, value: Value) -> bytes:
    match value:
        case tuple():
            return text(value[0]) + text(value[1])
        case str():
            return text(value)
        case bytes():
            return binary(value)
        case _:
            return struct.pack(_NUMBERS[name], value)


def _number(form: str, body: bytes, at: int) -> tuple[int, int]:
    size = struct.calcsize(form)
    if at + size > len(body):
        raise Malformed("a number that is cut off")
    (number,) = struct.unpack_from(form, body, at)
    return int(number), at + size
