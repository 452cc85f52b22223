"""At what connections have ended: a broker of MQTT 3.1.1 has no other way to say what it will not have."""

from typing import Generic, TypeVar

Key = TypeVar("Key")

ENDINGS = 3
"""So many in a row at the same, and it is the reason."""


class Suspect(Generic[Key]):
    """What may be the reason, and how often in a row the connection has ended at it."""

    def __init__(self) -> None:
        """At first there is none."""
        self.key: Key | None = None
        self.endings = 0

    def ended_at(self, key: Key) -> int:
        """Hear that a connection has ended at that; return how often in a row by now."""
        self.endings = self.endings + 1 if key == self.key else 1
        self.key = key
        return self.endings

    def answered(self, key: Key) -> None:
        """Hear that it was taken, or refused, by a connection that goes on."""
        if key == self.key:
            self.clear()

    def clear(self) -> None:
        """Suspect nothing more."""
        self.key, self.endings = None, 0
