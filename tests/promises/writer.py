"""Writers of one log, to be killed: `python -m tests.promises.writer LOG FLAG`.

For each boot_id on stdin it forks a writer that appends readings of twenty boards as fast as they are acknowledged, and
says so on stdout (one line each, written at once, so that nothing that was said is lost with the writer):

    forked PID
    acked DEVICE BOOT_ID FIRST LAST     after the log has said `committed`
    reaped STATUS                       the writer is dead; nothing more comes from it

Forking, because importing takes longer than writing a while and being killed.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from gateway.clock import Clock, SystemClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.log import Log
from tests.promises.commit_flag import CommitFlag, announce_commits
from tests.promises.readings import payload

_BOARDS = 20
_LARGEST_BURST = 20
_LONGEST_LIFE_S = 30  # should nobody kill it
_STDOUT = 1


class Board:
    """Keeps a burst of random size under way."""

    def __init__(self, log: Log, clock: Clock, device_id: str, boot_id: str) -> None:
        self._log = log
        self._clock = clock
        self._device_id, self._boot_id = device_id, boot_id
        self._submitted = self._acked = 0

    def submit(self) -> None:
        """Submit the next burst."""
        stream = self._log.stream("default", self._device_id, self._boot_id)
        now, monotonic = self._clock.now_ms(), self._clock.monotonic_ms()
        for seq in range(self._submitted + 1, self._acked + random.randint(1, _LARGEST_BURST) + 1):
            body = payload(self._device_id, self._boot_id, seq)
            self._log.submit(NewReading(stream, seq, now, TimeSource.GATEWAY, now, monotonic, body), self)
            self._submitted = seq

    def committed(self, count: int) -> None:
        """Say that these are acknowledged, and go on."""
        _say(f"acked {self._device_id} {self._boot_id} {self._acked + 1} {self._acked + count}")
        self._acked += count
        self.submit()

    def failed(self, error: StoreFailed) -> None:
        """Nothing was asked for that cannot be stored."""
        raise error


async def write(log_db: Path, boot_id: str) -> None:
    clock = SystemClock()
    async with Log.create(log_db, StorageSettings(), clock=clock, metrics=Metrics(), tell=lambda _: None) as log:
        for number in range(_BOARDS):
            Board(log, clock, f"board-{number:02}", boot_id).submit()
        await asyncio.sleep(_LONGEST_LIFE_S)


def main() -> None:
    log_db, flag = map(Path, sys.argv[1:])
    announce_commits(CommitFlag(flag))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(write(log_db, line.strip()))
            os._exit(1)
        _say(f"forked {child}")
        _, status = os.waitpid(child, 0)
        _say(f"reaped {status}")


def _say(line: str) -> None:
    os.write(_STDOUT, f"{line}\n".encode())


if __name__ == "__main__":
    main()
