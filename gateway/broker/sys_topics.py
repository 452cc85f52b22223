"""`$SYS/broker/…`: how the broker is doing, for whoever has `$SYS/` among its topics.

No device has; a site credential is the one that may. The values are never stored, and nobody but us publishes there.
The names are mosquitto's (mosquitto(8), "Broker status") and mean the same, but that `store/messages/bytes` counts all
that keeping a message takes.
"""

from collections.abc import Callable, Iterator

from gateway.broker.packets import Message

SYS = "$SYS/"
SYS_INTERVAL_S = 10.0


class SysTopics:
    """The topics, with what tells their values."""

    def __init__(self, values: dict[str, Callable[[], int | str]]) -> None:
        self._values = {f"{SYS}broker/{name}": value for name, value in values.items()}

    def messages(self) -> Iterator[Message]:
        """Yield every topic's value now."""
        for topic, value in self._values.items():
            yield Message(topic, str(value()).encode(), 0, retain=True)
