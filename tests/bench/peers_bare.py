"""The ceiling: our ingest and our writer behind a protocol that only frames PUBLISH and answers it after the commit.

No logins, no rights, no limits, no sessions, nobody who listens: the way in is all that neurogate
has more. `python -m tests.bench.peers_bare FOLDER`.
"""

import asyncio
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import cast

from gateway.broker import packets
from gateway.broker.packets import PacketType
from gateway.ingest import Ingest
from gateway.model.errors import StoreFailed
from tests.bench.peers_ingest import Devices, own_ingest, run, tell_ready


class _Bare(asyncio.Protocol):
    """One connection."""

    def __init__(self, ingest: Ingest, devices: Devices) -> None:
        self._ingest = ingest
        self._devices = devices
        self._topics: dict[bytes, str] = {}
        self._owed: deque[bytes] = deque()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        position, size = 0, len(data)
        while size - position >= 2:
            kind = data[position] >> 4
            length, start = packets.remaining_length(data, position + 1)
            end = start + length
            if length < 0 or end > size:
                break
            if kind == PacketType.PUBLISH:
                self._publish(data, start, end)
            elif kind == PacketType.CONNECT:
                self._transport.write(packets.CONNACK_ACCEPTED)
            position = end
        self._rest = data[position:]

    def _publish(self, data: bytes, start: int, end: int) -> None:
        body = start + 4 + (data[start] << 8 | data[start + 1])
        name = data[start + 2 : body - 2]
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = name.decode()
        self._owed.append(packets.PUBACK + data[body - 2 : body])
        self._ingest.take(self._devices[topic], data[body:end], self, source=topic)

    def committed(self, count: int) -> None:
        owed = self._owed
        self._transport.write(b"".join([owed.popleft() for _ in range(count)]))

    def failed(self, _: StoreFailed) -> None:
        self._transport.abort()


async def _serve(folder: Path, ends: asyncio.Event) -> None:
    async with own_ingest(folder) as ingest:
        make = partial(_Bare, ingest, Devices())
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=1_000)
        tell_ready(server.sockets[0].getsockname()[1])
        await ends.wait()
        server.close()


if __name__ == "__main__":
    run(partial(_serve, Path(sys.argv[1])))
