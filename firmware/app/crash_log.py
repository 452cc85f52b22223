"""What went wrong: the last of it in memory, the last few KB on the flash."""

import gc

from app.on_demand import forget


class CrashLog:
    """Entries in `path` and `path`.old; `clock` has `uptime_ms()` and `unix_ms()`."""

    def __init__(self, path, clock, boot_id):
        self.path = path
        self.clock = clock
        self.boot_id = boot_id
        self.last = ""
        """The last line of what went wrong since the start."""
        self.count = 0

    def write(self, who, error=None):
        """Note an exception and where it comes from, or something else in words. Never fails."""
        self.count += 1
        try:
            gc.collect()
            from app.crash_entry import add

            forget("app.crash_entry")
            add(self, who, error)
        except MemoryError:
            self.last = "no memory"
            print("crash log: no memory to write it:", who, error)
