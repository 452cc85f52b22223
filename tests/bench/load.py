"""Load: MQTT clients that publish as fast as their window allows, with the payload that real boards send.

Pre-encoded down to the sequence number, so that one core can drive tens of thousands of readings a second. Run as a
process of its own: `python -m tests.bench.load --port … --clients-file …`. Prints one JSON line.
"""

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from gateway.broker.packets import encode_packet, encode_text

_SEQ_MARK = "987654321012"
SEQ_DIGITS = 10
"""In a payload; padded with spaces in front."""


def payload(device_id: str, boot_id: str, seq: int | str) -> str:
    """Return the telemetry payload of the documentation, 560 bytes."""
    reading = {
        "device_id": device_id,
        "timestamp": "2026-11-20T12:00:00.250Z",
        "boot_id": boot_id,
        "seq": seq,
        "firmware": "1.4.0",
        "sensors": {
            "ld2410": {
                "presence": True,
                "moving": True,
                "stationary": False,
                "distance_cm": 123,
                "moving_distance_cm": 123,
                "moving_energy": 55,
                "stationary_distance_cm": 0,
                "stationary_energy": 0,
            },
            "pir": {"motion_detected": True, "pulses": 2},
            "mq134": {
                "gas_concentration": 12.5,
                "unit": "ppm",
                "state": "ok",
                "raw_uv": 812000,
                "rs_ohm": 31250.0,
                "ratio": 1.02,
            },
        },
        "health": {"rssi_dbm": -61, "heap_free": 61200, "uptime_s": 86400},
    }
    return json.dumps(reading)


@dataclass(slots=True)
class Tally:
    """What all clients did together."""

    acked: int = 0
    latencies_s: list[float] = field(default_factory=list)


class LoadClient(asyncio.Protocol):
    """One board with `window` unacknowledged readings at a time."""

    def __init__(self, device: dict[str, str], load: "Load", boot_id: str, tally: Tally) -> None:
        self.device = device
        self.tally = tally
        self._last = load.messages
        self._paced = load.every_s > 0
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing more is sent and everything is acknowledged."""
        self.running = True
        self.seq = 0
        before, after = payload(device["device_id"], boot_id, _SEQ_MARK).split(f'"{_SEQ_MARK}"')
        self.topic = f"neurobuild/sensors/{device['device_id']}/data".encode()
        topic = encode_text(self.topic.decode())
        # One length for every packet: the sequence number is padded with spaces, which JSON allows.
        self._before, self.after = before.encode(), after.encode()
        length = len(topic) + 2 + len(self._before) + SEQ_DIGITS + len(self.after)
        self._fixed = encode_packet(0x32, bytes(length))[:-length] + topic
        self._acked = 0
        self.sent_at: list[float] = [0.0] * 65_536
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        username, password = self.device["username"], self.device["password"]
        body = encode_text("MQTT") + bytes([4, 0xC2, 0, 60])
        body += encode_text(self.device["device_id"]) + encode_text(username) + encode_text(password)
        self.transport.write(encode_packet(0x10, body))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.connected.done():
            assert data[:4] == b"\x20\x02\x00\x00", f"refused: {data!r}"
            data = data[4:]
            self.connected.set_result(None)
        whole = len(data) // 4
        self._rest = data[whole * 4 :]
        if whole:
            now = time.perf_counter()
            first = data[2] << 8 | data[3]
            self.tally.latencies_s.append(now - self.sent_at[first])
            self.tally.acked += whole
            self._acked += whole
            if self.running and not self._paced:
                self.publish(min(whole, self._last - self.seq) if self._last else whole)
            if not self.unacknowledged and not (self._paced and self.running) and not self.finished.done():
                self.finished.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.running, f"connection lost: {exc}"

    def publish(self, count: int) -> None:
        """Send `count` more readings."""
        if not count:
            return
        now = time.perf_counter()
        parts: list[bytes] = []
        for _ in range(count):
            self.seq += 1
            packet_id = self.packet_id(self.seq)
            self.sent_at[packet_id] = now
            parts += (
                self._fixed,
                packet_id.to_bytes(2, "big"),
                self._before,
                b"%*d" % (SEQ_DIGITS, self.seq),
                self.after,
            )
        self.transport.write(b"".join(parts))

    @staticmethod
    def packet_id(seq: int) -> int:
        """Return the packet id of a reading, which is also its place in `sent_at`."""
        return seq % 65_535 + 1

    @property
    def sent(self) -> list[float]:
        """When (CLOCK_MONOTONIC) each reading was published, from seq 1 on; there must be fewer than packet ids."""
        return [self.sent_at[self.packet_id(seq)] for seq in range(1, self.seq + 1)]

    @property
    def unacknowledged(self) -> int:
        """Readings on their way."""
        return self.seq - self._acked


@dataclass(slots=True, frozen=True)
class Load:
    """How much is published."""

    port: int
    window: int
    seconds: float
    warm_up_s: float
    messages: int = 0
    """Instead of a time: readings of each client."""
    every_s: float = 0
    """Instead of as fast as the window allows: each client publishes one reading in this time."""
    sent_file: Path | None = None
    """Where it is written when each reading was published."""


async def run(load: Load, devices: list[dict[str, str]]) -> dict[str, float]:
    """Drive one client for each device; returns counts, rate and latencies (of the first reading of each burst).

    And when the warm-up ended (CLOCK_MONOTONIC), what was acknowledged before, and how busy this process was since (1:
    a whole core).
    """
    loop = asyncio.get_running_loop()
    tally = Tally()
    clients: list[LoadClient] = []
    boot_id = f"{time.time_ns() & 0xFFFFFFFF:08x}"
    for device in devices:
        client = LoadClient(device, load, boot_id, tally)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", load.port)  # type: ignore[misc]
        clients.append(client)
        await client.connected
    if load.every_s:
        pacing = [asyncio.create_task(pace(client, load.every_s)) for client in clients]
    else:
        pacing = []
        for client in clients:
            client.publish(load.window)
    await asyncio.sleep(load.warm_up_s)
    base, started, cpu = tally.acked, time.perf_counter(), time.process_time()
    tally.latencies_s.clear()
    if load.messages:
        await asyncio.gather(*(client.finished for client in clients))
    else:
        await asyncio.sleep(load.seconds)
    measured, elapsed = tally.acked - base, time.perf_counter() - started
    busy = (time.process_time() - cpu) / elapsed
    for task in pacing:
        task.cancel()
    for client in clients:
        client.running = False
        if not client.unacknowledged and not client.finished.done():
            client.finished.set_result(None)
    await asyncio.wait([client.finished for client in clients], timeout=10)
    latencies = sorted(tally.latencies_s)
    for client in clients:
        client.transport.close()
    if load.sent_file is not None:
        load.sent_file.write_text(json.dumps({client.device["device_id"]: client.sent for client in clients}))
    return {
        "rate": measured / elapsed,
        "started": started,
        "busy": busy,
        "acked": tally.acked,
        "acked_before": base,
        "unacknowledged": sum(client.unacknowledged for client in clients),
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


async def pace(client: LoadClient, every_s: float) -> None:
    """Publish one reading at a time whatever becomes of those before, as boards do; not all clients at once."""
    loop = asyncio.get_running_loop()
    due = loop.time() + random.uniform(0, every_s)
    while True:
        await asyncio.sleep(due - loop.time())
        client.publish(1)
        due += every_s


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices-file", type=Path, required=True)
    parser.add_argument("--window", type=int, default=10, help="unacknowledged readings of one client")
    parser.add_argument("--seconds", type=float, default=10, help="how long it is measured")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds before")
    parser.add_argument("--messages", type=int, default=0, help="instead of a time: readings of each client")
    parser.add_argument("--every-s", type=float, default=0, help="instead of a window: each client's pace")
    parser.add_argument("--sent-file", type=Path, help="where to write when each reading was published")
    arguments = parser.parse_args()
    devices = json.loads(arguments.devices_file.read_text())
    load = Load(
        arguments.port,
        arguments.window,
        arguments.seconds,
        arguments.warm_up,
        arguments.messages,
        arguments.every_s,
        arguments.sent_file,
    )
    print(json.dumps(uvloop.run(run(load, devices))))


if __name__ == "__main__":
    main()
