"""Load for a broker's way out: boards that publish, and listeners that each hear all of them.

The boards are those of `load`. A listener reads only what it must: whose reading it is, its sequence number, when it
was sent. Run as a process of its own: `python -m tests.bench.listeners --port …`. Prints one JSON line.
"""

import argparse
import asyncio
import json
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from tests.bench.load import SEQ_DIGITS, Load, LoadClient, Tally, pace
from tests.broker.raw import ACCEPTED, connect, subscribe

TOPICS = "neurobuild/sensors/#"
_WARM_UP_S = 1.0
_SUBSCRIBE_S = 10
_DRAIN_AT_MOST_S = 10.0
_QUIET_S = 1.0
"""When nothing has come for so long, nothing more comes."""


@dataclass(slots=True)
class Heard:
    """What all listeners heard together."""

    deliveries: int = 0
    out_of_order: int = 0
    """Repeated, or older than one that came before."""
    latencies_s: list[float] = field(default_factory=list)


class Listener(asyncio.Protocol):
    """One subscriber of everything. What it is sent fits two bytes of remaining length."""

    def __init__(self, name: str, login: dict[str, str], qos: int, boards: list[LoadClient], heard: Heard) -> None:
        self._hello = connect(name, login["username"], login["password"]) + subscribe(TOPICS, qos=qos)
        self._boards = {board.topic: board for board in boards}
        self._heard = heard
        self._last = dict.fromkeys(self._boards, 0)
        self._rest = b""
        self._accepted = False
        self.subscribed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The return code."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        position = 0
        if not self._accepted:
            if len(data) < len(ACCEPTED):
                self._rest = data
                return
            assert data.startswith(ACCEPTED), f"refused: {data[:4]!r}"
            self._accepted = True
            position = len(ACCEPTED)
        now, size, heard, acks = time.perf_counter(), len(data), self._heard, bytearray()
        while size - position >= 3:
            first, length, start = data[position], data[position + 1], position + 2
            if length >= 0x80:
                length, start = length & 0x7F | data[start] << 7, start + 1
            end = start + length
            if end > size:
                break
            if first & 0xF0 == 0x30:
                after = start + 2 + (data[start] << 8 | data[start + 1])
                topic = data[start + 2 : after]
                board = self._boards[topic]
                last = end - len(board.after)
                seq = int(data[last - SEQ_DIGITS : last])
                if seq > self._last[topic]:
                    self._last[topic] = seq
                    heard.deliveries += 1
                    heard.latencies_s.append(now - board.sent_at[board.packet_id(seq)])
                else:
                    heard.out_of_order += 1
                if first & 0x06:
                    acks += b"\x40\x02" + data[after : after + 2]
            else:
                assert first == 0x90
                self.subscribed.set_result(data[end - 1])
            position = end
        self._rest = data[position:]
        if acks:
            self.transport.write(acks)


@dataclass(slots=True, frozen=True)
class Turn:
    """What a turn showed."""

    offered: float
    """Readings/s."""
    acked: float
    """Readings/s."""
    delivered: float
    """Deliveries/s, to all listeners together."""
    published: int
    """Readings, from the first to the last."""
    deliveries: int
    missing: int
    """Deliveries that had not come some seconds after the last reading was published."""
    out_of_order: int
    p50_ms: float
    """From the publish to the delivery."""
    p99_ms: float
    busy: float
    """The part of one processor that this process used."""


async def run(load: Load, boards: list[dict[str, str]], hub: dict[str, str], *, listeners: int, qos: int) -> Turn:
    """Publish and listen."""
    loop = asyncio.get_running_loop()
    tally, heard = Tally(), Heard()
    boot_id = f"{time.time_ns() & 0xFFFFFFFF:08x}"
    clients = [LoadClient(board, load, boot_id, tally) for board in boards]
    ears = [Listener(f"listener-{number}", hub, qos, clients, heard) for number in range(listeners)]
    for ear in ears:
        await loop.create_connection(lambda ear=ear: ear, "127.0.0.1", load.port)  # type: ignore[misc]
        assert await asyncio.wait_for(ear.subscribed, _SUBSCRIBE_S) == qos, "the subscription was refused"
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", load.port)  # type: ignore[misc]
        await client.connected
    pacing = [asyncio.create_task(pace(client, load.every_s)) for client in clients] if load.every_s else []
    if not pacing:
        for client in clients:
            client.publish(load.window)
    await asyncio.sleep(load.warm_up_s)
    heard.latencies_s.clear()
    published, acked, delivered = sum(client.seq for client in clients), tally.acked, heard.deliveries
    started, busy = time.perf_counter(), _cpu_s()
    await asyncio.sleep(load.seconds)
    elapsed, busy = time.perf_counter() - started, _cpu_s() - busy
    offered = (sum(client.seq for client in clients) - published) / elapsed
    rates = (tally.acked - acked) / elapsed, (heard.deliveries - delivered) / elapsed
    for task in pacing:
        task.cancel()
    for client in clients:
        client.running = False
    published = sum(client.seq for client in clients)
    await _drain(heard, published * listeners)
    latencies = sorted(heard.latencies_s)
    missing = published * listeners - heard.deliveries
    for transport in [one.transport for one in clients] + [one.transport for one in ears]:
        transport.abort()
    return Turn(
        offered,
        *rates,
        published,
        heard.deliveries,
        missing,
        heard.out_of_order,
        latencies[len(latencies) // 2] * 1000,
        latencies[int(len(latencies) * 0.99)] * 1000,
        busy / elapsed,
    )


async def _drain(heard: Heard, expected: int) -> None:
    """Wait for what is on its way, as long as something comes."""
    ends = time.perf_counter() + _DRAIN_AT_MOST_S
    before, quiet_since = -1, 0.0
    while (now := time.perf_counter()) < ends and heard.deliveries < expected:
        if heard.deliveries != before:
            before, quiet_since = heard.deliveries, now
        elif now - quiet_since > _QUIET_S:
            return
        await asyncio.sleep(0.02)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--boards-file", type=Path, required=True)
    parser.add_argument("--hub-file", type=Path, required=True, help="the login that all listeners share")
    parser.add_argument("--listeners", type=int, required=True)
    parser.add_argument("--qos", type=int, default=0, help="of the listeners")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=0, help="readings/s of all boards; 0: as fast as acknowledged")
    arguments = parser.parse_args()
    boards = json.loads(arguments.boards_file.read_text())
    hub = json.loads(arguments.hub_file.read_text())
    every_s = len(boards) / arguments.rate if arguments.rate else 0
    load = Load(arguments.port, 10, arguments.seconds, _WARM_UP_S, every_s=every_s)
    turn = uvloop.run(run(load, boards, hub, listeners=arguments.listeners, qos=arguments.qos))
    print(json.dumps(asdict(turn)))


if __name__ == "__main__":
    main()
