"""One write for a turn of the event loop: nothing is lost, reordered, or kept waiting without a bound."""

import asyncio

from gateway.broker.turn_writer import TurnWriter


class Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed


async def writer(transport: Transport) -> TurnWriter:
    return TurnWriter(asyncio.get_running_loop(), transport, lambda: transport.writes.append(b"|"))


async def test_what_is_sent_in_one_turn_is_one_write_in_order() -> None:
    transport = Transport()
    sends = await writer(transport)
    for part in (b"a", b"b", b"c"):
        sends.write(part)
    assert transport.writes == []
    await asyncio.sleep(0)
    sends.write(b"d")
    await asyncio.sleep(0)
    assert transport.writes == [b"abc", b"|", b"d", b"|"]


async def test_what_is_much_does_not_wait_for_the_end_of_the_turn() -> None:
    transport = Transport()
    sends = await writer(transport)
    for _ in range(3):
        sends.write(bytes(40_000))
    assert [len(data) for data in transport.writes] == [80_000, 1]
    sends.flush()
    await asyncio.sleep(0)
    assert [len(data) for data in transport.writes] == [80_000, 1, 40_000, 1]


async def test_nothing_is_written_to_what_is_closed() -> None:
    transport = Transport()
    sends = await writer(transport)
    sends.write(b"a")
    transport.is_closed = True
    await asyncio.sleep(0)
    assert transport.writes == []
