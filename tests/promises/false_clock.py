"""A wall clock that another process sets, for a gateway that knows nothing of it.

The monotonic clock is the machine's. libfaketime could not do this: whether the clock is synchronised is asked of the
kernel, and must change with it.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from gateway.clock import SystemClock

DAY_MS = 86_400_000

_LAYOUT = struct.Struct("<q?i")


class ClockFile:
    """How far the wall clock is off, whether it counts as synchronised, and which boot of the machine this is.

    A few bytes of shared memory.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, _LAYOUT.size)
            self._bytes = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)

    def set(self, off_by_ms: int, *, synced: bool) -> None:
        """Let the clock be off by so much from now on."""
        self._bytes[:] = _LAYOUT.pack(off_by_ms, synced, self.read()[2])

    def set_to_1970(self) -> None:
        """Let the clock stand at its very beginning, as that of a Pi without a battery."""
        self.set(-time.time_ns() // 1_000_000 + 20_000, synced=False)

    def reboot(self) -> None:
        """Let it be another boot of the machine, as the next start of the gateway sees it."""
        off_by_ms, synced, boot = self.read()
        self._bytes[:] = _LAYOUT.pack(off_by_ms, synced, boot + 1)

    def read(self) -> tuple[int, bool, int]:
        """Return all three."""
        off_by_ms, synced, boot = _LAYOUT.unpack(self._bytes[:])
        return off_by_ms, synced, boot


class FalseClock(SystemClock):
    """The machine's clocks, but for what the file says of the wall clock."""

    def __init__(self, file: ClockFile) -> None:
        super().__init__()
        self._file = file

    def now_ms(self) -> int:
        return super().now_ms() + self._file.read()[0]

    def _ask_kernel(self) -> bool:
        return self._file.read()[1]

    def boot_id(self) -> str:
        return f"boot-{self._file.read()[2]}"
