"""Readings on the flash: what found no room in memory, a few KB a file, oldest first.

Format of a file: `NGS1`, the boot id (8 characters), then for each reading its length, seq, unix milliseconds (-1: not
known), uptime in milliseconds, CRC32 of these and of the body, and the body. A file is written once and removed when
all of it is acknowledged. Of a file that the power cut, everything before the cut is read.
"""

import os
from binascii import crc32
from struct import calcsize, pack, unpack

from micropython import const

_MAGIC = b"NGS1"
_HEAD = "<HIqQ"
_HEAD_BYTES = calcsize(_HEAD)
_START = len(_MAGIC) + 8
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

    def __init__(self, folder, free_bytes, most_files=64, reserve_bytes=65_536):
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
        path = self._path(number)
        try:
            with open(path, "wb") as file:
                file.write(_MAGIC + records[0].boot_id.encode())
                for record in records:
                    unix_ms = -1 if record.unix_ms is None else record.unix_ms
                    head = pack(_HEAD, len(record.body), record.seq, unix_ms, record.uptime_ms)
                    file.write(head)
                    file.write(pack("<I", crc32(record.body, crc32(head))))
                    file.write(record.body)
        except OSError:
            _try_to_remove(path)
            raise
        self._numbers.insert(0 if first else len(self._numbers), number)

    def _make_room(self):
        while self._numbers and (len(self._numbers) >= self._most_files or self._free_bytes() < self._reserve_bytes):
            # of the loaded one some are on their way already
            index = 1 if self._numbers[0] == self._loaded else 0
            if index == len(self._numbers):
                break
            number = self._numbers.pop(index)
            self.dropped += len(_read(self._path(number)))
            _try_to_remove(self._path(number))
        if self._free_bytes() < self._reserve_bytes:
            raise OSError("the flash is full")

    def load(self):
        """Return the readings of the oldest file, which stays until `unload`; empty when there is none."""
        while self._numbers:
            self._loaded = self._numbers[0]
            records = _read(self._path(self._loaded))
            if records:
                return records
            self.unload()
        return []

    def unload(self):
        """All of the loaded file is acknowledged."""
        if self._loaded is not None:
            self._numbers.remove(self._loaded)
            _try_to_remove(self._path(self._loaded))
            self._loaded = None


def _read(path):
    """Return the readings in a file, as far as it is whole."""
    records = []
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
            if len(start) < _START or start[:4] != _MAGIC:
                return records
            boot_id = start[4:].decode()
            while True:
                head = file.read(_HEAD_BYTES)
                crc = file.read(4)
                if len(crc) < 4:
                    return records
                length, seq, unix_ms, uptime_ms = unpack(_HEAD, head)
                body = file.read(length)
                if len(body) < length or crc32(body, crc32(head)) != unpack("<I", crc)[0]:
                    return records
                record = Record(boot_id, seq, None if unix_ms < 0 else unix_ms, uptime_ms, body)
                record.is_spilled = True
                records.append(record)
    except (OSError, ValueError):
        return records


def _try_to_remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # found again after the next start, and sent again: the gateway stores it once
