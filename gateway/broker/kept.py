"""How many bytes the broker keeps for others, and who may take them.

Retained messages have a room of their own; all outboxes share one. A retained message may take what is free. An outbox
may not take more than it leaves to all others, so that one subscriber who never comes back cannot take the room from
everybody.
"""

_MESSAGE_BYTES = 300
"""What a message takes beside its topic and payload."""


def kept_bytes(topic: str, payload: bytes | bytearray) -> int:
    """Return what keeping the message takes."""
    return len(topic.encode()) + len(payload) + _MESSAGE_BYTES


class Room:
    """What may be kept, and what is."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used = 0

    def take(self, size: int, *, leaving: int = 0) -> bool:
        """Take so many bytes, unless less than `leaving` would be left."""
        if self.used + size + leaving > self._max_bytes:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Give so many back."""
        self.used -= size


class Share:
    """What one queue takes of a room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Take so many bytes; False when the queue would take more than it leaves."""
        if not self._room.take(size, leaving=self._bytes + size):
            return False
        self._bytes += size
        return True

    def give(self, size: int) -> None:
        """Give so many back, of what has not been given back yet."""
        size = min(size, self._bytes)
        self._bytes -= size
        self._room.give(size)

    def close(self) -> None:
        """Give everything back."""
        self.give(self._bytes)
