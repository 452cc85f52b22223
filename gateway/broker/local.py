"""amqtt behind the front door: it holds who has subscribed to what, and the retained messages.

That is all it does. Its connections, its tasks and its delivery are not used, as they lose what they have promised:
QoS 1 and 2 are forgotten after five seconds, queues end with a connection, a queue has no bound, and each message
costs a task for each subscriber. So the door decodes what clients say (connection), sessions and outboxes keep what
they are owed, and delivery decides who gets what. Nothing else of neurogate touches amqtt.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, cast

from amqtt.broker import Broker, BrokerContext, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig

from gateway.broker.packets import Message
from gateway.broker.sessions import Session
from gateway.broker.topic_tree import TopicTree

_ROUTES_CACHED = 100_000  # subscribers of all remembered topics together

MayHear = Callable[[str, str], bool]
"""(client id behind the door, topic) → whether the client may be sent it; its rights may have changed meanwhile."""
Route = tuple[tuple[Session, int], ...]
"""The sessions that a topic goes to, each with the highest QoS it was granted (MQTT-3.3.5-1)."""


class LocalBroker(Protocol):
    """What the rest of this room needs of a broker behind it."""

    def route(self, topic: str) -> Route:
        """Return who subscribes to a topic and may hear it."""
        ...

    def granted(self, session: Session, topic: str) -> int | None:
        """Return the highest QoS that a session was granted for a topic; None when it does not subscribe to it."""
        ...

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> None:
        """Hold a subscription, or its new QoS."""
        ...

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Let go of a subscription."""
        ...

    def retained(self, topic: str) -> Message | None:
        """Return a topic's retained message."""
        ...

    def retained_for(self, topic_filter: str) -> Iterator[str]:
        """Yield the topics with a retained message that a filter matches."""
        ...

    def retain(self, message: Message) -> None:
        """Hold a retained message; an empty one ends that."""
        ...


class AmqttBroker:
    """See the module's own words. A look-up costs what lies on its way, not what there is."""

    def __init__(self, may_hear: MayHear, rights_changes: Callable[[], int]) -> None:
        """`rights_changes` grows whenever `may_hear` may answer something else."""
        self._may_hear = may_hear
        self._rights_changes = rights_changes
        self._rights_seen = rights_changes()
        broker = Broker(BrokerConfig(listeners={"default": ListenerConfig(bind=None)}, plugins={}))
        context = BrokerContext(broker)  # never started: it opens no socket and runs no task
        self._subscriptions = cast("dict[str, list[tuple[Session, int]]]", context.subscriptions)
        self._retained: dict[str, RetainedApplicationMessage] = context.retained_messages
        self._filters = TopicTree()
        self._topics = TopicTree()
        self._routes: dict[str, Route] = {}
        self._cached = 0
        self.changes = 0
        """Grows when a subscription comes or goes."""

    def route(self, topic: str) -> Route:
        """Return who subscribes to a topic and may hear it; remembered until subscriptions or rights change.

        To ask for the rights of each subscriber with each message was a sixth of what a fan-out cost.
        """
        if self._rights_seen != (changes := self._rights_changes()):
            self._rights_seen = changes
            self._forget_routes()
        route = self._routes.get(topic)
        if route is None:
            granted: dict[Session, int] = {}
            for name in self._filters.filters_for(topic):
                for session, qos in self._subscriptions[name]:
                    granted[session] = max(qos, granted.get(session, 0))
            if self._cached > _ROUTES_CACHED:
                self._forget_routes()
            route = self._routes[topic] = tuple(
                (session, qos) for session, qos in granted.items() if self._may_hear(session.client_id, topic)
            )
            self._cached += 1 + len(route)
        return route

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._cached = 0

    def granted(self, session: Session, topic: str) -> int | None:
        """Return the highest QoS that a session was granted for a topic; None when it does not subscribe to it."""
        held = session.subscriptions
        return max((held[name] for name in self._filters.filters_for(topic) if name in held), default=None)

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> None:
        """Hold a subscription, or its new QoS."""
        self._let_go(session, topic_filter)
        if topic_filter not in self._subscriptions:
            self._filters.add(topic_filter)
        self._subscriptions.setdefault(topic_filter, []).append((session, qos))
        self._changed()

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Let go of a subscription."""
        self._let_go(session, topic_filter)
        if not self._subscriptions.get(topic_filter):
            self._subscriptions.pop(topic_filter, None)
            self._filters.remove(topic_filter)
        self._changed()

    def _let_go(self, session: Session, topic_filter: str) -> None:
        subscribers = self._subscriptions.get(topic_filter, [])
        for place, (one, _) in enumerate(subscribers):
            if one is session:
                del subscribers[place]
                return

    def _changed(self) -> None:
        self.changes += 1
        self._forget_routes()

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are; two clients may have the same filter."""
        return sum(map(len, self._subscriptions.values()))

    def retained(self, topic: str) -> Message | None:
        """Return a topic's retained message."""
        held = self._retained.get(topic)
        return None if held is None else Message(topic, bytes(held.data), held.qos or 0, retain=True)

    def retained_for(self, topic_filter: str) -> Iterator[str]:
        """Yield the topics with a retained message that a filter matches."""
        return self._topics.topics_for(topic_filter)

    def retain(self, message: Message) -> None:
        """Hold a retained message; an empty one ends that."""
        if not message.payload:
            if self._retained.pop(message.topic, None) is not None:
                self._topics.remove(message.topic)
            return
        if message.topic not in self._retained:
            self._topics.add(message.topic)
        self._retained[message.topic] = RetainedApplicationMessage(None, message.topic, message.payload, message.qos)
