"""A CoAP message and its bytes (RFC 7252, 3). Pure.

Of the options only numbers and values are known here; what cannot be read is refused whole.
"""

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Self

URI_PATH = 11
CONTENT_FORMAT = 12
MAX_AGE = 14
BLOCK1 = 27

POST = 0x02
CONTINUE = 0x5F  # 2.31
TOO_LARGE = 0x8D  # 4.13
SUCCESS = 2
"""The class of codes that say yes."""

JSON = 50
"""A content format."""

_VERSION = 1
_PAYLOAD_FOLLOWS = 0xFF
_ONE_BYTE, _TWO_BYTES = 13, 14
_TWO_BYTES_FROM = 269
_TOKEN_BYTES = 8


class Kind(IntEnum):
    """Whether an acknowledgement is waited for, or is this."""

    CONFIRMABLE = 0
    NON_CONFIRMABLE = 1
    ACKNOWLEDGEMENT = 2
    RESET = 3


@dataclass(slots=True, frozen=True)
class Message:
    """See the module's own words."""

    kind: Kind
    code: int
    """0 of an empty message; else class and detail: 4.04 is 0x84."""
    id: int
    """Ties an acknowledgement to its message."""
    token: bytes = b""
    """Ties a response to its request."""
    options: tuple[tuple[int, bytes], ...] = ()
    """Number and value, by number."""
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return its bytes."""
        head = bytes([_VERSION << 6 | self.kind << 4 | len(self.token), self.code]) + self.id.to_bytes(2)
        options = sorted(self.options, key=lambda option: option[0])
        before = [0, *(number for number, _ in options)]
        steps = (here - last for last, here in pairwise(before))
        written = [_option(step, value) for step, (_, value) in zip(steps, options, strict=True)]
        payload = bytes([_PAYLOAD_FOLLOWS]) + self.payload if self.payload else b""
        return b"".join((head, self.token, *written, payload))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read one. Raises ValueError."""
        if len(data) < 4 or data[0] >> 6 != _VERSION or data[0] & 0xF > _TOKEN_BYTES:  # noqa: PLR2004 - the head
            raise ValueError("it is no CoAP message.")
        at = 4 + (data[0] & 0xF)
        token = data[4:at]
        options: list[tuple[int, bytes]] = []
        number = 0
        while at < len(data) and data[at] != _PAYLOAD_FOLLOWS:
            step, length = data[at] >> 4, data[at] & 0xF
            step, at = _extended(data, at + 1, step)
            length, at = _extended(data, at, length)
            number += step
            options.append((number, data[at : at + length]))
            at += length
        payload = data[at + 1 :]
        if at > len(data) or (at < len(data) and not payload):
            raise ValueError("its options or its payload end too early.")
        return cls(Kind(data[0] >> 4 & 3), data[1], int.from_bytes(data[2:4]), token, tuple(options), payload)

    def option(self, number: int) -> int | None:
        """Return the value of an option that is a number; None when it is not there."""
        return next((int.from_bytes(value) for known, value in self.options if known == number), None)


def number(value: int) -> bytes:
    """Return the value of an option that is a number: as few bytes as it takes, none for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def code_text(code: int) -> str:
    """Return a code as people write it: 4.04."""
    return f"{code >> 5}.{code & 0x1F:02d}"


def _option(step: int, value: bytes) -> bytes:
    (high, more_of_step), (low, more_of_length) = _nibble(step), _nibble(len(value))
    return bytes([high << 4 | low]) + more_of_step + more_of_length + value


def _nibble(size: int) -> tuple[int, bytes]:
    if size < _ONE_BYTE:
        return size, b""
    if size < _TWO_BYTES_FROM:
        return _ONE_BYTE, (size - _ONE_BYTE).to_bytes(1)
    return _TWO_BYTES, (size - _TWO_BYTES_FROM).to_bytes(2)


def _extended(data: bytes, at: int, nibble: int) -> tuple[int, int]:
    """Return what a nibble stands for, and where it goes on. Raises ValueError."""
    if nibble < _ONE_BYTE:
        return nibble, at
    if nibble > _TWO_BYTES:
        raise ValueError("an option has a length that is reserved.")
    size, least = (1, _ONE_BYTE) if nibble == _ONE_BYTE else (2, _TWO_BYTES_FROM)
    if at + size > len(data):
        raise ValueError("an option ends too early.")
    return int.from_bytes(data[at : at + size]) + least, at + size
