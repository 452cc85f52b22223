"""Fills a log as fast as it takes readings, and says what became of each: `python -m tests.promises.filler FOLDER …`.

With `--others` somebody else takes all the disk that is left after a third of the work, and gives it back after two
thirds. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.log import Log

READER = "a-destination"
AT_ONCE = 500
_PATIENCE_S = 20.0
_PAYLOAD = b'{"device_id":"board","sensors":{"noise":"%s"}}' % (b"x" * 500)


def readings(log: Log, boot_id: str, first: int, count: int = AT_ONCE) -> list[NewReading]:
    """Make readings of one board, `count` from seq `first` on."""
    stream = log.stream("default", "board", boot_id)
    now = SystemClock().now_ms()
    return [NewReading(stream, seq, now, TimeSource.DEVICE, now, 0, _PAYLOAD) for seq in range(first, first + count)]


@asynccontextmanager
async def a_log(folder: Path, settings: StorageSettings) -> AsyncIterator[Log]:
    """Open a log with one reader, which stands at its beginning."""
    async with Log.create(
        folder / "log.db", settings, clock=SystemClock(), metrics=Metrics(), tell=lambda _: None
    ) as log:
        log.bounds.readers[READER] = 0
        await log.open_cursor(READER, start="oldest")
        yield log


async def fill(folder: Path, settings: StorageSettings, appends: int, *, others: bool = False) -> dict[str, object]:
    """Append so often, tick now and then; returns what was acknowledged, refused, stored and lost."""
    acked = refused = 0
    largest = 0
    reasons: Counter[str] = Counter()
    other = folder / "of-somebody-else"
    async with a_log(folder, settings) as log:
        boot_id = os.urandom(4).hex()
        for number in range(appends):
            try:
                await log.append(readings(log, boot_id, number * AT_ONCE))
                acked += AT_ONCE
            except StoreFailed as error:
                refused += AT_ONCE
                reasons[type(error).__name__] += 1
                await asyncio.sleep(0.005)
            if number % 20 == 0:
                log.bounds.tick()
                largest = max(largest, sum(one.stat().st_size for one in folder.iterdir() if one != other))  # noqa: ASYNC240
            if others and number == appends // 3:
                _take_everything(other)
            if others and number == 2 * appends // 3:
                other.unlink()
        await _settle(log)
        buffer, loss = await log.buffer(), await log.loss(READER)
        full_before = log.bounds.full is not None
        log.move_cursor(READER, log.last_row)  # the destination is back, and gets everything
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while log.bounds.full is not None:
                    await _settle(log)
        return {
            "acked": acked,
            "refused": refused,
            "reasons": dict(reasons),
            "stored": buffer.readings,
            "lost": asdict(loss) if loss else None,
            "largest_bytes": largest,
            "full": full_before,
            "full_after_delivery": log.bounds.full is not None,
        }


def _take_everything(other: Path) -> None:
    with other.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"z" * 65_536)
        except OSError:
            pass  # that was the last of it


async def _settle(log: Log) -> None:
    for _ in range(5):
        log.bounds.tick()
        await asyncio.sleep(0.05)


def main() -> None:
    """Parse arguments and fill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--overflow", required=True)
    parser.add_argument("--max-bytes", type=int, default=1_000_000_000)
    parser.add_argument("--min-free-bytes", type=int, default=5_000_000)
    parser.add_argument("--appends", type=int, default=500)
    parser.add_argument("--others", action="store_true")
    wanted = parser.parse_args()
    settings = StorageSettings(
        overflow=wanted.overflow, max_bytes=wanted.max_bytes, min_free_bytes=wanted.min_free_bytes
    )
    print(json.dumps(asyncio.run(fill(wanted.folder, settings, wanted.appends, others=wanted.others))))


if __name__ == "__main__":
    main()
