"""The only place that asks what time it is.

Engines take a `Clock`, so that a test can move time and a Pi without a clock battery can be imitated.
"""

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_ADJTIMEX_STRUCT_BYTES = 208  # sizeof(struct timex) on 64-bit Linux; 128 on 32-bit, so this is enough for both
_TIME_ERROR = 5  # "clock not synchronised", adjtimex(2)
_STEP_MS = 1_000


class Clock(Protocol):
    """Wall time, monotonic time, and whether the wall time can be trusted."""

    def now_ms(self) -> int:
        """Return the wall clock in unix milliseconds."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds of a clock that never jumps; its zero is arbitrary."""
        ...

    def is_synced(self) -> bool:
        """Tell whether the system clock is disciplined by NTP (or the like)."""
        ...

    def boot_id(self) -> str:
        """Return the name of the machine's boot, within which the monotonic clock goes on; empty if it is unknown."""
        ...


class SystemClock:
    """The machine's clocks."""

    _SYNC_CHECK_S = 10.0  # asking the kernel costs a system call; the answer changes rarely

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._checked_at = -self._SYNC_CHECK_S
        self._synced = False
        self._epoch_ms = 0
        self._boot_id = ""
        with suppress(OSError):
            self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now_ms(self) -> int:
        """Return the wall clock in unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return milliseconds since an arbitrary moment."""
        return time.monotonic_ns() // 1_000_000

    def is_synced(self) -> bool:
        """Ask the kernel (adjtimex) whether the clock is synchronised: now and then, and whenever it has been set.

        Setting it by hand ends the synchronisation at that moment; an older answer would vouch for a wrong time.
        """
        now = time.monotonic()
        epoch_ms = self.now_ms() - self.monotonic_ms()
        if now - self._checked_at >= self._SYNC_CHECK_S or abs(epoch_ms - self._epoch_ms) >= _STEP_MS:
            self._checked_at, self._epoch_ms = now, epoch_ms
            self._synced = self._ask_kernel()
        return self._synced

    def boot_id(self) -> str:
        """Return what the kernel calls this boot."""
        return self._boot_id

    def _ask_kernel(self) -> bool:
        if os.name != "posix" or not hasattr(self._libc, "adjtimex"):
            return False
        timex = ctypes.create_string_buffer(_ADJTIMEX_STRUCT_BYTES)  # modes = 0: only read
        state: int = self._libc.adjtimex(timex)
        return 0 <= state < _TIME_ERROR


class ManualClock:
    """A clock that a test sets by hand."""

    def __init__(self, now_ms: int = 1_763_640_000_000, *, synced: bool = True) -> None:
        self.now = now_ms
        self.monotonic = 0
        self.synced = synced
        self.boot = ""

    def now_ms(self) -> int:
        """Return the time that was set."""
        return self.now

    def monotonic_ms(self) -> int:
        """Return the monotonic time, moved by `advance` only."""
        return self.monotonic

    def is_synced(self) -> bool:
        """Return what was set."""
        return self.synced

    def boot_id(self) -> str:
        """Return what was set."""
        return self.boot

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass on both clocks."""
        self.now += ms
        self.monotonic += ms
