"""Who gets a message, and what must be on disk before its publisher hears that it was taken (P1).

- a retained message, and one that a persistent session is owed with QoS 1 or 2, is on disk first; then everybody gets
  it, and then it is acknowledged
- the QoS of a delivery is the lower of the published and the granted one (MQTT-3.8.4-6); a client with several filters
  that match gets one copy, by the highest
- QoS 0 goes straight to the socket, or is lost and counted when that is stuck; the rest waits in the client's outbox
- a new subscriber is sent the retained messages, as fast as it reads them

It does not: decide who may publish what (door), take subscriptions (subscriptions), or store readings (ingest).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.broker import packets
from gateway.broker.local import AmqttBroker, MayHear, Route
from gateway.broker.observers import Observers
from gateway.broker.outbox import IN_FLIGHT, Link, Outgoing
from gateway.broker.packets import Message
from gateway.broker.retained import Retained
from gateway.broker.seldom import Seldom
from gateway.broker.sessions import Session, Sessions
from gateway.broker.subscriptions import MaySubscribe, Subscriptions
from gateway.clock import Clock
from gateway.config import MqttSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.topics import KeptTopics
from gateway.storage import mqtt_store
from gateway.storage.mqtt_store import Change, Done, MqttStore

NamespaceOf = Callable[[str], str | None]
"""username → what stands before the topics of its credential behind the door; None when there is no such credential."""

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Keeps messages for whoever hears them by other ways than MQTT."""

    def wants(self, local_topic: str) -> bool:
        """Whether it wants a message on this topic behind the door."""
        ...

    def keep(self, local_topic: str, payload: bytes, qos: int, *, retain: bool) -> tuple[int, Change] | None:
        """Return the id of a message, and what has to be written of it; None when it does not want it."""
        ...

    def stored(self, message_id: int) -> None:
        """Hear that a message is on disk."""
        ...

    def expire(self) -> None:
        """Let go of what is too old."""
        ...


class Delivery:
    """See the module's own words."""

    def __init__(
        self,
        settings: MqttSettings,
        may_subscribe: MaySubscribe,
        may_hear: MayHear,
        rights_changes: Callable[[], int],
        store: MqttStore,
        recorder: Recorder,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._recorder = recorder
        self._may_hear = may_hear
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._seldom = Seldom(clock)
        self.local = AmqttBroker(may_hear, rights_changes)
        self.sessions = Sessions(settings, store, clock)
        self.subscriptions = Subscriptions(
            settings, may_subscribe, self.local, store, self._want_retained, metrics, self._seldom
        )
        self.sessions.on_end.append(self.subscriptions.end_all)
        self.retained = Retained(self.local, settings.retained_max_bytes, settings.retained_max_messages)
        self.on_message: Observers[[Message]] = Observers("messages", self._seldom)
        """Called with each message that is handed to its subscribers, whether there are any or not."""
        self.on_forget: list[Callable[[KeptTopics], None]] = []
        """Called when messages on these topics are to be forgotten for good."""
        self.sent = 0
        """Messages that left, or were queued for a client that is there."""

    async def restore(self, namespace_of: NamespaceOf) -> None:
        """Take in what is on disk, but for sessions whose credential is gone. Raises StoreFailed."""
        kept = await self._store.load()
        over = self.retained.restore(kept.retained)
        self._store.later(over)
        self._missed("retained_full", len(over))
        for one in kept.sessions.values():
            session, too_many = self.sessions.restore(one)
            self._missed("outbox_full", too_many)
            if namespace_of(session.username) != session.namespace:
                self.sessions.drop(session)
                continue
            self.subscriptions.restore(session)

    async def stop(self) -> None:
        """Return when all that is to be kept is on disk; nothing is from then on. Raises StoreFailed."""
        await self._store.close()

    def forget_strangers(self, namespace_of: NamespaceOf) -> None:
        """End the sessions whose credential is gone: their clients cannot come back."""
        for session in self.sessions:
            if session.link is None and namespace_of(session.username) != session.namespace:
                self.sessions.drop(session)

    async def forget(self, topics: KeptTopics) -> None:
        """Let go of the messages on these topics; whoever asks removes them from the disk.

        When this returns, none of them is on its way there any more. Raises StoreFailed.
        """
        self.retained.forget(topics)
        for forget in self.on_forget:
            forget(topics)
        for session in self.sessions:
            if session.outbox is not None:
                session.outbox.forget(topics.includes)
        await self._store.written()

    async def end_retained(self, topics: KeptTopics) -> None:
        """End the retained messages of these topics, as if each had been sent an empty one. Raises StoreFailed."""
        await self._store.written(self.retained.forget(topics))

    def expire(self) -> None:
        """Give up what has waited too long."""
        self._missed("outbox_expired", self.sessions.expire())
        self._recorder.expire()

    # Messages

    def wants(self, topic: str) -> bool:
        """Whether anybody subscribes to the topic and may hear it, or it is recorded."""
        return bool(self.local.route(topic)) or self._recorder.wants(topic)

    def take(
        self,
        message: Message | None,
        done: Done,
        *,
        received: tuple[Session, bytes] | None = None,
        in_turn: bool = False,
    ) -> bool:
        """Take a message that has been dealt with; its topic is the one behind the door.

        True when nothing of it has to be on disk: its subscribers have it. Else `done` hears when it is and they have,
        in the order of the calls; `in_turn` asks for that also if there is nothing to write. `received` is the QoS 2
        packet id by which a persistent session knows the message.
        """
        changes: list[Change] = []
        route: Route = ()
        queued: list[tuple[Session, Outgoing]] = []
        recorded = None
        if message is not None:
            recorded = self._recorder.keep(message.topic, message.payload, message.qos, retain=message.retain)
            if recorded is not None:
                changes.append(recorded[1])
            if message.retain:
                changes += self._retain(message)
            route = self.local.route(message.topic)
            queued = self._queue(message, route)
            changes += [self.sessions.on_disk(session, outgoing) for session, outgoing in queued]
        if received is not None and received[0].is_persistent:
            changes.append(mqtt_store.take_id(received[0].number, int.from_bytes(received[1], "big")))
        if not changes and not in_turn:
            self._hand_out(message, route)
            return True

        def written(error: StoreFailed | None) -> None:
            for session, outgoing in queued:
                self._settle(session, outgoing, error)
            if error is None:
                if recorded is not None:
                    self._recorder.stored(recorded[0])
                self._hand_out(message, route)
            done(error)

        self._store.write(changes, written)
        return False

    def _retain(self, message: Message) -> list[Change]:
        change = self.retained.keep(message)
        if change is None:
            self._missed("retained_full")
            return []
        return [change]

    def show(self, message: Message) -> None:
        """Give a message of our own to its subscribers, and hold it for later ones; it is never stored."""
        self.local.retain(message)
        self._hand_out(message, self.local.route(message.topic))

    def _queue(self, message: Message, route: Route) -> list[tuple[Session, Outgoing]]:
        """Queue a message for the persistent sessions that are owed it; it may leave when it is on disk."""
        if not message.qos:
            return []
        queued = []
        for session, granted in route:
            if granted and session.is_persistent:
                outgoing = self._put(session, message, min(message.qos, granted))
                if outgoing is not None:
                    queued.append((session, outgoing))
        return queued

    def _put(self, session: Session, message: Message, qos: int, *, retain: bool = False) -> Outgoing | None:
        outgoing = self.sessions.outbox(session).put(message, qos, self._clock.monotonic_ms(), retain=retain)
        if outgoing is None:
            self._missed("outbox_full")
        elif session.link is not None:
            self.sent += 1
        return outgoing

    def _hand_out(self, message: Message | None, route: Route) -> None:
        """Give a message to everybody for whom it does not have to be on disk."""
        if message is None:
            return
        self.on_message(message)
        plain: dict[str, bytes] = {}
        for session, granted in route:
            link = session.link
            if message.qos and granted:
                if not session.is_persistent and link is not None:
                    self._put(session, message, min(message.qos, granted))
            elif link is not None and link.is_stuck:
                self._missed("slow_subscriber")
            elif link is not None:
                packet = plain.get(session.namespace)
                if packet is None:
                    packet = plain[session.namespace] = _plain(message, session, retain=False)
                self.sent += 1
                link.send(packet)

    @staticmethod
    def _settle(session: Session, outgoing: Outgoing, error: StoreFailed | None) -> None:
        if session.outbox is None:
            return
        if error is None:
            session.outbox.ready(outgoing)
        else:
            session.outbox.withdraw(outgoing)

    def _missed(self, reason: str, count: int = 1) -> None:
        if count:
            self._metrics.events_dropped.labels("local", reason).inc(count)
            if self._seldom.is_due(reason):
                logger.warning("messages for local subscribers are lost: %s", reason)

    # Clients

    def resume(self, session: Session, link: Link) -> None:
        """Go on with a client that has its CONNACK, as far as it may still hear what it has subscribed to."""
        self.subscriptions.drop_foreign(session)
        if session.outbox is not None:
            session.outbox.give_up(lambda topic: not self._may_hear(session.client_id, topic))
            session.outbox.resume(link)
        self.go_on(session)
        self.subscriptions.tell(session)

    def go_on(self, session: Session) -> None:
        """Hear that a client's socket takes more, or that it has acknowledged something."""
        if session.outbox is not None:
            session.outbox.go_on()
        if session.replay is not None and not session.new_filters:
            self._replay(session, session.replay)

    def release(self, session: Session, packet_id: bytes, done: Done) -> None:
        """Hear a PUBREL; `done` is called when it may be answered."""
        if packet_id not in session.received:
            done(None)
            return
        session.received.discard(packet_id)
        if not session.is_persistent:
            done(None)
            return

        def written(error: StoreFailed | None) -> None:
            if error is not None:
                session.received.add(packet_id)
            done(error)

        self._store.write([mqtt_store.release_id(session.number, int.from_bytes(packet_id, "big"))], written)

    def _want_retained(self, session: Session, granted: Iterable[tuple[str, int]]) -> None:
        """Hear that a client has new filters: it gets the retained messages that match."""
        if session.replay is None:
            session.replay = OrderedDict()
        is_looking = bool(session.new_filters)
        session.new_filters.update(granted)
        if not is_looking:
            self._look_up(session, session.replay)

    def _look_up(self, session: Session, replay: "OrderedDict[str, int]") -> None:
        """Look up the retained messages of one new filter at a time: they may be thousands, and others wait."""
        name, qos = next(iter(session.new_filters.items()))
        for topic in self.local.retained_for(name):
            replay[topic] = max(qos, replay.get(topic, 0))
        del session.new_filters[name]
        if session.is_over:
            session.new_filters.clear()
        elif session.new_filters:
            asyncio.get_running_loop().call_soon(self._look_up, session, replay)
        else:
            self._replay(session, replay)

    def _replay(self, session: Session, replay: "OrderedDict[str, int]") -> None:
        """Send retained messages to a new subscriber, as it takes them: they may be many, and all are wanted."""
        while replay and (link := session.link) is not None and not link.is_stuck:
            if session.outbox is not None and len(session.outbox) >= IN_FLIGHT:
                return
            topic, asked = replay.popitem(last=False)
            message, granted = self.local.retained(topic), self.local.granted(session, topic)
            if message is None or granted is None:  # it has unsubscribed meanwhile (MQTT-3.10.4-2)
                continue
            qos = min(message.qos, asked, granted)
            if not qos:
                self.sent += 1
                link.send(_plain(message, session, retain=True))
            elif (outgoing := self._put(session, message, qos, retain=True)) is not None and session.is_persistent:
                self._store.write([self.sessions.on_disk(session, outgoing)], _settled(self._settle, session, outgoing))
        if not replay:
            session.replay = None


def _settled(
    settle: Callable[[Session, Outgoing, StoreFailed | None], None], session: Session, outgoing: Outgoing
) -> Done:
    return lambda error: settle(session, outgoing, error)


def _plain(message: Message, session: Session, *, retain: bool) -> bytes:
    """Encode a message of QoS 0 as a client knows it."""
    return packets.encode_publish(message.topic.removeprefix(session.namespace), message.payload, retain=retain)
