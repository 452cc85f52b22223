"""amqtt as the broker behind the front door: subscriptions, matching, retained messages, fan-out.

The door owns the sockets and everything inbound. A client reaches amqtt only after it has authenticated, only when it
subscribes (or asks for a persistent session), and under a client id that starts with its credential's name, so that
nobody can take over what is not theirs. What is wrong in amqtt 0.12.1 and touches us here is mended in `_Broker`, each
override named after the defect.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.session import Session as AmqttSession

from gateway.broker.packets import Message, encode_connect
from gateway.model.topics import matches

logger = logging.getLogger(__name__)

_LISTENER = "door"
_TOPICS_CACHED = 10_000
_STOP_S = 2.0

MaySubscribe = Callable[[str, str], bool]
"""(client id behind the door, topic filter) → whether the filter lies inside the client's rights."""


class LocalBroker(Protocol):
    """What the door needs of a broker behind it."""

    def wants(self, topic: str) -> bool:
        """Whether any subscription matches the topic."""
        ...

    def publish(self, message: Message) -> bool:
        """Hand a message to the subscribers, and retain it if it says so; False when it was too much to take."""
        ...


class AmqttBroker:
    """See the module's own words."""

    def __init__(self, may_subscribe: MaySubscribe, *, max_backlog: int = 5_000) -> None:
        self._max_backlog = max_backlog
        self._broker = _Broker(may_subscribe)
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

    def publish(self, message: Message) -> bool:
        """Hand a message to the subscribers, and retain it if it says so; False when it was too much to take."""
        wanted = self.wants(message.topic)
        if not wanted and not message.retain:
            return True
        if self._broker.backlog > self._max_backlog:
            return False
        self._broker.take(message, broadcast=wanted)
        return True

    def has_session(self, client_id: str) -> bool:
        """Whether there is a session of that client id, connected or kept."""
        return self._context.get_session(client_id) is not None

    def attach(
        self, client_id: str, *, clean_session: bool, peer: tuple[str, int], send: Callable[[bytes], None]
    ) -> "Attachment":
        """Introduce an authenticated client; `send` gets every packet for it, the CONNACK first."""
        reader = _Reader()
        reader.feed(encode_connect(client_id, client_id, clean_session=clean_session))
        writer = _Writer(send, peer)
        task = asyncio.create_task(
            self._broker.external_connected(reader, writer, _LISTENER), name=f"amqtt {client_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Attachment(reader, task)


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


class _Broker(Broker):
    """amqtt's broker with the defects mended that can be met through this door."""

    def __init__(self, may_subscribe: MaySubscribe) -> None:
        super().__init__(
            BrokerConfig(
                listeners={
                    "default": ListenerConfig(bind=None),
                    _LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind=_LISTENER),
                },
                plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            )
        )
        self._may_subscribe = may_subscribe
        self._retaining: set[asyncio.Future[None]] = set()
        self.changes = 0
        """Rises whenever a subscription comes or goes."""

    @property
    def backlog(self) -> int:
        """Messages taken and not yet written to every subscriber."""
        return self._broadcast_queue.qsize() + len(self._tasks_queue)

    def take(self, message: Message, *, broadcast: bool) -> None:
        """Queue a message; amqtt's own way in is a coroutine only to wait for its unbounded queue."""
        if broadcast:
            queued: dict[str, Any] = {"session": None, "topic": message.topic, "data": message.payload}
            if message.qos == 0:  # without it amqtt delivers at the granted QoS, which may not exceed the published one
                queued["qos"] = 0
            self._broadcast_queue.put_nowait(queued)
        if message.retain:
            retaining = asyncio.ensure_future(self.retain_message(None, message.topic, message.payload, message.qos))
            self._retaining.add(retaining)
            retaining.add_done_callback(self._retaining.discard)

    async def add_subscription(self, subscription: tuple[str, int], session: AmqttSession) -> int:
        """Refuse a filter outside the client's rights: amqtt has no notion of them without a plugin per check."""
        if session.client_id is None or not self._may_subscribe(session.client_id, subscription[0]):
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
        if any(subscriber is session for subscriber, _ in subscribers):
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
