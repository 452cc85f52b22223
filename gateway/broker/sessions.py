"""Sessions: what the broker remembers of a client (MQTT 3.1.1, 3.1.2.4), and for how long.

- a clean session ends with its connection; a persistent one stays, on disk, until its client asks for a clean one
- of one credential only so many stay while their clients are away: the one that left first makes room
- what a session holds on disk carries its number, which is never used again while the gateway runs
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.broker.kept import Room, Share
from gateway.broker.outbox import Link, Outbox, Outgoing
from gateway.clock import Clock
from gateway.config import MqttSettings
from gateway.model.errors import StoreFailed
from gateway.storage import mqtt_store
from gateway.storage.mqtt_store import Change, KeptMessage, KeptSession, MqttStore

SESSIONS_KEPT = 10
"""Of one credential, while their clients are away."""


@dataclass(slots=True, eq=False)
class Session:
    """What is remembered of one client."""

    client_id: str
    """Behind the door: with its credential's name in front."""
    namespace: str
    number: int
    """Of a persistent session; 0 for a clean one."""
    link: Link | None = None
    subscriptions: dict[str, int] = field(default_factory=dict)
    received: set[bytes] = field(default_factory=set)
    """Packet ids of QoS 2 messages that were taken and not yet released."""
    outbox: Outbox | None = None
    new_filters: dict[str, int] = field(default_factory=dict)
    """What it has subscribed to, with the QoS granted, and whose retained messages are still to be looked up."""
    replay: "OrderedDict[str, int] | None" = None
    """Topics whose retained message is still to be sent, each with the QoS that was granted."""
    subscriptions_at_most: int = 0
    """Of whoever has logged in; until then it cannot subscribe."""
    is_over: bool = False

    @property
    def is_persistent(self) -> bool:
        """Whether it outlives its connection."""
        return self.number > 0

    @property
    def username(self) -> str:
        """The name of its credential."""
        return self.client_id.partition("|")[0]


class _Journal:
    """A persistent session's outbox on disk."""

    def __init__(self, store: MqttStore, session: Session) -> None:
        self._store = store
        self._session = session

    def all_sent(self, then: Callable[[], None]) -> None:
        self._write(mqtt_store.mark_sent(self._session.number), then)

    def released(self, outgoing: Outgoing, then: Callable[[], None]) -> None:
        self._write(mqtt_store.mark_released(self._session.number, outgoing.position), then)

    def gone(self, outgoing: Iterable[Outgoing]) -> None:
        self._store.later([mqtt_store.forget_message(self._session.number, one.position) for one in outgoing])

    def _write(self, change: Change, then: Callable[[], None]) -> None:
        link = self._session.link

        def done(error: StoreFailed | None) -> None:
            if error is None:
                then()
            elif link is not None:
                link.failed(error)

        self._store.write([change], done)


class Sessions:
    """Every session, and what they keep on disk."""

    def __init__(self, settings: MqttSettings, store: MqttStore, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._room = Room(settings.outbox_max_bytes)
        self._sessions: dict[str, Session] = {}
        self._persistent: dict[str, dict[str, Session]] = {}
        """The persistent ones of each credential, by client id; whoever came or left last is last."""
        self._last_number = 0
        self.on_end: list[Callable[[Session], None]] = []

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def outbox_bytes(self) -> int:
        """What waits for all clients together."""
        return self._room.used

    def get(self, client_id: str) -> Session | None:
        """Return a client's session."""
        return self._sessions.get(client_id)

    def restore(self, kept: KeptSession) -> tuple[Session, int]:
        """Take in a session that was on disk; returns it, and how many messages were too many by now."""
        session = Session(kept.client, kept.namespace, kept.number)
        self._last_number = max(self._last_number, kept.number)
        session.subscriptions = dict(kept.subscriptions)
        session.received = {packet_id.to_bytes(2, "big") for packet_id in kept.received}
        self._sessions[session.client_id] = session
        self._touch(session)
        too_many: list[Outgoing] = []
        if kept.outbox:
            too_many = self.outbox(session).restore([self._outgoing(message) for message in kept.outbox])
            self._store.later([mqtt_store.forget_message(kept.number, one.position) for one in too_many])
        return session, len(too_many)

    def _outgoing(self, kept: KeptMessage) -> Outgoing:
        """Return a message as it waits in memory. Of its age is believed what a clock that was right says."""
        now = self._clock.monotonic_ms()
        age = max(0, self._clock.now_ms() - kept.queued_at_ms) if kept.queued_at_ms and self._clock.is_synced() else 0
        return Outgoing(
            kept.position,
            kept.packet_id,
            kept.topic,
            kept.payload,
            kept.qos,
            kept.retain,
            now - age,
            is_ready=True,
            was_sent=kept.sent,
            is_released=kept.released,
        )

    def on_disk(self, session: Session, outgoing: Outgoing) -> Change:
        """Return what has to be written of a message that was queued just now."""
        queued_at_ms = self._clock.now_ms() if self._clock.is_synced() else 0
        message = KeptMessage(
            outgoing.position,
            outgoing.packet_id,
            outgoing.topic,
            outgoing.payload,
            outgoing.qos,
            outgoing.retain,
            queued_at_ms,
            sent=session.link is not None,  # it may leave as soon as it is there, without another write
            released=False,
        )
        return mqtt_store.queue_message(session.number, message)

    def outbox(self, session: Session) -> Outbox:
        """Return a session's outbox; one that only publishes never needs it."""
        if session.outbox is None:
            journal = _Journal(self._store, session) if session.is_persistent else None
            session.outbox = Outbox(session.namespace, Share(self._room), self._settings.outbox_max_messages, journal)
            if session.link is not None:
                session.outbox.resume(session.link)
        return session.outbox

    async def clear_way(self, client_id: str, namespace: str, *, clean: bool) -> None:
        """Return when a client may have the session that it asks for. Raises StoreFailed.

        A session that it does not want any more, or that was another organisation's under the same name, is gone from
        the disk; one that it does want is on disk as it was left.
        """
        old = self._sessions.get(client_id)
        if old is None:
            return
        if clean or old.namespace != namespace:
            self._forget(old)
            if old.is_persistent:
                await self._store.written(mqtt_store.end_session(old.number))
        elif old.is_persistent:
            await self._store.written()

    def open(self, client_id: str, namespace: str, *, clean: bool, link: Link) -> tuple[Session, bool]:
        """Return a client's session, and whether it was there before."""
        session = self._sessions.pop(client_id, None)
        is_present = session is not None
        if session is None:
            number = 0
            if not clean:
                number = self._last_number = self._last_number + 1
                self._store.later(mqtt_store.begin_session(number, client_id, namespace))
            session = Session(client_id, namespace, number)
        self._sessions[client_id] = session
        session.link = link
        self._touch(session)
        return session, is_present

    def leave(self, session: Session, link: Link) -> None:
        """The client's connection is gone."""
        if session.link is not link:
            return
        session.link = None
        if not session.is_persistent:
            self._forget(session)
            return
        if session.outbox is not None:
            session.outbox.suspend()
        self._touch(session)
        self._store.later(mqtt_store.leave_session(session.number, self._clock.now_ms()))

    def drop(self, session: Session) -> None:
        """End a session for good."""
        self._forget(session)
        if session.is_persistent:
            self._store.later(mqtt_store.end_session(session.number))

    def _touch(self, session: Session) -> None:
        """Note that a client came or left: of its credential's others that are away, the first make room."""
        if not session.is_persistent:
            return
        siblings = self._persistent.setdefault(session.username, {})
        siblings.pop(session.client_id, None)
        siblings[session.client_id] = session
        if len(siblings) > SESSIONS_KEPT:
            away = [one for one in siblings.values() if one.link is None]
            for one in away[: max(0, len(away) - SESSIONS_KEPT)]:
                self.drop(one)

    def _forget(self, session: Session) -> None:
        if session.is_over:
            return
        session.is_over = True
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        siblings = self._persistent.get(session.username, {})
        if siblings.get(session.client_id) is session:
            del siblings[session.client_id]
            if not siblings:
                del self._persistent[session.username]
        for hear in self.on_end:
            hear(session)
        session.subscriptions.clear()
        if session.outbox is not None:
            session.outbox.close()

    def expire(self) -> int:
        """Give up what has waited too long; returns how many messages that were."""
        before = self._clock.monotonic_ms() - round(self._settings.outbox_max_age_s * 1000)
        return sum(one.outbox.expire(before) for one in self if one.outbox is not None)
