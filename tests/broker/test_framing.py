"""However TCP cuts the stream: the same readings are stored, and the same answers given."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.broker.connection import Connection
from gateway.broker.packets import remaining_length
from tests.broker.raw import ACCEPTED, PINGREQ, PINGRESP, connect, puback, pubcomp, publish, pubrec, pubrel
from tests.site import Site, reading, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"


class Wire(asyncio.Transport):
    """A socket whose client is the test: what it is fed arrives in exactly these pieces."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._closing = False
        self.sent = b""
        self.reading = asyncio.Event()
        self.reading.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Its client reads everything at once."""

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


class Packets(NamedTuple):
    """What goes in, and what must come out."""

    sent: list[bytes]
    in_order: list[bytes]
    """PUBACK and PUBREC follow the order of the publishes."""
    at_once: list[bytes]
    """These need no commit, so they may overtake the others."""
    stored: list[int]
    """The seq of each reading, in order."""


def packets(boot_id: str) -> Packets:
    """One of everything a board sends."""

    def body(seq: int, **more: Any) -> bytes:
        return reading(boot_id=boot_id, seq=seq, **more)

    sent = [
        publish(TOPIC, body(1), qos=1, packet_id=1),
        PINGREQ,
        publish(TOPIC, body(2)),
        publish(STATUS, b"", qos=1, packet_id=2),
        publish(TOPIC, body(3, padding="x" * 200), qos=2, packet_id=3),
        publish(TOPIC, body(3, padding="x" * 200), qos=2, packet_id=3, dup=True),
        pubrel(3),
        publish("neurobuild/sensors/kitchen/data", body(4, padding="x" * 20_000), qos=1, packet_id=4),
        publish(TOPIC, b"not json", qos=1, packet_id=5),
        publish(TOPIC, body(1), qos=1, packet_id=1, dup=True),
        PINGREQ,
    ]
    acks = [puback(1), puback(2), pubrec(3), pubrec(3), puback(4), puback(5), puback(1)]
    return Packets(sent, acks, [PINGRESP, pubcomp(3), PINGRESP], [1, 2, 3, 4])


def split_into_packets(data: bytes) -> list[bytes]:
    found = []
    while data:
        length, start = remaining_length(data, 1)
        found.append(data[: start + length])
        data = data[start + length :]
    return found


async def deliver(site: Site, stream: bytes, cuts: list[int], done: Callable[[Wire], bool]) -> Wire:
    """Let a stream arrive in pieces at a connection of its own."""
    connection = Connection(site.gateway._running.door)
    wire = Wire(connection)
    connection.connection_made(wire)
    edges = [0, *sorted({cut % len(stream) for cut in cuts} - {0}), len(stream)]
    for start, end in pairwise(edges):
        async with asyncio.timeout(20):
            await wire.reading.wait()
        connection.data_received(stream[start:end])
    await until(lambda: done(wire), "every answer")
    wire.close()
    await until(connection.lost.done, "the connection forgotten")
    return wire


FEW = st.lists(st.integers(min_value=1), max_size=12)
MANY = st.lists(st.integers(min_value=1), min_size=50, max_size=400)
AT_THE_FRONT = st.lists(st.integers(1, 600), min_size=1, max_size=40)
EVERY_BYTE_BUT_PADDING = [*range(1, 1_200), *range(21_000, 21_800)]


async def test_however_a_stream_is_cut_it_means_the_same(site: Site) -> None:
    example_number = 0

    async def check(cuts: list[int]) -> None:
        nonlocal example_number
        example_number += 1
        boot_id = f"boot-{example_number}"
        expected = packets(boot_id)
        hello = connect("split", site.kitchen.username, site.kitchen.password)
        before = site.log.last_row
        quarantined = len(await site.quarantined())
        size = sum(map(len, [ACCEPTED, *expected.in_order, *expected.at_once]))
        stream = b"".join([hello, *expected.sent])
        wire = await deliver(site, stream, cuts, lambda wire: len(wire.sent) >= size)
        first, *answers = split_into_packets(wire.sent)
        assert first == ACCEPTED
        assert [answer for answer in answers if answer[0] in (0x40, 0x50)] == expected.in_order
        assert [answer for answer in answers if answer[0] not in (0x40, 0x50)] == expected.at_once
        assert [one.seq for one in await site.log.read(before, limit=100)] == expected.stored
        assert [one.payload for one in (await site.quarantined())[quarantined:]] == [b"not json"]

    loop = asyncio.get_running_loop()

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(FEW | MANY | AT_THE_FRONT)
    @example([])
    @example(EVERY_BYTE_BUT_PADDING)
    def explore(cuts: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(check(cuts), loop).result(30)

    await asyncio.to_thread(explore)
