"""Logs to be damaged, the damage, and what is left."""

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.log import Log

PAGE = 4096
_AT_ONCE = 5_000
_DEVICES = 100


def reading(log: Log, seq: int, *, size: int = 380) -> NewReading:
    """Return a reading whose content follows from its number alone."""
    return NewReading(
        log.stream("default", f"board-{seq % _DEVICES:03}", "boot-1"),
        seq,
        seq,
        TimeSource.DEVICE,
        seq,
        0,
        b'{"seq":%d,"sensors":{"pir":{"motion_detected":true}},"note":"%s"}' % (seq, b"x" * size),
        metadata=f'{{"room":"{seq % 7}"}}',
    )


@asynccontextmanager
async def opened(path: Path, told: list[str] | None = None) -> AsyncIterator[Log]:
    tell = (lambda _: None) if told is None else told.append
    async with Log.create(path, StorageSettings(), clock=ManualClock(), metrics=Metrics(), tell=tell) as log:
        yield log


async def fill(path: Path, readings: int, *, cursor: int = 0, size: int = 380) -> str:
    """Store readings 1, 2, … in rows 1, 2, …, and a cursor; returns the log's own id."""
    async with opened(path) as log:
        for first in range(1, readings + 1, _AT_ONCE):
            last = min(first + _AT_ONCE, readings + 1)
            await log.append([reading(log, seq, size=size) for seq in range(first, last)])
        await log.open_cursor("cloud", start="oldest")
        log.move_cursor("cloud", cursor)
        return log.uuid


def overwrite(path: Path, pages: int, seed: int) -> list[int]:
    """Put random bytes in place of random pages."""
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(path.stat().st_size // PAGE), pages))
    with path.open("r+b") as file:
        for page in chosen:
            file.seek(page * PAGE)
            file.write(rng.randbytes(PAGE))
    return chosen


async def no_room(*_: object) -> bool:
    """Take the place of `Log._has_room`."""
    return False


async def salvaged(log: Log) -> None:
    """Wait until all that can come back is back."""
    async with asyncio.timeout(100):
        while log.care.is_damaged or log.salvages:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def corrupt_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.corrupt-*") if not file.name.endswith("-wal"))


def survivors(path: Path, *, size: int = 380) -> tuple[int, int]:
    """Return how many readings are in the log with the very row and content they had, and how many with others."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            """SELECT h.id, h.seq, h.time_ms, h.payload, s.organization_id, s.device_id, s.boot_id, m.json
            FROM device_telemetry_history h JOIN streams s ON s.id = h.stream LEFT JOIN device_metadata m
            ON m.id = h.metadata"""
        )
        right = wrong = 0
        for row, seq, time_ms, payload, *stream, metadata in rows:
            same = (
                row == seq == time_ms
                and payload.startswith(b'{"seq":%d,' % seq)
                and payload.endswith(b'"note":"%s"}' % (b"x" * size))
                and stream == ["default", f"board-{seq % _DEVICES:03}", "boot-1"]
                and metadata == f'{{"room":"{seq % 7}"}}'
            )
            right += same
            wrong += not same
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return right, wrong


async def rescue(path: Path) -> tuple[int, int, float]:
    """Open a damaged log; returns the readings that came back right and wrong, and how long it took."""
    began = time.monotonic()
    told: list[str] = []
    async with opened(path, told) as log:
        open_s = time.monotonic() - began
        if not log.salvages:
            await log.buffer()
            log.care.check()
            await asyncio.sleep(0)
        async with asyncio.timeout(100):
            while len(told) < 2:  # noqa: ASYNC110 - found, and finished
                await asyncio.sleep(0.01)
        await salvaged(log)
        print(*told, f"open after {open_s:.2f} s, done after {time.monotonic() - began:.1f} s", sep="\n  ")
    right, wrong = survivors(path)
    return right, wrong, open_s
