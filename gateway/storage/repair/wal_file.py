"""Reads a SQLite write-ahead log without SQLite, frame by frame, so that one bad frame does not hide those behind it.

SQLite stops at the first frame whose checksum is wrong and silently forgets the rest, which may have been
acknowledged. Here a frame is checked against the checksum that its predecessor carries, so damage costs only the frames
it hit. Frames after the last commit are left out: nobody was told that they are stored.

A power cut leaves some sectors of the last commit as they were before, in any order. That is no damage: the commit was
not synced, and is left out as a whole. It is damage when another commit follows, since a commit is synced before the
next is written; or when a frame's head is neither this generation's nor what a head looks like that was not written:
zeros, or one of an older generation, whose first salt is a little lower.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salts (2), checksum (2)
_FRAME = struct.Struct(">6I")  # page, size after commit or 0, salts (2), checksum (2)
_MAGIC = 0x377F0682  # the lowest bit is set where the checksums are big-endian
_MASK = 0xFFFFFFFF
_GENERATIONS = 1_000_000  # each has a first salt that is higher by one than the last


@dataclass(slots=True)
class WalFile:
    """What a write-ahead log holds."""

    offsets: dict[int, int] = field(default_factory=dict)
    """Where the newest committed version of each page is."""
    hidden: bool = False
    """Whether there are commits behind damage: SQLite would not see them."""


def read_wal(path: Path, page_size: int, checkpoint: Callable[[], None] = lambda: None) -> WalFile:
    """Read the log of a database with that page size; an absent one is empty. Raises OSError.

    `checkpoint` is called for each frame, and may raise.
    """
    wal = WalFile()
    if not path.exists():
        return wal
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return wal
        chain = _Chain.of(header, page_size)
        commit, unsynced = _Commit(), None
        offset = _HEADER.size
        while len(frame := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
            checkpoint()
            page, commit_size, *_ = _FRAME.unpack_from(frame)
            if chain.accepts(frame):
                commit.offsets[page] = offset + _FRAME.size
            else:
                commit.is_whole = False
                commit.is_damaged |= not chain.may_be_unwritten(frame)
            if commit_size and chain.is_of_this_generation(frame):
                if unsynced is not None:  # it was synced after all
                    wal.offsets |= unsynced.offsets
                    wal.hidden = True
                unsynced = None if commit.is_whole else commit
                if commit.is_whole:
                    wal.offsets |= commit.offsets
                    wal.hidden |= not chain.has_header
                commit = _Commit()
            offset += len(frame)
        if unsynced is not None and (unsynced.is_damaged or not chain.has_header):
            wal.offsets |= unsynced.offsets
            wal.hidden = True
    return wal


@dataclass(slots=True)
class _Commit:
    """The frames of one transaction."""

    offsets: dict[int, int] = field(default_factory=dict)
    is_whole: bool = True
    is_damaged: bool = False
    """Whether something else than a power cut has been at it."""


class _Chain:
    """The salts that every frame of one generation repeats, and the checksum that runs through them."""

    def __init__(self, salts: bytes | None, checksum: tuple[int, int] | None, order: str) -> None:
        self.has_header = salts is not None
        self._salts = salts
        self._checksum = checksum
        self._words = order

    @classmethod
    def of(cls, header: bytes, page_size: int) -> "_Chain":
        magic, _, size, _, _, _, *checksum = _HEADER.unpack(header)
        order = ">" if magic & 1 else "<"
        found = _checksum(header[:24], (0, 0), order)
        if magic & ~1 != _MAGIC or size != page_size or list(found) != checksum:
            return cls(None, None, "<")  # the first frame tells the salts
        return cls(header[16:24], found, order)

    def accepts(self, frame: bytes) -> bool:
        """Whether the frame belongs to this generation and is, as far as can be known, as it was written."""
        if self._salts is None:
            self._salts = frame[8:16]
        if not self.is_of_this_generation(frame):
            self._checksum = None  # its successor cannot be checked, and is believed
            return False
        before = self._checksum
        self._checksum = struct.unpack_from(">2I", frame, 16)
        if before is None:
            return True
        found = _checksum(frame[_FRAME.size :], _checksum(frame[:8], before, self._words), self._words)
        return found == self._checksum

    def is_of_this_generation(self, frame: bytes) -> bool:
        """Whether the frame's head is one that was written since the log was begun anew."""
        return frame[8:16] == self._salts

    def may_be_unwritten(self, frame: bytes) -> bool:
        """Whether a frame that is not accepted may be what was there before it was to be written."""
        if self.is_of_this_generation(frame) or not any(frame[: _FRAME.size]):
            return True
        salt, own = int.from_bytes(frame[8:12], "big"), int.from_bytes((self._salts or b"")[:4], "big")
        return 0 < (own - salt) & _MASK <= _GENERATIONS


def _checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    one, two = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        one = (one + word + two) & _MASK
        two = (two + next(words) + one) & _MASK
    return one, two
