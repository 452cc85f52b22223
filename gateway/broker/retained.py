"""Retained messages: the last one of each topic, in bounds and on disk."""

from collections.abc import Iterable

from gateway.broker.kept import Room, kept_bytes
from gateway.broker.local import LocalBroker
from gateway.broker.packets import Message
from gateway.model.topics import KeptTopics
from gateway.storage import mqtt_store
from gateway.storage.mqtt_store import Change


class Retained:
    """See the module's own words. The broker behind holds them."""

    def __init__(self, local: LocalBroker, max_bytes: int, max_messages: int) -> None:
        self._local = local
        self._room = Room(max_bytes)
        self._max_messages = max_messages
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def used_bytes(self) -> int:
        """What they take."""
        return self._room.used

    def keep(self, message: Message) -> Change | None:
        """Keep a message for its topic, and return what has to be written; None when there are too many.

        A new subscriber may get it before it is on disk: that shows a publisher's word early, and loses nothing.
        """
        return mqtt_store.retain(message.topic, message.payload, message.qos) if self._hold(message) else None

    def restore(self, messages: Iterable[tuple[str, bytes, int]]) -> list[Change]:
        """Take in what was on disk; returns what has to be written, as too much by now."""
        return [
            mqtt_store.retain(topic, b"", 0)
            for topic, payload, qos in messages
            if not self._hold(Message(topic, payload, qos, retain=True))
        ]

    def forget(self, topics: KeptTopics) -> list[Change]:
        """Let go of these topics, in memory only; returns what would have to be written of it."""
        gone = [
            topic
            for topic_filter in topics.filters
            for topic in filter(topics.includes, self._local.retained_for(topic_filter))
        ]
        for topic in gone:
            self._hold(Message(topic, b"", 0, retain=True))
        return [mqtt_store.retain(topic, b"", 0) for topic in gone]

    def _hold(self, message: Message) -> bool:
        old = self._local.retained(message.topic)
        freed = 0 if old is None else kept_bytes(old.topic, old.payload)
        self._room.give(freed)
        if message.payload:
            too_many = old is None and self._count >= self._max_messages
            if too_many or not self._room.take(kept_bytes(message.topic, message.payload)):
                if freed:
                    self._room.take(freed)
                return False
        self._count += bool(message.payload) - (old is not None)
        self._local.retain(message)
        return True
