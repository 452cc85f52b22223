"""MQTT 3.1.1 packets as bytes, and back. Of QoS 2, which a board has no use for, nothing is here.

Source: OASIS MQTT Version 3.1.1, sections 2 and 3.
"""

from micropython import const

PUBLISH = const(0x30)
PUBACK = const(0x40)
SUBACK = const(0x90)
PINGRESP = const(0xD0)
PINGREQ = b"\xc0\x00"

_HEAD_BYTES = const(300)
"""What is kept of a packet that is too long: its topic, and the packet id by which it is acknowledged."""


def text(words):
    """Return a UTF-8 string of MQTT."""
    data = words.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first, *parts, room=None):
    """Return a packet of its first byte and what follows the length: in `room`, a bytearray, if it is large enough."""
    length = sum([len(part) for part in parts])
    head = bytearray([first])
    while True:
        digit = length & 0x7F
        length >>= 7
        head.append(digit | (0x80 if length else 0))
        if not length:
            break
    size = len(head) + sum([len(part) for part in parts])
    # once: a payload is large
    whole = memoryview(room)[:size] if room is not None and size <= len(room) else bytearray(size)
    at = 0
    for part in (head,) + parts:
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def publish(topic, payload, packet_id=None, retain=False, again=False, room=None):
    """Return PUBLISH: QoS 1 with a packet id, QoS 0 without; `again` says that it has been sent before.

    The payload is bytes, or a tuple of its parts. `room`: see packet.
    """
    parts = payload if isinstance(payload, tuple) else (payload,)
    if packet_id is None:
        return packet(PUBLISH | retain, text(topic), *parts, room=room)
    number = packet_id.to_bytes(2, "big")
    return packet(PUBLISH | 0x02 | retain | again << 3, text(topic), number, *parts, room=room)


def puback(packet_id):
    """Return PUBACK."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


class Packet:
    """One that has arrived: `kind` (the first byte without its flags), `flags`, `body`."""

    def __init__(self, first, body, is_whole):
        self.kind = first & 0xF0
        self.flags = first & 0x0F
        self.body = body
        self.is_whole = is_whole
        """False: it was longer than may be, and only its beginning is here."""

    def packet_id(self):
        """Return the packet id of an acknowledgement. Raises ValueError."""
        if len(self.body) < 2:
            raise ValueError("no MQTT")
        return self.body[0] << 8 | self.body[1]

    def message(self):
        """Return (topic, payload, packet id or None) of a PUBLISH, once; the payload is None if it is not whole.

        Raises ValueError.
        """
        body, self.body = self.body, b""  # what the payload is for needs the memory
        end = 2 + (body[0] << 8 | body[1]) if len(body) > 1 else 2
        qos = self.flags >> 1 & 3
        start = end + 2 if qos else end
        if len(body) < start or qos > 1:
            raise ValueError("no MQTT")
        packet_id = body[end] << 8 | body[end + 1] if qos else None
        return str(body[2:end], "utf-8"), body[start:] if self.is_whole else None, packet_id


async def read_packet(reader, limit):
    """Return the next Packet, of which at most `limit` bytes are kept. Raises ValueError when it is no MQTT, EOFError.

    `reader` has `readinto(buffer)`, which says how many bytes have come: 0 at the end, None for nothing yet.
    """
    byte = bytearray(1)
    await fill(reader, byte)
    first = byte[0]
    length = shift = 0
    while True:
        await fill(reader, byte)
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
        if shift == 28:
            raise ValueError("no MQTT")  # a length of more than four bytes
    # all at once: a body that grew would be copied again and again, and leave holes behind
    body = bytearray(length if length <= limit else min(_HEAD_BYTES, limit))
    await fill(reader, body)
    left = length - len(body)
    while left:
        rest = bytearray(min(_HEAD_BYTES, left))
        await fill(reader, rest)
        left -= len(rest)
    return Packet(first, body, length <= limit)


async def fill(reader, data):
    """Read until `data` is full. Raises EOFError."""
    view = memoryview(data)
    while view:
        count = await reader.readinto(view)
        if count:
            view = view[count:]
        elif count == 0:
            raise EOFError
