"""amqtt as the broker behind the front door: subscriptions, matching, retained messages, fan-out.

The door owns the sockets and everything inbound. A client reaches amqtt only after it has authenticated, only when it
subscribes (or asks for a persistent session), and under a client id that starts with its credential's name, so that
nobody can take over what is not theirs. What is wrong in amqtt 0.12.1 and touches us here is mended in `_Broker`, each
override named after the defect.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.session import Session as AmqttSession

from gateway.broker.kept import Room, Share, kept_bytes
from gateway.broker.packets import Message, encode_connect, encode_publish
from gateway.model.topics import matches

logger = logging.getLogger(__name__)

_LISTENER = "door"
_TOPICS_CACHED = 10_000
_STOP_S = 2.0
_QUEUED_AT_MOST = 10_000  # messages of QoS 1 and 2 that wait for one connected subscriber
_KEPT_AT_MOST = 1_000  # of them for one that is away
_FILTERS_AT_MOST = 50  # of one client: every topic is matched against all of them
_RETAINED_AT_MOST = 5_000  # topics with a retained message, of all clients together
_IN_FLIGHT = 20  # of them sent and not yet acknowledged
_SESSIONS_KEPT = 10  # of one credential, while it is away

MaySubscribe = Callable[[str, str], bool]
"""(client id behind the door, topic filter) → whether the filter lies inside the client's rights."""

MayHear = Callable[[str, str], bool]
"""(client id behind the door, topic) → whether a message on it may be sent to the client or kept for it.

What is subscribed to lies inside the rights; but a session may outlive the rights that it was begun with.
"""


class LocalBroker(Protocol):
    """What the door needs of a broker behind it."""

    def wants(self, topic: str) -> bool:
        """Whether any subscription matches the topic."""
        ...

    def publish(self, message: Message) -> int:
        """Hand a message to its subscribers, and retain it if it says so; returns how many of them missed it."""
        ...


class AmqttBroker:
    """See the module's own words."""

    def __init__(self, may_subscribe: MaySubscribe, may_hear: MayHear, *, kept_max_bytes: int) -> None:
        self._broker = _Broker(may_subscribe, may_hear, Room(kept_max_bytes))
        self._context = BrokerContext(self._broker)
        self._wanted: dict[str, bool] = {}
        self._wanted_at = -1
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start amqtt; it opens no socket."""
        await self._broker.start()

    async def stop(self) -> None:
        """Stop amqtt and what it still does for clients."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._broker.shutdown()
        except TimeoutError:
            logger.warning("amqtt did not stop in time")

    def wants(self, topic: str) -> bool:
        """Whether any subscription matches the topic; remembered until subscriptions change."""
        if self._wanted_at != self._broker.changes or len(self._wanted) > _TOPICS_CACHED:
            self._wanted.clear()
            self._wanted_at = self._broker.changes
        wanted = self._wanted.get(topic)
        if wanted is None:
            filters = [name for name, subscribers in self._broker.subscriptions.items() if subscribers]
            wanted = self._wanted[topic] = any(matches(topic, name) for name in filters)
        return wanted

    def publish(self, message: Message) -> int:
        """Hand a message to its subscribers, and retain it if it says so; returns how many of them missed it."""
        if message.retain and not self._broker.retain(message):
            return 1
        return self._broker.deliver(message) if self.wants(message.topic) else 0

    def has_session(self, client_id: str) -> bool:
        """Whether there is a session of that client id, connected or kept."""
        return self._context.get_session(client_id) is not None

    def attach(
        self,
        client_id: str,
        *,
        clean_session: bool,
        peer: tuple[str, int],
        send: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> "Attachment":
        """Introduce an authenticated client; `send` gets every packet for it, the CONNACK first.

        `ended` is called when amqtt has finished with it, whatever the reason: nothing fed reaches it any more.
        """
        reader = _Reader()
        reader.feed(encode_connect(client_id, client_id, clean_session=clean_session))
        outbox = _Outbox(send, Share(self._broker.room))
        serving = self._serve(client_id, reader, _Writer(send, peer), outbox)
        task = asyncio.create_task(serving, name=f"amqtt {client_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: _finished(done, ended))
        return Attachment(reader, task)

    async def _serve(self, client_id: str, reader: "_Reader", writer: "_Writer", outbox: "_Outbox") -> None:
        await self._broker.forget_oldest_session(client_id)
        self._broker.outboxes[client_id] = outbox
        try:
            await self._broker.external_connected(reader, writer, _LISTENER)
        finally:
            outbox.close()
            if self._broker.outboxes.get(client_id) is outbox:
                del self._broker.outboxes[client_id]


def _finished(task: asyncio.Task[None], ended: Callable[[], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("amqtt failed for a client", exc_info=error)
    ended()


class Attachment:
    """An authenticated client's way into amqtt."""

    def __init__(self, reader: "_Reader", task: asyncio.Task[None]) -> None:
        self._reader = reader
        self._task = task

    def feed(self, packet: bytes) -> None:
        """Pass a packet of the client on."""
        self._reader.feed(packet)

    def close(self) -> None:
        """The client is gone."""
        self._reader.feed_eof()

    async def closed(self) -> None:
        """Return when amqtt has finished with the client."""
        await asyncio.wait([self._task], timeout=_STOP_S)


class _Outbox:
    """What one connected subscriber is still to be sent; bounded, so that a stuck one harms nobody else."""

    def __init__(self, send: Callable[[bytes], None], share: Share) -> None:
        self.send = send
        self._share = share
        self._waiting: asyncio.Queue[tuple[int, Callable[[], asyncio.Future[Any]]]] = asyncio.Queue(_QUEUED_AT_MOST)
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, size: int, publish: Callable[[], asyncio.Future[Any]]) -> bool:
        """Queue a message of QoS 1 or 2 that takes so many bytes; False when there are too many."""
        if self._closed or self._waiting.full() or not self._share.take(size):
            return False
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="outbox")
        self._waiting.put_nowait((size, publish))
        return True

    def close(self) -> None:
        """Forget what waits."""
        self._closed = True
        self._share.close()
        if self._pump is not None:
            self._pump.cancel()

    async def _run(self) -> None:
        while True:
            size, publish = await self._waiting.get()
            await self._in_flight.acquire()
            publish().add_done_callback(partial(self._published, size))

    def _published(self, size: int, sent: asyncio.Future[Any]) -> None:
        """Go on; that a subscriber did not acknowledge in time is no error of ours."""
        self._in_flight.release()
        self._share.give(size)
        if not sent.cancelled():
            sent.exception()


class _Broker(Broker):
    """amqtt's broker with the defects mended that can be met through this door."""

    def __init__(self, may_subscribe: MaySubscribe, may_hear: MayHear, room: Room) -> None:
        super().__init__(
            BrokerConfig(
                listeners={
                    "default": ListenerConfig(bind=None),
                    _LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind=_LISTENER),
                },
                plugins={},
            )
        )
        self._may_subscribe = may_subscribe
        self._may_hear = may_hear
        self.room = room
        self._kept: dict[str, Share] = {}
        """What waits for clients that are away, by client id."""
        self.outboxes: dict[str, _Outbox] = {}
        self.changes = 0
        """Rises whenever a subscription comes or goes."""

    async def _authenticate(self, session: AmqttSession, _: ListenerConfig) -> bool:
        """The door has done it; and a session that counts as anonymous is forgotten after a second."""
        session.is_anonymous = False
        return True

    def deliver(self, message: Message) -> int:
        """Send to every subscriber, at the lower of published and granted QoS; returns how many missed it.

        amqtt's own way makes a task per message and subscriber, without any bound, at the granted QoS.
        """
        missed = 0
        for topic_filter, subscribers in self._subscriptions.items():
            if subscribers and matches(message.topic, topic_filter):
                for session, granted in subscribers:
                    missed += not self._deliver_to(session, message, min(message.qos, granted))
        return missed

    def _deliver_to(self, session: AmqttSession, message: Message, qos: int) -> bool:
        if not self._may_hear(session.client_id or "", message.topic):
            return True
        outbox = self.outboxes.get(session.client_id or "")
        handler = self._get_handler(session)
        if outbox is None or handler is None or session.transitions.state != "connected":
            return self._keep_for(session, message, qos)
        if qos == 0:
            outbox.send(encode_publish(Message(message.topic, message.payload, 0, retain=False)))
            return True
        return outbox.put(
            kept_bytes(message.topic, message.payload),
            lambda: asyncio.ensure_future(handler.mqtt_publish(message.topic, message.payload, qos, retain=False)),
        )

    def _keep_for(self, session: AmqttSession, message: Message, qos: int) -> bool:
        """Keep a message for a persistent session whose client is away; False when there are too many."""
        if qos == 0 or session.clean_session:
            return True
        if session.retained_messages.qsize() >= _KEPT_AT_MOST:
            return False
        share = self._kept.setdefault(session.client_id or "", Share(self.room))
        if not share.take(kept_bytes(message.topic, message.payload)):
            return False
        session.retained_messages.put_nowait(RetainedApplicationMessage(None, message.topic, message.payload, qos))
        return True

    def retain(self, message: Message) -> bool:
        """Keep as the topic's retained message; an empty one ends that. False when there are too many."""
        old = self._retained_messages.pop(message.topic, None)
        freed = 0 if old is None else kept_bytes(message.topic, old.data)
        self.room.give(freed)
        if not message.payload:
            return True
        too_many = len(self._retained_messages) >= _RETAINED_AT_MOST
        if too_many or not self.room.take(kept_bytes(message.topic, message.payload)):
            if old is not None:
                self.room.take(freed)
                self._retained_messages[message.topic] = old
            return False
        # amqtt's own way is a task, and so too late for the next message's bounds; its events go to plugins only.
        retained = RetainedApplicationMessage(None, message.topic, message.payload, message.qos)
        self._retained_messages[message.topic] = retained
        return True

    async def _publish_session_retained_messages(self, session: AmqttSession) -> None:
        """Give the room back when what waited for a client has gone out, or cannot any more."""
        share = self._kept.pop(session.client_id or "", None)
        for _ in range(session.retained_messages.qsize()):
            kept = session.retained_messages.get_nowait()
            if self._may_hear(session.client_id or "", kept.topic):
                session.retained_messages.put_nowait(kept)
        try:
            await super()._publish_session_retained_messages(session)
        finally:
            if share is not None:
                share.close()

    async def _del_all_subscriptions(self, session: AmqttSession) -> None:
        """The session goes, and with it what waits for its client."""
        if (share := self._kept.pop(session.client_id or "", None)) is not None:
            share.close()
        await super()._del_all_subscriptions(session)

    async def forget_oldest_session(self, client_id: str) -> None:
        """Make room among the sessions of a credential whose clients are away: amqtt keeps any number, for ever."""
        username = client_id.partition("|")[0] + "|"
        kept = [
            name
            for name, (session, _) in self._sessions.items()
            if name.startswith(username) and name != client_id and session.transitions.state != "connected"
        ]
        for name in kept[: max(0, len(kept) - _SESSIONS_KEPT + 1)]:
            await self._delete_session(name)

    async def add_subscription(self, subscription: tuple[str, int], session: AmqttSession) -> int:
        """Refuse a filter outside the client's rights: amqtt has no notion of them without a plugin per check."""
        if session.client_id is None or not self._may_subscribe(session.client_id, subscription[0]):
            return 0x80
        held = [name for name, subscribers in self._subscriptions.items() if any(s is session for s, _ in subscribers)]
        if subscription[0] not in held and len(held) >= _FILTERS_AT_MOST:
            return 0x80
        self.changes += 1
        return await super().add_subscription(subscription, session)

    def _del_subscription(self, a_filter: str, session: AmqttSession) -> int:
        self.changes += 1
        return super()._del_subscription(a_filter, session)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: AmqttSession
    ) -> None:
        """Defect D13b: a new client is sent retained messages that match *any* client's subscription."""
        subscribers = self._subscriptions.get(subscription[0], [])
        may = self._may_subscribe(session.client_id or "", subscription[0])  # it may be held since other rights held
        if may and any(subscriber is session for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class _Reader(ReaderAdapter):
    """Packets on their way into amqtt."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False
        self._more = asyncio.Event()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self._more.set()

    def feed_eof(self) -> None:
        self._ended = True
        self._more.set()

    async def read(self, n: int = -1) -> bytes:
        while not self._ended and (n < 0 or len(self._buffer) < n):
            self._more.clear()
            await self._more.wait()
        count = len(self._buffer) if n < 0 else n
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


class _Writer(WriterAdapter):
    """Packets on their way out; amqtt writes each one whole."""

    def __init__(self, send: Callable[[bytes], None], peer: tuple[str, int]) -> None:
        self._send = send
        self._peer = peer

    def write(self, data: bytes) -> None:
        self._send(bytes(data))

    async def drain(self) -> None:
        """The door drops a client whose socket takes no more, so there is nothing to wait for."""

    def get_peer_info(self) -> tuple[str, int]:
        return self._peer

    def get_ssl_info(self) -> None:
        return None

    async def close(self) -> None:
        """The door closes the socket."""
