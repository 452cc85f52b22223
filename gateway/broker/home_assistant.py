"""How Home Assistant is told: by retained messages of the gateway's own, as `$SYS` is."""

from collections.abc import Container

from gateway.access import Access, Device
from gateway.broker.door import Door
from gateway.broker.packets import Message
from gateway.clock import Clock
from gateway.config import Settings
from gateway.home_assistant import HomeAssistant
from gateway.storage.log import Log
from gateway.storage.state import State
from gateway.storage.told_topics import ToldTopics


class _Told:
    """The broker, as whoever tells Home Assistant needs it."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def show(self, topic: str, payload: bytes) -> None:
        self._door.delivery.show(Message(topic, payload, 0, retain=True))

    def shown(self, topic: str) -> bytes:
        held = self._door.delivery.local.retained(topic)
        return b"" if held is None else held.payload

    def is_heard(self, topic: str) -> bool:
        return any(session.link is not None for session, _ in self._door.delivery.local.route(topic))

    def is_stuck(self, topic: str) -> bool:
        links = (session.link for session, _ in self._door.delivery.local.route(topic))
        return any(link is not None and link.is_stuck for link in links)

    def connected(self) -> Container[Device]:
        return self._door.connections_by_device()


def home_assistant_over(
    door: Door, access: Access, log: Log, state: State, settings: Settings, clock: Clock
) -> HomeAssistant:
    """Return what tells Home Assistant, with the broker on its way there and back."""
    told = HomeAssistant(
        settings.home_assistant, settings.gateway.id, log, access, ToldTopics(state), _Told(door), clock
    )
    access.on_change.append(told.changed)
    door.delivery.on_forget.append(told.forget)
    door.before_closing.append(told.goodbye)
    door.delivery.on_message.append(lambda message: told.hear(message.topic, message.payload))
    return told
