"""MQTT 3.1.1 packets as bytes, and back. Of QoS 2, which a board has no use for, nothing is here.

Source: OASIS MQTT Version 3.1.1, sections 2 and 3.
"""

from micropython import const

CONNACK = const(0x20)
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


def packet(first, *parts):
    """Return a packet of its first byte and what follows the length."""
    length = sum([len(part) for part in parts])
    head = bytearray([first])
    while True:
        digit = length & 0x7F
        length >>= 7
        head.append(digit | (0x80 if length else 0))
        if not length:
            break
    whole = bytearray(len(head) + sum([len(part) for part in parts]))  # once: a payload is large
    at = 0
    for part in (head,) + parts:
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def publish(topic, payload, packet_id=None, retain=False, again=False):
    """Return PUBLISH: QoS 1 with a packet id, QoS 0 without; `again` says that it has been sent before.

    The payload is bytes, or a tuple of its parts.
    """
    parts = payload if isinstance(payload, tuple) else (payload,)
    if packet_id is None:
        return packet(PUBLISH | retain, text(topic), *parts)
    return packet(PUBLISH | 0x02 | retain | again << 3, text(topic), packet_id.to_bytes(2, "big"), *parts)


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
            raise ValueError("an acknowledgement without a packet id")
        return self.body[0] << 8 | self.body[1]

    def message(self):
        """Return (topic, payload, packet id or None) of a PUBLISH; the payload is None if it is not whole.

        Raises ValueError.
        """
        body = self.body
        end = 2 + (body[0] << 8 | body[1]) if len(body) > 1 else 2
        qos = self.flags >> 1 & 3
        start = end + 2 if qos else end
        if len(body) < start or qos > 1:
            raise ValueError("not a PUBLISH that was asked for")
        packet_id = body[end] << 8 | body[end + 1] if qos else None
        return str(body[2:end], "utf-8"), body[start:] if self.is_whole else None, packet_id


class PacketReader:
    """Takes a stream in pieces of any size and returns its packets; keeps at most `limit` bytes of one."""

    def __init__(self, limit):
        self._limit = limit
        self._start(None)

    def _start(self, first):
        self._first = first
        self._length = self._shift = 0
        self._knows_length = False
        self._body = bytearray()
        self._filled = self._left = 0

    def is_amid(self, kind):
        """Whether a packet of this kind has begun."""
        return self._first is not None and self._first & 0xF0 == kind

    def feed(self, data):
        """Return the packets that are complete now. Raises ValueError when it is no MQTT."""
        packets = []
        at = 0
        while at < len(data):
            if self._first is None:
                self._start(data[at])
                at += 1
            elif not self._knows_length:
                self._take_length(data[at])
                at += 1
            else:
                count = min(self._left, len(data) - at)
                kept = min(count, len(self._body) - self._filled)
                self._body[self._filled : self._filled + kept] = data[at : at + kept]
                self._filled += kept
                self._left -= count
                at += count
            if self._knows_length and not self._left:
                packets.append(Packet(self._first, self._body, self._length <= self._limit))
                self._start(None)
        return packets

    def _take_length(self, digit):
        self._length |= (digit & 0x7F) << self._shift
        self._shift += 7
        if digit & 0x80:
            if self._shift == 28:
                raise ValueError("not MQTT: a length of more than four bytes")
            return
        self._knows_length = True
        self._left = self._length
        # all at once: a body that grew would be copied again and again, and leave holes behind
        self._body = bytearray(self._length if self._length <= self._limit else min(_HEAD_BYTES, self._limit))
