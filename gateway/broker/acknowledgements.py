"""What one connection owes its client: every inbound PUBLISH is answered here, in the order they came (MQTT-4.6.0-2).

A telemetry message becomes due when its commit is on disk. Any other message becomes due in its turn, when everything
before it has been answered; only then is it handed to the local subscribers.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gateway.broker.packets import Message


class _Entry(NamedTuple):
    """A PUBLISH that is more than an acknowledgement to be sent after its commit."""

    ack: bytes
    message: Message | None
    """For local subscribers."""
    stored: bool
    """Whether it waits for a commit of its own, or only for its turn."""


class Acknowledgements:
    """A FIFO. The plain case, telemetry that nobody here subscribes to, is a row of bytes and costs almost nothing."""

    def __init__(self, fan_out: Callable[[Message], None]) -> None:
        self._fan_out = fan_out
        self._fifo: deque[bytes | _Entry] = deque()
        self._entries = 0

    def __len__(self) -> int:
        return len(self._fifo)

    def owe_after_commit(self, ack: bytes, message: Message | None = None) -> None:
        """Owe `ack` for a telemetry message; then `message` goes to local subscribers, if there are any."""
        if message is None:
            self._fifo.append(ack)
        else:
            self._fifo.append(_Entry(ack, message, stored=True))
            self._entries += 1

    def owe_in_turn(self, ack: bytes, message: Message | None) -> None:
        """Owe `ack` for anything that is not telemetry; `due` tells when."""
        self._fifo.append(_Entry(ack, message, stored=False))
        self._entries += 1

    def due(self, stored: int = 0) -> bytes:
        """Return the acknowledgements that are due now that `stored` more telemetry messages are on disk."""
        fifo = self._fifo
        if not self._entries:
            return b"".join([fifo.popleft() for _ in range(stored)])  # type: ignore[misc]  # only bytes are there
        acks = bytearray()
        while fifo:
            entry = fifo[0]
            if isinstance(entry, bytes) or entry.stored:
                if not stored:
                    break
                stored -= 1
            fifo.popleft()
            if isinstance(entry, bytes):
                acks += entry
                continue
            self._entries -= 1
            acks += entry.ack
            if entry.message is not None:
                self._fan_out(entry.message)
        return bytes(acks)

    def withhold(self) -> None:
        """Forget everything: what is not acknowledged will be sent again."""
        self._fifo.clear()
        self._entries = 0
