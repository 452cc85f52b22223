"""How long a reading takes at the pace of boards: from its publish to its PUBACK, and to a webhook; and the memory.

Each board publishes at its pace, whatever becomes of the readings before. Each turn has a fresh gateway with default
settings on an empty log; without a destination, and with one. A reading has come to the webhook when the webhook, which
is this process, has the whole request with it. The clock is CLOCK_MONOTONIC, the same in all processes. The rate limit
of the destination is lifted: by the default, `rate_limit_per_minute = 100`, a reading waits for the next request, up to
0.6 s. Figures are medians of the rounds.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from aiohttp import web
from pydantic_core import from_json

from tests.bench import process, site
from tests.bench.measurements import Row
from tests.bench.watch import watch

RATES = (100, 1_000)
"""Readings a second."""

_BOARDS = 100
_ASKED_AT, _ASKED_MS = 1_000, 10
_WARM_UP_S = 1.0
_DELIVERED_S = 20
_LOOK_S = 0.05

Reading = tuple[str, int]
"""Its device id and its seq."""


@dataclass(slots=True)
class _Times:
    """p50 and p99 of each round, in ms."""

    alone: list[tuple[float, float]] = field(default_factory=list)
    delivering: list[tuple[float, float]] = field(default_factory=list)
    webhook: list[tuple[float, float]] = field(default_factory=list)
    missing: int = 0


async def latency(
    folder: Path, *, connections: int, seconds: float, rounds: int, rates: Sequence[int] = RATES
) -> list[Row]:
    """Measure all of it; `connections` are those whose memory is measured."""
    prepared = folder / "prepared"
    logins_file = await site.prepare(prepared, devices=max(_BOARDS, connections), readings=0)
    logins = json.loads(logins_file.read_text())
    logins_file.write_text(json.dumps(logins[:_BOARDS]))
    found = {rate: _Times() for rate in rates}
    for _ in range(rounds):
        for rate, times in found.items():
            with site.copied(prepared) as running:
                await _alone(running, rate, seconds, times)
            with site.copied(prepared) as running:
                await _delivering(running, rate, seconds, times)
    logins_file.write_text(json.dumps(logins[:connections]))
    table: list[Row] = []
    for rate, times in found.items():
        table += _describe(rate, times)
    with site.copied(prepared) as running:
        return table + await _memory(running, connections, seconds)


async def _alone(folder: Path, rate: int, seconds: float, times: _Times) -> None:
    async with site.gateway(folder) as gateway:
        times.alone.append(_puback(await _load(gateway, folder, rate, seconds)))


async def _delivering(folder: Path, rate: int, seconds: float, times: _Times) -> None:
    site.write_secret(folder)
    sent_file = folder / "sent.json"
    async with _webhook() as (port, came), site.gateway(folder, site.Destination(port)) as gateway:
        measured = await _load(gateway, folder, rate, seconds, sent_file=sent_file)
        ends = time.perf_counter() + _DELIVERED_S
        while True:
            if len(came) >= measured["acked"] or time.perf_counter() > ends:
                break
            await asyncio.sleep(_LOOK_S)
    times.delivering.append(_puback(measured))
    sent = {
        (device_id, seq): at
        for device_id, board in json.loads(sent_file.read_text()).items()
        for seq, at in enumerate(board, 1)
        if at >= measured["started"]
    }
    times.missing += len(sent.keys() - came.keys())
    times.webhook.append(_percentiles([came[reading] - at for reading, at in sent.items() if reading in came]))


async def _load(gateway: site.Site, folder: Path, rate: int, seconds: float, **options: object) -> dict[str, float]:
    every_s = _BOARDS / rate
    return await site.load(
        gateway.mqtt_port, folder / "logins.json", every_s=every_s, seconds=seconds, warm_up=_WARM_UP_S, **options
    )


@asynccontextmanager
async def _webhook() -> AsyncIterator[tuple[int, dict[Reading, float]]]:
    """Take batches in; yields the port, and when each reading came first."""
    came: dict[Reading, float] = {}

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        now = time.perf_counter()
        for reading in from_json(body)["readings"]:
            came.setdefault((reading["device_id"], reading["seq"]), now)
        return web.Response(status=204)

    app = web.Application(client_max_size=0)
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1], came
    finally:
        await runner.cleanup()


async def _memory(folder: Path, connections: int, seconds: float) -> list[Row]:
    """Of a gateway while each of its boards publishes once a second."""
    async with site.gateway(folder) as gateway:
        before = process.own_memory_mb(gateway.pid)
        async with watch(gateway) as seen:
            await site.load(gateway.mqtt_port, folder / "logins.json", every_s=1, seconds=seconds, warm_up=_WARM_UP_S)
        after = process.own_memory_mb(gateway.pid)
    return [
        (f"memory, {connections:,} connections, each a reading/s: at start, most (RSS)", _mb(seen.memory_mb)),
        ("  of its own (USS) before and after", f"{before:.0f}, {after:.0f} MB"),
    ]


def _mb(seen: Sequence[float]) -> str:
    return f"{seen[0]:.0f}, {max(seen):.0f} MB"


def _puback(measured: dict[str, float]) -> tuple[float, float]:
    assert not measured["unacknowledged"], "not everything was acknowledged"
    return measured["p50_ms"], measured["p99_ms"]


def _percentiles(times_s: list[float]) -> tuple[float, float]:
    ordered = sorted(times_s)
    return ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000


def _describe(rate: int, times: _Times) -> list[Row]:
    asked = f" (asked: p99 < {_ASKED_MS})" if rate == _ASKED_AT else ""
    missing = f", {times.missing:,} missing" if times.missing else ""
    return [
        (f"{rate:,} readings/s of {_BOARDS} boards", "p50 / p99"),
        ("  publish to PUBACK", _medians(times.alone) + asked),
        ("  publish to PUBACK, delivering to a webhook", _medians(times.delivering)),
        ("  publish to webhook", _medians(times.webhook) + missing),
    ]


def _medians(rounds: list[tuple[float, float]]) -> str:
    return f"{median(p50 for p50, _ in rounds):.1f} / {median(p99 for _, p99 in rounds):.1f} ms"
