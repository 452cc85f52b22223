"""What is sent to one client within a turn of the event loop leaves in one write, in order.

uvloop and asyncio make a system call of every write as long as the socket takes it. A commit hands a client many
messages in one turn, and a client may ask many things in one; with a write for each, the writes were half of what a
fan-out cost.
"""

import asyncio
from collections.abc import Callable

_AT_ONCE = 65_536  # bytes; more is written at once, so that a client that does not read is noticed within a turn


class TurnWriter:
    """Stands before a transport."""

    __slots__ = ("_loop", "_parts", "_transport", "_written", "size")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, written: Callable[[], None]
    ) -> None:
        """`written` is called after each write."""
        self._loop = loop
        self._transport = transport
        self._written = written
        self._parts: list[bytes] = []
        self.size = 0
        """Bytes that wait for the end of this turn."""

    def write(self, data: bytes) -> None:
        """Send the bytes at the end of this turn, or now, with all before them, if they are many."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self.size += len(data)
        if self.size >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Send what there is."""
        parts = self._parts
        if not parts:
            return
        self._parts, self.size = [], 0
        if not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
            self._written()
