"""A writer whose disk may fail: `python -m tests.promises.tough_writer LOG`, under strace that lets system calls fail.

It stores readings one by one, sends again what was refused, as boards do, and says on stdout `acked SEQ` after the log
has said so, `delivered SEQ` after a reader has acknowledged it, and `done` when everything is. If the log cannot be
opened it tries again, as systemd does with a gateway.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, TimeSource
from gateway.storage import log as log_module
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from tests.promises.readings import payload

DEVICE, BOOT, READER = "board", "boot-1", "a-destination"
READINGS = 8
_TRIES = 200
_TRY_AGAIN_S = 0.01
_WAL_PAGES = 12  # so that the write-ahead log is copied back within these few commits
_STDOUT = 1


async def write(log_db: Path) -> None:
    """Open the log and store everything. Raises StoreFailed when it cannot be opened."""
    clock = SystemClock()
    async with Log.create(
        log_db, StorageSettings(min_free_bytes=0), clock=clock, metrics=Metrics(), tell=lambda _: None
    ) as log:
        log.bounds.readers[READER] = 0
        stream = log.stream("default", DEVICE, BOOT)
        for seq in range(1, READINGS + 1):
            now = clock.now_ms()
            body = payload(DEVICE, BOOT, seq)
            await _store(log, NewReading(stream, seq, now, TimeSource.GATEWAY, now, clock.monotonic_ms(), body))
            _say(f"acked {seq}")
            await _deliver(log, seq)


async def _store(log: Log, reading: NewReading) -> None:
    for attempt in itertools.count(1):
        log.bounds.tick()
        try:
            await log.append([reading])
        except StoreFailed:
            if attempt == _TRIES:
                raise
            await asyncio.sleep(_TRY_AGAIN_S)
        else:
            return


async def _deliver(log: Log, seq: int) -> None:
    """Freeze a batch and acknowledge it, as a forwarder does; a forwarder that could not is started again."""
    for attempt in itertools.count(1):
        try:
            cursor = await log.open_cursor(READER, start="oldest")
            readings = await log.read(cursor.position, limit=10)
            if readings:
                last = readings[-1].row
                batch = Attempt(READER, f"msg_{seq}", cursor.position, last, len(readings), "00", 0)
                assert await log.freeze(batch), "nothing has left"
                log.move_cursor(READER, last)
                for one in readings:
                    _say(f"delivered {one.seq}")
        except StoreFailed:
            if attempt == _TRIES:
                raise
            await asyncio.sleep(_TRY_AGAIN_S)
        else:
            return


async def write_in_the_end(log_db: Path) -> None:
    """In one event loop, as strace counts calls by thread: a new thread would fail at the same call again."""
    for attempt in itertools.count(1):
        try:
            await write(log_db)
        except StoreFailed as error:
            if attempt == _TRIES:
                raise
            _say(f"refused {error}")
        else:
            return


def main() -> None:
    setattr(log_module, "WAL_PAGES", _WAL_PAGES)  # noqa: B010 - a constant of the module, not meant to be set
    asyncio.run(write_in_the_end(Path(sys.argv[1])))
    _say("done")


def _say(line: str) -> None:
    os.write(_STDOUT, f"{line}\n".encode())


if __name__ == "__main__":
    main()
