"""What has come by one connection and was not taken, and what was taken and is not acknowledged."""

from collections import deque
from collections.abc import Sequence

from cloud_sync.integrations.mqtt_client.packets import Message

_AT_MOST = 1_000
_BYTES_AT_MOST = 8_388_608


class Arrivals:
    """See the module's own words. The broker keeps a message until it is acknowledged."""

    def __init__(self) -> None:
        """At first there are none."""
        self._messages: deque[Message] = deque()
        self._size = 0
        self._unacknowledged: dict[int, Message] = {}
        self._done: set[int] = set()

    def __len__(self) -> int:
        return len(self._messages)

    def is_full(self, times: int) -> bool:
        """Whether more than this many times waits of what may wait."""
        return len(self._messages) > times * _AT_MOST or self._size > times * _BYTES_AT_MOST

    def keep(self, message: Message) -> None:
        """Let one more wait."""
        if message.packet_id:
            if message.packet_id in self._unacknowledged and message.is_repeated:
                return  # some brokers repeat what was not acknowledged for a while; it waits here already
            self._unacknowledged[message.packet_id] = message
        self._messages.append(message)
        self._size += _size(message)

    def take(self, at_most: int) -> list[Message]:
        """Return what waits, in order."""
        taken = [self._messages.popleft() for _ in range(min(at_most, len(self._messages)))]
        self._size -= sum(map(_size, taken))
        return taken

    def acknowledged(self, messages: Sequence[Message]) -> list[int]:
        """Hear that these are kept; return which packet ids can be answered now, in the order that they came in.

        What came by another connection is left out.
        """
        self._done.update(one.packet_id for one in messages if self._unacknowledged.get(one.packet_id) is one)
        ready = []
        for packet_id in self._unacknowledged:
            if packet_id not in self._done:
                break
            ready.append(packet_id)
        for packet_id in ready:
            self._done.remove(packet_id)
            del self._unacknowledged[packet_id]
        return ready


def _size(message: Message) -> int:
    return len(message.topic) + len(message.payload)
