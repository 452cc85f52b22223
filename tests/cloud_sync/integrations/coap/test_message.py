"""CoAP messages: the bytes that RFC 7252 has, every option whatever its length, and nothing read that is none."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloud_sync.integrations.coap.message import MAX_AGE, URI_PATH, Kind, Message, code_text, number

OPTIONS = st.lists(st.tuples(st.integers(0, 65_535), st.binary(max_size=700)), max_size=6)


def test_the_first_exchange_of_the_rfc() -> None:
    """RFC 7252, figure 16."""
    request = Message(Kind.CONFIRMABLE, 0x01, 0x7D34, options=((URI_PATH, b"temperature"),))
    assert request.encode() == bytes.fromhex("40017d34bb74656d7065726174757265")
    answer = Message.decode(bytes.fromhex("60457d34ff32322e332043"))
    assert (answer.kind, answer.id, answer.payload) == (Kind.ACKNOWLEDGEMENT, request.id, b"22.3 C")
    assert code_text(answer.code) == "2.05"


def test_options_are_written_by_their_number_and_those_of_one_number_as_they_come() -> None:
    given_ = ((MAX_AGE, number(60)), (URI_PATH, b".s"), (URI_PATH, b"readings"))
    written = Message(Kind.CONFIRMABLE, 0x02, 1, b"abcd", given_, b"{}").encode()
    assert written == b"\x44\x02\x00\x01abcd" + b"\xb2.s" + b"\x08readings" + b"\x31\x3c" + b"\xff{}"
    assert Message.decode(written).option(MAX_AGE) == 60
    assert Message.decode(written).option(27) is None


@pytest.mark.parametrize(
    ("value", "written"), [(0, b""), (1, b"\1"), (255, b"\xff"), (256, b"\1\0"), (65_536, b"\1\0\0")]
)
def test_a_number_takes_as_few_bytes_as_it_can(value: int, written: bytes) -> None:
    assert number(value) == written
    assert Message(Kind.RESET, 0, 1, options=((MAX_AGE, written),)).option(MAX_AGE) == value


@given(OPTIONS, st.binary(max_size=8), st.binary(max_size=50))
@example([(268, b"x" * 12), (281, b"y" * 13), (550, b"z" * 268), (819, b"a" * 269)], b"", b"")
def test_what_is_written_is_read(options: list[tuple[int, bytes]], token: bytes, payload: bytes) -> None:
    ordered = tuple(sorted(options, key=lambda one: one[0]))
    message = Message(Kind.NON_CONFIRMABLE, 0x45, 65_535, token, ordered, payload)
    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=60))
@example(b"\x40\x01\0\0\xff")  # a payload marker, and no payload
@example(b"\x40\x01\0\0\xf0")  # a length that is reserved
@example(b"\x40\x01\0\0\x0d")
@example(b"\x40\x01\0\0\x05abcd")
@example(b"\x49\x01\0\0123456789")
@example(b"\x80\x01\0\0")
@example(b"\x44\x01\0\0ab")
def test_whatever_comes_is_a_message_or_refused(data: bytes) -> None:
    try:
        message = Message.decode(data)
    except ValueError:
        return
    assert Message.decode(message.encode()) == message


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x40\x01\0", b"\x80\x01\0\0", b"\x49\x01\0\0123456789", b"\x44\x01\0\0ab", b"\x40\x01\0\0\xff"),
        *(
            b"\x40\x01\0\0\xf0",
            b"\x40\x01\0\0\x0f",
            b"\x40\x01\0\0\x0d",
            b"\x40\x01\0\0\xe0\0",
            b"\x40\x01\0\0\x05abcd",
        ),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"CoAP|early|reserved"):
        Message.decode(data)
