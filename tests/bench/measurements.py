"""What is measured, and how."""

import asyncio
import time
from pathlib import Path

from tests.bench import site
from tests.bench.answers import get

Row = tuple[str, str]


async def ingest(folder: Path, *, connections: int, window: int, seconds: float, rows: int) -> list[Row]:
    """Durable QoS 1 ingest: parse, validate, dedupe, sync, then acknowledge; into a log that is not empty."""
    filled = time.perf_counter()
    logins = await site.prepare(folder, devices=connections, readings=rows)
    filled = time.perf_counter() - filled
    async with site.gateway(folder) as gateway:
        cpu = gateway.cpu_seconds()
        measured = await site.load(gateway.mqtt_port, logins, window=window, seconds=seconds, warm_up=2)
        cpu = gateway.cpu_seconds() - cpu
        memory = gateway.memory_mb()
        status = await get(gateway.http_port, "/ready")
    stored = status["buffer"]["readings"] - rows
    return [
        ("readings in the log before", f"{rows:,} (made in {filled:.0f} s)"),
        (f"acknowledged, {connections} connections, window {window}, {seconds:.0f} s", f"{measured['rate']:,.0f}/s"),
        ("publish to PUBACK, p50 / p99", f"{measured['p50_ms']:.1f} / {measured['p99_ms']:.1f} ms"),
        ("acknowledged / stored", f"{measured['acked']:,} / {stored:,}"),
        ("gateway memory, processor time a reading", f"{memory:.0f} MB, {cpu / measured['acked'] * 1e6:.1f} µs"),
        ("log afterwards", f"{status['buffer']['bytes'] / 1e6:,.0f} MB"),
    ]


async def end_to_end(folder: Path, *, connections: int, window: int, readings: int) -> list[Row]:
    """From the first publish until the receiver has answered for the last reading, rate limit lifted."""
    logins = await site.prepare(folder, devices=connections, readings=0)
    async with site.receiver(folder) as port, site.gateway(folder, site.Destination(port)) as gateway:
        started = time.perf_counter()
        measured = await site.load(
            gateway.mqtt_port, logins, window=window, messages=readings // connections, warm_up=0
        )
        acknowledged = time.perf_counter() - started
        stats = await get(port, "/stats")
        while stats["unique"] < measured["acked"] and time.perf_counter() - started < 300:
            await asyncio.sleep(0.05)
            stats = await get(port, "/stats")
        elapsed = time.perf_counter() - started
    verdict = f"{stats['readings']:,} / {stats['unique']:,} / {stats['signature_failures']:,}"
    return [
        (f"published and acknowledged, {connections} connections, window {window}", f"{measured['acked']:,}"),
        ("first publish to last PUBACK", f"{measured['acked'] / acknowledged:,.0f}/s"),
        ("first publish to last answer of the receiver", f"{stats['unique'] / elapsed:,.0f}/s"),
        ("received / different / bad signatures", verdict),
    ]
