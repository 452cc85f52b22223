"""Notices that a client is gone without a word: by MQTT's keepalive, or by TCP's where the client asked for none."""

import asyncio
import socket
from typing import Protocol

_FACTOR = 1.5  # MQTT 3.1.1, 3.1.2.10
_TCP_KEEPALIVE = ((socket.TCP_KEEPIDLE, 120), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
"""A dead peer is noticed after four minutes; by itself Linux takes more than two hours."""


class Watched(Protocol):
    """The connection of a client."""

    last_heard: float
    """When something came from its client, or might have come; by the loop's clock."""

    @property
    def is_held(self) -> bool:
        """Whether it is not read now: then the silence is ours."""
        ...

    def end(self, reason: str) -> None:
        """Close it."""
        ...


class Keepalive:
    """Watches one connection that is in."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, keepalive_s: int, sock: socket.socket | None) -> None:
        """Watch it from now on; `sock` is its socket, if it has one of its own."""
        if keepalive_s:
            patience_s = keepalive_s * _FACTOR
            self._timer = self._loop.call_later(patience_s, self._look, patience_s)
        elif sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _TCP_KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, patience_s: float) -> None:
        left = self._watched.last_heard + patience_s - self._loop.time()
        if left <= 0 and not self._watched.is_held:
            self._watched.end("keepalive")
        else:
            self._timer = self._loop.call_later(left if left > 0 else 1.0, self._look, patience_s)
