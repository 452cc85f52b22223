"""MQTT packets as bytes and back, by the examples of the specification: also run by MicroPython."""

from app import mqtt_codec as codec
from app.mqtt_login import connect, subscribe


class Reader:
    """A stream of which at most `step` bytes come at once, and nothing now and then."""

    def __init__(self, data, step):
        self.data = data
        self.step = step
        self.largest = self.calls = 0

    async def readinto(self, buffer):
        self.largest = max(self.largest, len(buffer))
        self.calls += 1
        if self.calls % 3 == 0:
            return None
        count = min(len(buffer), len(self.data), self.step)
        buffer[:count] = self.data[:count]
        self.data = self.data[count:]
        return count


async def packets(data, limit=1_000, step=1):
    reader = Reader(data, step)
    found = []
    while reader.data:
        found.append(await codec.read_packet(reader, limit))
    assert reader.largest <= max(limit, 300)
    return found


def raises(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was raised")


def test_connect_has_will_login_and_a_session_that_stays():
    packet = connect("id", "user", "pass", 300, ("w", b"gone"))
    assert packet == (
        b"\x10\x23\x00\x04MQTT\x04\xec\x01\x2c" + b"\x00\x02id\x00\x01w\x00\x04gone\x00\x04user\x00\x04pass"
    )


def test_publish_has_its_flags_and_an_id_at_qos_1():
    assert codec.publish("a/b", b"hi") == b"\x30\x07\x00\x03a/bhi"
    assert codec.publish("a/b", b"hi", retain=True) == b"\x31\x07\x00\x03a/bhi"
    assert codec.publish("a/b", b"hi", 258) == b"\x32\x09\x00\x03a/b\x01\x02hi"
    assert codec.publish("a/b", b"hi", 258, retain=True, again=True) == b"\x3b\x09\x00\x03a/b\x01\x02hi"


def test_lengths_are_those_of_the_specification():
    for length, encoded in ((0, 3), (122, 125), (123, 126), (125, 128)):
        assert len(codec.publish("t", bytes(length))) == encoded + (2 if encoded < 128 else 3)
    assert codec.publish("t", bytes(16_381))[:4] == b"\x30\x80\x80\x01"


def test_subscribe_and_puback():
    assert subscribe(10, ("a/b", "c/d")) == b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x01"
    assert codec.puback(0x1234) == b"\x40\x02\x12\x34"


async def test_what_was_encoded_is_read_back_however_it_is_cut():
    stream = codec.publish("to/me", b"x" * 300, 7) + b"\x40\x02\x00\x05" + b"\xd0\x00" + codec.publish("q0", b"")
    for step in (1, 2, 3, 7, 64, 128, 129, 1_000):
        first, second, third, fourth = await packets(stream, step=step)
        assert first.message() == ("to/me", b"x" * 300, 7)
        assert (second.kind, second.packet_id()) == (codec.PUBACK, 5)
        assert (third.kind, len(third.body)) == (codec.PINGRESP, 0)
        assert fourth.message() == ("q0", b"", None)


async def test_of_one_that_is_too_long_only_its_beginning_is_kept_and_the_next_is_whole():
    stream = codec.publish("to/me", b"x" * 5_000, 7) + codec.publish("next", b"1", 8)
    for step in (1, 100, 10_000):
        found = await packets(stream, limit=500, step=step)
        assert [len(packet.body) for packet in found] == [300, 9]
        assert [packet.message() for packet in found] == [("to/me", None, 7), ("next", b"1", 8)]


async def test_a_stream_that_ends_within_a_packet_is_over():
    for data in (b"", b"\x30", b"\x30\x80", b"\x30\x04\x00\x01"):
        try:
            await codec.read_packet(Reader(data, 10), 1_000)
        except EOFError:
            pass
        else:
            raise AssertionError(data)


async def test_what_is_no_mqtt_is_refused():
    try:
        await packets(b"\x30\xff\xff\xff\xff\x01")
    except ValueError as error:
        assert str(error) == "no MQTT"
    else:
        raise AssertionError("nothing was raised")
    for data in (b"\x30\x01a", b"\x32\x04\x00\x02ab", b"\x34\x06\x00\x02ab\x00\x01"):
        (packet,) = await packets(data)
        assert raises(packet.message)
    (packet,) = await packets(b"\x40\x01\x00")
    assert raises(packet.packet_id)


def test_a_packet_is_made_in_the_room_that_there_is_for_it():
    room = bytearray(20)
    short = codec.publish("a/b", (b"hi", b"!"), 258, room=room)
    assert bytes(short) == bytes(room[: len(short)]) == b"\x32\x0a\x00\x03a/b\x01\x02hi!"
    long = codec.publish("a/b", b"x" * 20, 258, room=room)
    assert bytes(long) == b"\x32\x1b\x00\x03a/b\x01\x02" + b"x" * 20
    assert bytes(room[: len(short)]) == b"\x32\x0a\x00\x03a/b\x01\x02hi!"
