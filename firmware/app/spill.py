"""Readings on the flash: what found no room in memory, a few KB a file (spill_file.py), oldest first."""

import os

from micropython import const

from app.on_demand import forget

_FIRST = const(50_000_000)


class Record:
    """A reading that is not acknowledged yet. `unix_ms` is None if the time was not known."""

    def __init__(self, boot_id, seq, unix_ms, uptime_ms, body):
        self.boot_id = boot_id
        self.seq = seq
        self.unix_ms = unix_ms
        self.uptime_ms = uptime_ms
        self.body = body
        self.is_spilled = False


class Spill:
    """The folder. `free_bytes()` says how much the flash has left, of which `reserve_bytes` are for others."""

    def __init__(self, folder, free_bytes, most_files=80, reserve_bytes=65_536):
        self._folder = folder
        self._free_bytes = free_bytes
        self._most_files = most_files
        self._reserve_bytes = reserve_bytes
        self._loaded = None
        self.dropped = 0
        """How many readings were given up, as there was no room."""
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there; or the flash is broken, which the first write says
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        self._numbers = sorted([int(name) for name in names if len(name) == 8 and name.isdigit()])

    def __len__(self):
        """How many files there are."""
        return len(self._numbers)

    def _path(self, number):
        return "%s/%08d" % (self._folder, number)

    def write(self, records, first=False):
        """Put readings behind what is there, or before it. Raises OSError, and leaves nothing of them then."""
        self._make_room()
        number = _FIRST
        if self._numbers:
            number = self._numbers[0] - 1 if first else self._numbers[-1] + 1
        from app.spill_file import write

        self._forget()
        try:
            write(self._path(number), records)
        except OSError:
            _try_to_remove(self._path(number))
            raise
        self._numbers.insert(0 if first else len(self._numbers), number)

    def _make_room(self):
        while self._numbers and (len(self._numbers) >= self._most_files or self._free_bytes() < self._reserve_bytes):
            # of the loaded one some are on their way already
            index = 1 if self._numbers[0] == self._loaded else 0
            if index == len(self._numbers):
                break
            number = self._numbers.pop(index)
            self.dropped += sum([1 for _ in _read(self._path(number))])
            self._forget()
            _try_to_remove(self._path(number))
        if self._free_bytes() < self._reserve_bytes:
            raise OSError("the flash is full")

    def load(self):
        """Return an iterator of the readings of the oldest file, which stays until `unload`."""
        self._loaded = self._numbers[0]
        return _read(self._path(self._loaded))

    def unload(self):
        """All of the loaded file is acknowledged."""
        if self._loaded is not None:
            self._numbers.remove(self._loaded)
            _try_to_remove(self._path(self._loaded))
            self._loaded = None
            self._forget()

    def _forget(self):
        """Let go of spill_file.py, unless a file is being read: it would be there twice when one is written."""
        if self._loaded is None:
            forget("app.spill_file")


def _read(path):
    from app.spill_file import read

    return read(path)


def _try_to_remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # found again after the next start, and sent again: the gateway stores it once
