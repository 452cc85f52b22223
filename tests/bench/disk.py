"""What a reading costs the disk: bytes written for each, by how many come and how long a commit waits for company.

Counted is `write_bytes` of the gateway's process in /proc: whole pages (4 kB), when they are dirtied. That is what
SQLite writes to the write-ahead log, and back to the database each time that it is full (16 MB), and whatever else the
gateway writes meanwhile. A slow turn does not fill it; so the second figure is what it costs to write back what is
still in it at the end: at most, as pages that many readings share are written back once in a longer time. Not counted
are the file system's own journal, and what the flash of an SD card rewrites beyond that. Each turn begins with an empty
log; logins and the first readings are past when the counting begins.
"""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.storage.data_dir import DataDir
from tests.bench import process, site
from tests.bench.measurements import Row

RATES = (1, 10, 100, 1_000)
"""Readings a second."""
DELAYS_MS = (0, 50, 1_000)
"""`commit_max_delay_ms`."""

_BOARDS = 100
_PROBE_BYTES = 1_000_000
_WARM_UP_S = 2.0
_LOOK_S = 0.02


class NotOnDisk(Exception):
    """What is written in this folder goes to no disk; the message says what to do."""


async def disk(
    folder: Path, *, seconds: float, rates: Sequence[int] = RATES, delays_ms: Sequence[int] = DELAYS_MS
) -> list[Row]:
    """Measure every rate with every delay. Raises NotOnDisk."""
    prepared = folder / "prepared"
    logins_file = await site.prepare(prepared, devices=_BOARDS, readings=0)
    logins = json.loads(logins_file.read_text())
    _check(folder)
    with site.copied(prepared) as running:
        table: list[Row] = [("written when nothing comes", f"{await _idle(running, seconds) / 1000:,.1f} kB/s")]
    delays = ", ".join(map(str, delays_ms))
    table.append((f"written for each reading, with commit_max_delay_ms {delays}", "meanwhile + afterwards, kB"))
    for rate in rates:
        boards = min(rate, _BOARDS)
        logins_file.write_text(json.dumps(logins[:boards]))
        figures = []
        for delay_ms in delays_ms:
            with site.copied(prepared) as running:
                figures.append(await _turn(running, delay_ms, boards / rate, seconds))
        told = ", ".join(f"{meanwhile / 1000:.1f} + {afterwards / 1000:.1f}" for meanwhile, afterwards in figures)
        table.append((f"  {rate:,} readings/s", told))
    return table


async def _turn(folder: Path, delay_ms: int, every_s: float, seconds: float) -> tuple[float, float]:
    """Return the bytes written for each reading, meanwhile and by writing back what is left in the write-ahead log."""
    async with site.gateway(folder, commit_max_delay_ms=delay_ms) as gateway:
        warm_up = min(seconds, _WARM_UP_S)
        load = site.load(gateway.mqtt_port, folder / "logins.json", every_s=every_s, seconds=seconds, warm_up=warm_up)
        loading = asyncio.create_task(load)
        looks: list[tuple[float, int]] = []
        while True:
            is_over = loading.done()
            looks.append((time.perf_counter(), process.written_bytes(gateway.pid)))
            if is_over:
                break
            await asyncio.sleep(_LOOK_S)
        afterwards = _write_back(folder)
    measured = loading.result()
    assert not measured["unacknowledged"], "not everything was acknowledged"
    before = next(written for at, written in looks if at >= measured["started"])
    readings = measured["acked"] - measured["acked_before"]
    return (looks[-1][1] - before) / readings, afterwards / readings


def _write_back(folder: Path) -> int:
    """Write the log's write-ahead log back to the database; returns how many bytes that were."""
    before = process.written_bytes(os.getpid())
    with closing(sqlite3.connect(DataDir(folder).log_db)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    return process.written_bytes(os.getpid()) - before


async def _idle(folder: Path, seconds: float) -> float:
    """Return the bytes a second that are written when nothing comes."""
    async with site.gateway(folder) as gateway:
        await asyncio.sleep(min(seconds, _WARM_UP_S))
        before = process.written_bytes(gateway.pid)
        await asyncio.sleep(seconds)
        return (process.written_bytes(gateway.pid) - before) / seconds


def _check(folder: Path) -> None:
    before = process.written_bytes(os.getpid())
    with (folder / "probe").open("wb") as probe:
        probe.write(bytes(_PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())
    if process.written_bytes(os.getpid()) - before < _PROBE_BYTES:
        raise NotOnDisk(f"{folder} is on no disk (a tmpfs?): choose another with --folder; nothing was measured.")
