"""A serial port that is a pty: pyserial opens its end as any other, and it can be unplugged."""

import asyncio
import os
import pty
import tty
from pathlib import Path

from tests.site import PATIENCE_S


class PtyPort:
    """What a board has at its end of the line; `path` is the gateway's, the same after each plugging in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._board = self._port = -1
        self.plug()

    def plug(self) -> None:
        self._board, self._port = pty.openpty()
        tty.setraw(self._port)
        os.set_blocking(self._board, False)
        self.path.symlink_to(os.ttyname(self._port))

    def unplug(self) -> None:
        self.path.unlink()
        os.close(self._port)
        os.close(self._board)
        self._board = self._port = -1

    def close(self) -> None:
        if self._board >= 0:
            self.unplug()

    async def write(self, data: bytes) -> None:
        """Write it all; a line takes no more than somebody reads."""
        async with asyncio.timeout(PATIENCE_S):
            while data:
                try:
                    data = data[os.write(self._board, data) :]
                except BlockingIOError:
                    await asyncio.sleep(0.005)

    def read(self) -> bytes:
        """Return what the gateway has written."""
        try:
            return os.read(self._board, 65_536)
        except BlockingIOError:
            return b""

    async def read_until(self, enough: bytes) -> bytes:
        """Return what the gateway writes, once this is in it."""
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            while enough not in said:
                said += self.read()
                await asyncio.sleep(0.005)
        return said
