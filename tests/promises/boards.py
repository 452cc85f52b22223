"""Boards that keep to MQTT's QoS 1: whatever breaks, they come back and send again, as DUP, what was not acknowledged.

A board remembers what was acknowledged to it. It does not: give up.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.broker.packets import CONNACK_ACCEPTED, PUBACK, encode_packet, encode_text
from gateway.storage.state import DeviceCredential
from tests.promises.readings import Stream, payload

_PUBLISH_QOS1 = 0x32
_DUP = 0x08
_KNOCK_AGAIN_S = 0.05
_TICK_S = 0.05


class Board:
    """One board with at most `window` unacknowledged readings, until `readings` are acknowledged (None: for ever).

    At full speed, or `rate_per_s` readings a second.
    """

    def __init__(
        self,
        login: DeviceCredential,
        port: int,
        *,
        boot_id: str = "boot-1",
        readings: int | None = None,
        window: int = 20,
        rate_per_s: float | None = None,
    ) -> None:
        self.stream: Stream = (login.device_id, boot_id)
        self.acked: set[int] = set()
        self.sent = 0
        """Different readings."""
        self.resent = 0
        self.longest_ack_s = 0.0
        self._login, self._port = login, port
        self._readings, self._window, self._rate = readings, window, rate_per_s
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._unacked: dict[int, tuple[int, float]] = {}  # packet id to seq and when it was sent first
        self._topic = encode_text(login.topics[0])

    async def run(self) -> None:
        """Publish until everything is acknowledged."""
        while not self._is_done:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(_KNOCK_AGAIN_S * random.random())
                continue
            try:
                await self._talk(reader, writer)
            except (OSError, EOFError):
                pass  # the gateway is gone: come back
            finally:
                writer.close()

    @property
    def _is_done(self) -> bool:
        return len(self.acked) == self._readings

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        login = self._login
        hello = encode_text("MQTT") + bytes([4, 0xC2, 0, 60]) + encode_text(login.device_id)
        writer.write(encode_packet(0x10, hello + encode_text(login.username) + encode_text(login.password)))
        assert await reader.readexactly(4) == CONNACK_ACCEPTED
        for packet_id, (seq, _) in self._unacked.items():
            self.resent += 1
            writer.write(self._publish(packet_id, seq, again=True))
        while not self._is_done:
            self._send_new(writer)
            try:
                async with asyncio.timeout(_TICK_S if self._rate else None):
                    acks = await reader.readexactly(4)
            except TimeoutError:
                continue
            self._take(acks)

    def _send_new(self, writer: asyncio.StreamWriter) -> None:
        """Fill the window, if it may."""
        upto = len(self.acked) + self._window
        if self._readings is not None:
            upto = min(upto, self._readings)
        now = self._loop.time()
        if self._rate:
            upto = min(upto, int((now - self._started) * self._rate))
        for seq in range(self.sent + 1, upto + 1):
            packet_id = seq % 65_535 + 1
            self._unacked[packet_id] = (seq, now)
            self.sent = seq
            writer.write(self._publish(packet_id, seq))

    def _take(self, ack: bytes) -> None:
        assert ack[:2] == PUBACK, ack
        seq, sent_at = self._unacked.pop(int.from_bytes(ack[2:]))
        self.longest_ack_s = max(self.longest_ack_s, self._loop.time() - sent_at)
        self.acked.add(seq)

    def _publish(self, packet_id: int, seq: int, *, again: bool = False) -> bytes:
        body = self._topic + packet_id.to_bytes(2, "big") + self._payload(seq)
        return encode_packet(_PUBLISH_QOS1 | (_DUP if again else 0), body)

    def _payload(self, seq: int) -> bytes:
        return payload(*self.stream, seq)


@asynccontextmanager
async def running(boards: Sequence[Board]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run boards beside what is done inside; those that are still at it at the end are stopped."""
    tasks = [asyncio.create_task(board.run(), name=board.stream[0]) for board in boards]
    try:
        yield tasks
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def acknowledged(boards: Sequence[Board]) -> dict[Stream, set[int]]:
    """Return what was acknowledged to any of them."""
    return {board.stream: board.acked for board in boards}
