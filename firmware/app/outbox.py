"""Readings on their way to the gateway, in order: in memory as long as there is room, the oldest on the flash then.

- a reading leaves when the gateway has acknowledged it, or when there is no room for it, which is counted
- what is sent is, in this order: what was taken and not acknowledged, the files, what is in memory
- when the power goes, what is on the flash is sent again after the next start; what was only in memory is lost
"""

import asyncio

from micropython import const

from app.spill import Record

_CHUNK_BYTES = const(4_000)
_LOOK_MS = const(20)
MOST_BYTES = 2_048
"""A reading larger than that is not one."""


class Outbox:
    """`take` gives what is to be sent next, `acknowledge` ends it, at most `window` are between the two."""

    def __init__(self, clock, boot_id, spill, ram_bytes=3_000, window=2):
        self._clock = clock
        self._boot_id = boot_id
        self._spill = spill
        self._ram_bytes = ram_bytes
        self._window = window
        self._seq = 0
        self._ram = []
        self._held_bytes = 0
        self._from_flash = iter(())
        self._has_file = False
        self._taken = []
        self._dropped = 0

    def add(self, body):
        """Take in what was measured just now: JSON without time and number."""
        self._seq += 1
        if len(body) > MOST_BYTES:
            self._dropped += 1
            return
        uptime_ms = self._clock.uptime_ms()
        self._ram.append(Record(self._boot_id, self._seq, self._clock.unix_ms(uptime_ms), uptime_ms, body))
        self._held_bytes += len(body)
        if self._held_bytes > self._ram_bytes:
            self._spill_some()

    def _spill_some(self):
        count = size = 0
        while count < len(self._ram) and size < _CHUNK_BYTES:
            size += len(self._ram[count].body)
            count += 1
        self._write(self._ram[:count])
        del self._ram[:count]
        self._held_bytes -= size

    def _write(self, records, first=False):
        if self._clock.is_set:
            for record in records:
                record.unix_ms = self._clock.unix_ms(record.uptime_ms)
        try:
            self._spill.write(records, first)
        except OSError as error:
            self._dropped += len(records)
            print("outbox: %d readings dropped:" % len(records), error)

    async def take(self, wait_ms):
        """Return the reading that is to be sent next; None when for so long there is none, or no room in the window."""
        record = self._next()
        if record is None:
            while record is None and wait_ms > 0:
                await asyncio.sleep_ms(_LOOK_MS)
                wait_ms -= _LOOK_MS
                record = self._next()
        if record is not None:
            self._taken.append(record)
        return record

    def _next(self):
        if len(self._taken) >= self._window:
            return None
        while self._has_file or len(self._spill):
            if not self._has_file:
                self._from_flash, self._has_file = self._spill.load(), True
            for record in self._from_flash:
                return record
            if any(record.is_spilled for record in self._taken):
                return None  # the file goes when all of it has arrived
            self._spill.unload()
            self._has_file = False
        if self._ram:
            record = self._ram.pop(0)
            self._held_bytes -= len(record.body)
            return record
        return None

    def acknowledge(self, record):
        """The gateway has it."""
        if record in self._taken:
            self._taken.remove(record)

    def flush(self):
        """Put everything on the flash before a restart that is wanted."""
        older = [record for record in self._taken if not record.is_spilled]
        self._taken = [record for record in self._taken if record.is_spilled]
        if older:  # memory is only taken from when no file waits: these come before all files
            self._write(older, first=True)
        while self._ram:
            self._spill_some()

    @property
    def dropped(self):
        """How many readings were given up since the start."""
        return self._dropped + self._spill.dropped

    @property
    def waiting(self):
        """How many readings in memory are not acknowledged."""
        return len(self._ram) + len(self._taken)

    @property
    def files(self):
        """How many files of them wait on the flash."""
        return len(self._spill)
