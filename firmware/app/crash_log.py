"""The last few KB of what went wrong, on the flash: two files, of which the older one is replaced when one is full."""

import io
import os
import sys

from micropython import const

_HALF_BYTES = const(2_048)
_MOST_BYTES = const(1_000)


class CrashLog:
    """Entries in `path` and `path`.old; `clock` has `uptime_ms()` and `unix_ms()`."""

    def __init__(self, path, clock, boot_id):
        self._path = path
        self._clock = clock
        self._boot_id = boot_id
        self.last = ""
        """The last line of what went wrong since the start."""
        self.count = 0

    def write(self, who, error):
        """Note an exception and where it comes from."""
        text = io.StringIO()
        sys.print_exception(error, text)  # pyright: ignore[reportArgumentType] - the stubs know no StringIO
        self._add("%s: %s: %s" % (who, type(error).__name__, error), text.getvalue())  # pyright: ignore[reportAttributeAccessIssue]

    def note(self, words):
        """Note something else."""
        self._add(words, "")

    def _add(self, line, more):
        self.last = line[:200]
        self.count += 1
        print("crash log:", line)
        when = self._clock.unix_ms()
        when = "uptime_ms=%d" % self._clock.uptime_ms() if when is None else "unix_ms=%d" % when
        entry = ("%s boot=%s %s\n%s" % (when, self._boot_id, self.last, more[-_MOST_BYTES:])).encode()
        try:
            try:
                if os.stat(self._path)[6] + len(entry) > _HALF_BYTES:
                    os.rename(self._path, self._path + ".old")
            except OSError:
                pass  # there is none yet
            with open(self._path, "ab") as file:
                file.write(entry)
        except OSError as error:
            print("crash log: not written:", error)

    def read(self, most_bytes=2_048):
        """Return the newest of it."""
        data = b""
        for path in (self._path + ".old", self._path):
            try:
                with open(path, "rb") as file:
                    data += file.read()
            except OSError:
                pass
        return "".join(chr(byte) if byte < 128 else "?" for byte in data[-most_bytes:])  # a character may be cut
