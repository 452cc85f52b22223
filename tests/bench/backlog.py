"""What a long outage leaves: a week of undelivered readings, and what they cost the gateway.

How fast it starts, how fast it catches up and in how much memory, and whether a destination that is far behind slows
those who send readings: the same gateway on the same log without it, with one that never answers, and with one that is
catching up, in turns.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench import site
from tests.bench.answers import answer_ms, get
from tests.bench.measurements import Row
from tests.bench.watch import Seen, questions, watch

_WEEK_S = 7 * 86_400
_STARTS = 3
_QUESTIONS = 5
_DRAIN_AT_MOST_S = 600
_USUAL_RATE_LIMIT = 100
_BURST_S = 3.0
"""The rate limit lets some batches through at once after a quiet time; this long it is left to them."""

ALONE = "no destination"
STUCK = "one that never answers"
USUAL = "one that catches up, rate limit 100/min"
FASTEST = "one that catches up, rate limit lifted"


@dataclass(slots=True)
class _Ingest:
    """What whoever sends readings saw, each round."""

    rates: list[float] = field(default_factory=list)
    p50s_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    wal_mb: float = 0.0


async def backlog(folder: Path, *, connections: int, rows: int, seconds: float, rounds: int) -> list[Row]:
    """Fill a log with a week that nobody has got, and measure everything about it."""
    filled = time.perf_counter()
    logins = await site.prepare(
        folder, devices=connections, readings=rows, age_s=_WEEK_S, behind=("bench", "stuck", "behind")
    )
    filled = time.perf_counter() - filled
    table = [("undelivered readings, received over the last 7 days", f"{rows:,} (made in {filled:.0f} s)")]
    async with never_answers() as deaf_port, site.receiver(folder) as receiver_port:
        destinations = {
            ALONE: None,
            STUCK: site.Destination(deaf_port, "stuck"),
            USUAL: site.Destination(receiver_port, "behind", _USUAL_RATE_LIMIT),
            FASTEST: site.Destination(receiver_port, "behind"),
        }
        table += await _start(folder, destinations[STUCK])
        table += await _drain(folder, rows)
        ingest: defaultdict[str, _Ingest] = defaultdict(_Ingest)
        for _ in range(rounds):
            for name, destination in destinations.items():
                await _ingest(folder, destination, logins, seconds, ingest[name])
    return table + _compare(ingest, connections)


async def _start(folder: Path, destination: site.Destination | None) -> list[Row]:
    """From the start of the process until MQTT takes a connection and /ready says so."""
    started_s = []
    seen = Seen()
    for _ in range(_STARTS):
        started = time.perf_counter()
        async with site.gateway(folder, destination) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.mqtt_port)
            await answer_ms(gateway.http_port, "/ready")
            started_s.append(time.perf_counter() - started)
            writer.close()
            for _ in range(_QUESTIONS):
                await questions(gateway, seen)
    return [
        (f"process start to /ready and MQTT, slowest of {_STARTS}", f"{max(started_s):.2f} s"),
        (f"slowest of {_STARTS * _QUESTIONS} answers while nothing is delivered", seen.slowest()),
    ]


async def _drain(folder: Path, rows: int) -> list[Row]:
    """Until the receiver has answered for the last of them; a gateway that is asked how it is every second."""
    async with site.receiver(folder) as port:
        started = time.perf_counter()
        async with site.gateway(folder, site.Destination(port)) as gateway, watch(gateway, ask=True) as seen:
            cpu = gateway.cpu_seconds()
            stats = await get(port, "/stats")
            while stats["unique"] < rows and time.perf_counter() - started < _DRAIN_AT_MOST_S:
                await asyncio.sleep(0.05)
                stats = await get(port, "/stats")
            elapsed = time.perf_counter() - started
            cpu = gateway.cpu_seconds() - cpu
    memory = seen.memory_mb
    return [
        ("backlog delivered, from process start to the last answer", f"{stats['unique'] / elapsed:,.0f}/s"),
        (
            "received / different / bad signatures",
            f"{stats['readings']:,} / {stats['unique']:,} / {stats['signature_failures']:,}",
        ),
        ("processor time of the gateway a reading", f"{cpu / rows * 1e6:.1f} µs"),
        ("memory at start / most / at the end", f"{memory[0]:.0f} / {max(memory):.0f} / {memory[-1]:.0f} MB"),
        (f"slowest of {len(seen.answers_ms['/ready'])} answers meanwhile", seen.slowest()),
        ("write-ahead log, most", f"{max(seen.wal_mb):.1f} MB"),
    ]


async def _ingest(
    folder: Path, destination: site.Destination | None, logins: Path, seconds: float, result: _Ingest
) -> None:
    """Send as fast as is acknowledged, then at the pace of real boards: the time to a commit shows only there."""
    async with site.gateway(folder, destination) as gateway, watch(gateway) as seen:
        before = await get(gateway.http_port, "/ready")
        started = time.perf_counter()
        fast = await site.load(gateway.mqtt_port, logins, window=10, seconds=seconds, warm_up=_BURST_S)
        paced = await site.load(gateway.mqtt_port, logins, every_s=0.1, seconds=seconds, warm_up=1)
        elapsed = time.perf_counter() - started
        after = await get(gateway.http_port, "/ready")
    result.rates.append(fast["rate"])
    result.p50s_ms.append(paced["p50_ms"])
    result.p99s_ms.append(paced["p99_ms"])
    if destination is not None:
        delivered = after["destinations"][0]["delivered"] - before["destinations"][0]["delivered"]
        result.delivered.append(delivered / elapsed)
        assert after["destinations"][0]["undelivered"], "it was not behind all the time: fill the log with more"
    result.wal_mb = max(result.wal_mb, *seen.wal_mb)


def _compare(ingest: dict[str, _Ingest], connections: int) -> list[Row]:
    """Name the medians of the rounds, and their ratio to those without a destination."""
    alone = ingest[ALONE]
    table: list[Row] = []
    for name, one in ingest.items():
        rate, p50, p99 = median(one.rates), median(one.p50s_ms), median(one.p99s_ms)
        ratio = rate / median(alone.rates)
        latency = p99 / median(alone.p99s_ms)
        delivered = f", delivers {median(one.delivered):,.0f}/s" if one.delivered else ""
        table += [
            (f"with {name}: as fast as acknowledged", f"{rate:,.0f}/s, x {ratio:.2f}{delivered}"),
            (
                f"  {connections * 10:,} readings/s: publish to PUBACK, p50 / p99; write-ahead log, most",
                f"{p50:.1f} / {p99:.1f} ms, x {p50 / median(alone.p50s_ms):.2f} / {latency:.2f}; {one.wal_mb:.1f} MB",
            ),
        ]
    return table


@asynccontextmanager
async def never_answers() -> AsyncIterator[int]:
    """Listen, take everything in, and say nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
