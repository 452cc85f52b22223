"""A file of readings. In memory only while one is written or read.

Format: `NGS1`, the boot id (8 characters), then for each reading its length, seq, unix milliseconds (-1: not known),
uptime in milliseconds, CRC32 of these and of the body, and the body. A file is written once and removed when all of it
is acknowledged. Of a file that the power cut, everything before the cut is read.
"""

from binascii import crc32
from struct import calcsize, pack, unpack

from app.spill import Record

_MAGIC = b"NGS1"
_HEAD = "<HIqQ"
_HEAD_BYTES = calcsize(_HEAD)
_START = len(_MAGIC) + 8


def write(path, records):
    """Write a file. Raises OSError."""
    with open(path, "wb") as file:
        file.write(_MAGIC + records[0].boot_id.encode())
        for record in records:
            unix_ms = -1 if record.unix_ms is None else record.unix_ms
            head = pack(_HEAD, len(record.body), record.seq, unix_ms, record.uptime_ms)
            file.write(head)
            file.write(pack("<I", crc32(record.body, crc32(head))))
            file.write(record.body)


def read(path):
    """Yield the readings in a file, as far as it is whole."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
            if len(start) < _START or start[:4] != _MAGIC:
                return
            boot_id = start[4:].decode()
            while True:
                head = file.read(_HEAD_BYTES)
                crc = file.read(4)
                if len(crc) < 4:
                    return
                length, seq, unix_ms, uptime_ms = unpack(_HEAD, head)
                body = file.read(length)
                if len(body) < length or crc32(body, crc32(head)) != unpack("<I", crc)[0]:
                    return
                record = Record(boot_id, seq, None if unix_ms < 0 else unix_ms, uptime_ms, body)
                record.is_spilled = True
                yield record
    except (OSError, ValueError):
        return
