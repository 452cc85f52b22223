"""What clients subscribe to: which filters are granted, and that what was granted is on disk before it is answered.

It does not: know rights (door), or decide who gets a message (delivery).
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from gateway.broker.local import AmqttBroker
from gateway.broker.names import too_long
from gateway.broker.observers import Observers
from gateway.broker.seldom import Seldom
from gateway.broker.sessions import Session
from gateway.config import MqttSettings
from gateway.metrics import Metrics
from gateway.storage import mqtt_store
from gateway.storage.mqtt_store import Done, MqttStore

MaySubscribe = Callable[[str, str], bool]
"""(client id behind the door, topic filter) → whether the filter lies inside the client's rights."""
WantRetained = Callable[[Session, Iterable[tuple[str, int]]], None]
"""Hears a client's new filters, each with the QoS that was granted."""

logger = logging.getLogger(__name__)

_REFUSED = 0x80


class Subscriptions:
    """See the module's own words."""

    def __init__(
        self,
        settings: MqttSettings,
        may_subscribe: MaySubscribe,
        local: AmqttBroker,
        store: MqttStore,
        want_retained: WantRetained,
        metrics: Metrics,
        seldom: Seldom,
    ) -> None:
        self._settings = settings
        self._may_subscribe = may_subscribe
        self._local = local
        self._store = store
        self._want_retained = want_retained
        self._metrics = metrics
        self._seldom = seldom
        self.on_hearing: Observers[[]] = Observers("who subscribes", seldom)
        """Called when a client has come back to its subscriptions, or has a new one."""

    def restore(self, session: Session) -> None:
        """Take in those of a session that was on disk."""
        for name, qos in session.subscriptions.items():
            self._local.subscribe(session, name, qos)

    def subscribe(
        self, session: Session, asked: Sequence[tuple[str, int]], answer: Callable[[bytes], None], failed: Done
    ) -> None:
        """Subscribe; `answer` gets the return codes when what was granted is on disk; `failed` hears if it cannot."""
        codes = bytearray()
        granted: list[tuple[str, int]] = []
        for name, qos in asked:
            if refusal := self._refusal(session, name):
                self._refused(session, name, refusal)
                codes.append(_REFUSED)
                continue
            codes.append(qos)
            granted.append((name, qos))
            session.subscriptions[name] = qos
            self._local.subscribe(session, name, qos)

        def on_disk() -> None:
            answer(bytes(codes))
            if granted and not session.is_over:
                self.tell(session)
                self._want_retained(session, granted)

        changes = [mqtt_store.subscribe(session.number, name, qos) for name, qos in granted]
        if session.is_persistent:  # also when there is nothing to write: answers keep their order
            begin = mqtt_store.begin_session(session.number, session.client_id, session.namespace)
            self._store.write(
                [*begin, *changes] if changes else [], lambda error: failed(error) if error else on_disk()
            )
        else:
            on_disk()

    def tell(self, session: Session) -> None:
        """Tell whoever waits for listeners that this client hears something now, if it does."""
        if session.subscriptions:
            self.on_hearing()

    def _refusal(self, session: Session, name: str) -> str:
        """Return why a filter is not granted; empty when it is."""
        if too_long(name.removeprefix(session.namespace), self._settings):
            return "topic_too_long"
        if not self._may_subscribe(session.client_id, name):
            return "foreign_filter"
        if name not in session.subscriptions and len(session.subscriptions) >= session.subscriptions_at_most:
            return "too_many_subscriptions"
        return ""

    def _refused(self, session: Session, name: str, reason: str) -> None:
        self._metrics.subscriptions_refused.labels(reason).inc()
        if self._seldom.is_due(reason):
            about = {"client": session.username, "filter": name[:200]}
            logger.warning("topic filter not granted: %s", reason, extra=about)

    def unsubscribe(self, session: Session, names: Iterable[str], done: Done) -> None:
        """End subscriptions; `done` is called when that is on disk."""
        held = [name for name in dict.fromkeys(names) if name in session.subscriptions]  # it may name one twice
        for name in held:
            self._end(session, name)
        if session.is_persistent:
            changes = [mqtt_store.unsubscribe(session.number, name) for name in held]
            self._store.write(changes, done)
        else:
            done(None)

    def drop_foreign(self, session: Session) -> None:
        """End those that its client has no right to any more."""
        for name in [name for name in session.subscriptions if not self._may_subscribe(session.client_id, name)]:
            self._end(session, name)
            if session.is_persistent:
                self._store.later([mqtt_store.unsubscribe(session.number, name)])

    def end_all(self, session: Session) -> None:
        """Hear that a session is over."""
        for name in session.subscriptions:
            self._local.unsubscribe(session, name)

    def _end(self, session: Session, name: str) -> None:
        del session.subscriptions[name]
        self._local.unsubscribe(session, name)
