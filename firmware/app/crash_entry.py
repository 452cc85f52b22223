"""An entry of the crash log: two files, the older one replaced when one is full. In memory only meanwhile."""

import io
import os
import sys

from micropython import const

_HALF_BYTES = const(2_048)
_MOST_BYTES = const(1_000)


def add(log, line, error):
    """Note it in memory, on the flash and on the console."""
    more = ""
    if error is not None:
        text = io.StringIO()
        sys.print_exception(error, text)  # pyright: ignore[reportArgumentType] - the stubs know no StringIO
        more = text.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        line = "%s: %s: %s" % (line, type(error).__name__, error)
    log.last = line[:200]
    print("crash log:", line)
    when = log.clock.unix_ms()
    when = "uptime_ms=%d" % log.clock.uptime_ms() if when is None else "unix_ms=%d" % when
    entry = ("%s boot=%s %s\n%s" % (when, log.boot_id, log.last, more[-_MOST_BYTES:])).encode()
    try:
        try:
            if os.stat(log.path)[6] + len(entry) > _HALF_BYTES:
                os.rename(log.path, log.path + ".old")
        except OSError:
            pass  # there is none yet
        with open(log.path, "ab") as file:
            file.write(entry)
    except OSError as refused:
        print("crash log: not written:", refused)
