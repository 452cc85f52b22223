"""At what connections have ended: a broker of MQTT 3.1.1 has no other way to say what it will not have."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from cloud_sync.integrations.mqtt_client.connection import Connection
from cloud_sync.integrations.mqtt_client.reasons import Failed

_logger = logging.getLogger(__name__)

Key = TypeVar("Key")

ENDINGS = 3
"""So many in a row at the same, and it is the reason."""
_HOLDS_S = 5.0
"""So long a connection has held before something is sent alone that may be why the last ones have ended."""


class Suspect(Generic[Key]):
    """What may be the reason, and how often in a row the connection has ended at it."""

    def __init__(self, *, endings: int = ENDINGS) -> None:
        """At first there is none; so many endings in a row at the same, and it is the reason."""
        self.key: Key | None = None
        self._enough = endings
        self._endings = 0

    def ended_at(self, key: Key) -> bool:
        """Hear that a connection has ended at that; return whether it is the reason, and is suspected no more."""
        self._endings = self._endings + 1 if key == self.key else 1
        self.key = key
        if self._endings < self._enough:
            return False
        self._clear()
        return True

    async def held(self, connection: Connection) -> None:
        """From the second time on, wait until the connection has held for a while: one that ends by itself ends before.

        Such as where another client has our id.
        """
        if self._endings > 1:
            await connection.gone(lasted_s=_HOLDS_S)

    def answered(self, key: Key) -> None:
        """Hear that it was taken, or refused, by a connection that goes on."""
        if key == self.key:
            self._clear()

    def _clear(self) -> None:
        self.key, self._endings = None, 0


class Dispensable:
    """What readings go without when connections end at it: from then on it is left out, until the next start."""

    def __init__(self) -> None:
        """At first nothing is left out."""
        self.suspect = Suspect[str]()
        """At what the connection has ended."""
        self._left_out: set[str] = set()

    def is_left_out(self, words: str) -> bool:
        """Whether what these words say is done no more."""
        return words in self._left_out

    @contextmanager
    def trying(self, words: str) -> Iterator[None]:
        """Leave this out later, when connections end at it: without a word to it, nothing else says that it may not."""
        try:
            yield
        except Failed as error:
            if error.blames_packet and self.suspect.ended_at(words):
                self.leave_out(words)
            raise
        self.suspect.answered(words)

    def leave_out(self, words: str) -> None:
        """Do that no more, and say so."""
        self._left_out.add(words)
        _logger.warning(
            "the broker ends the connection when %s: until the next start that is left out. Allow it there", words
        )
