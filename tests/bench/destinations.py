"""P3, measured: five destinations that fail, and the rate of five others, with and without them, in turns."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median

from tests.bench import site
from tests.bench.answers import get
from tests.bench.backlog import never_answers
from tests.bench.measurements import Row
from tests.promises.dead_ends import refusing_port

_AT_MOST_S = 600
_ALIVE = 5
_ALONE, _BESIDE = "alone", "beside"


@dataclass(slots=True)
class _Rates:
    """Of the five together, in each round."""

    delivered: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    failures: int = 0


async def destinations(folder: Path, *, readings: int, rounds: int) -> list[Row]:
    """Let five destinations catch up with the same readings, beside five that fail and without them."""
    turns = list(product(range(rounds), (_ALONE, _BESIDE)))
    names = [f"{kind}-{number}-{one}" for number, kind in turns for one in range(_ALIVE)]
    dead = ("hangs-1", "hangs-2", "refuses-1", "refuses-2", "errs")
    await site.prepare(folder, devices=100, readings=readings, behind=(*names, *dead))
    found = {_ALONE: _Rates(), _BESIDE: _Rates()}
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(never_answers())
        closed = stack.enter_context(refusing_port())
        errs = await stack.enter_async_context(_always_errs())
        failing = [
            site.Destination(port, name)
            for name, port in zip(dead, (silent, silent, closed, closed, errs), strict=True)
        ]
        for number, kind in turns:
            alive = [f"{kind}-{number}-{one}" for one in range(_ALIVE)]
            await _turn(folder, alive, failing if kind == _BESIDE else [], readings, found[kind])
    alone, beside = median(found[_ALONE].delivered), median(found[_BESIDE].delivered)
    each = ", ".join(
        f"{one / other:.2f}" for other, one in zip(found[_ALONE].delivered, found[_BESIDE].delivered, strict=True)
    )
    return [
        ("readings that each of five destinations has to get", f"{readings:,}"),
        (
            f"the five alone, median of {rounds}",
            f"{alone:,.0f}/s, {median(found[_ALONE].cpu_us):.1f} µs of processor time each",
        ),
        (
            "beside five that fail (2 never answer, 2 refuse connections, 1 answers 500)",
            f"{beside:,.0f}/s, {median(found[_BESIDE].cpu_us):.1f} µs of processor time each",
        ),
        ("ratio of the medians; of each round", f"x {beside / alone:.2f}; {each}"),
        ("failed attempts of the five that fail, in all rounds", f"{found[_BESIDE].failures:,}"),
    ]


async def _turn(folder: Path, alive: list[str], failing: list[site.Destination], readings: int, rates: _Rates) -> None:
    """Measure from when the gateway is ready until the receiver has answered for the last reading of the last."""
    async with site.receiver(folder) as port:
        living = [site.Destination(port, name) for name in alive]
        async with site.gateway(folder, *living, *failing) as gateway:
            started, cpu = time.perf_counter(), gateway.cpu_seconds()
            stats = await get(port, "/stats")
            while stats["readings"] < readings * _ALIVE and time.perf_counter() - started < _AT_MOST_S:
                await asyncio.sleep(0.05)
                stats = await get(port, "/stats")
            elapsed, cpu = time.perf_counter() - started, gateway.cpu_seconds() - cpu
            ready = await get(gateway.http_port, "/ready")
    rates.delivered.append(stats["readings"] / elapsed)
    rates.cpu_us.append(cpu / stats["readings"] * 1e6)
    rates.failures += sum(one["failures"] for one in ready["destinations"])
    assert all(not one["undelivered"] for one in ready["destinations"] if one["name"] in alive)


@asynccontextmanager
async def _always_errs() -> AsyncIterator[int]:
    """Take a request in, and answer 500."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
