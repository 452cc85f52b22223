"""The front door: every MQTT connection, whichever port it came by, and what its client may.

amqtt alone acknowledges before it stores, touches sessions before it authenticates, never notices a dead peer and knows
no limits. So it holds subscriptions and retained messages, and no client ever reaches it (local).
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from gateway import __version__
from gateway.access import Access, Credential, Device, Publication
from gateway.broker.buffers import Buffers
from gateway.broker.connection import Connection
from gateway.broker.delivery import Delivery, Recorder
from gateway.broker.packets import Message
from gateway.broker.ports import Ports
from gateway.broker.publishing import Publishing
from gateway.broker.seldom import Seldom
from gateway.broker.sys_topics import SYS_INTERVAL_S, SysTopics
from gateway.broker.wills import Wills
from gateway.certificates.authority import ClientIdentity
from gateway.clock import Clock
from gateway.config import MqttSettings
from gateway.ingest import Ingest
from gateway.login_delay import LoginDelay
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.topics import KeptTopics, answered_command
from gateway.storage.mqtt_store import Done, MqttStore
from gateway.tls.site_tls import SiteTls

logger = logging.getLogger(__name__)

_TAKE_OVER_S = 5.0  # a disk that hangs keeps nobody out for longer
_LAST_WORDS_S = 2.0
_HANDED_ON_S = 30.0
_QUIET = frozenset({"disconnect", "connection_lost", "stopping", "inflight"})
"""Reasons that are nobody's fault, and so neither warned of nor counted as refusals."""


class TakesAnswers(Protocol):
    """Takes what devices say to commands."""

    def answered(self, key: tuple[str, str, str], payload: bytes, done: Done) -> None:
        """Take an answer of (organisation, device, command); `done` is called when it is on disk, or cannot be."""
        ...


class Door:
    """See the module's own words."""

    def __init__(
        self,
        settings: MqttSettings,
        access: Access,
        ingest: Ingest,
        store: MqttStore,
        recorder: Recorder,
        clock: Clock,
        metrics: Metrics,
        tls: SiteTls | None = None,
    ) -> None:
        started_ms = clock.monotonic_ms()
        self.settings = settings
        self.ingest = ingest
        self.login_delay = LoginDelay(clock, waiting_at_most=settings.max_connections // 4)
        self._connections: set[Connection] = set()
        self._store = store
        self.delivery = Delivery(
            settings, self._may_subscribe, self._may_hear, lambda: access.changes, store, recorder, clock, metrics
        )
        self.wills = Wills(access, ingest, self.delivery)
        self.received = 0
        """Messages that clients have published."""
        self.buffers = Buffers(settings.buffers_max_bytes // 2, self._connections)
        self._sys = SysTopics(
            {
                "version": lambda: f"neurogate {__version__}",
                "uptime": lambda: f"{(clock.monotonic_ms() - started_ms) // 1000} seconds",
                "clients/connected": lambda: len(self._clients),
                "clients/total": lambda: len(self.delivery.sessions),
                "publish/messages/received": lambda: self.received,
                "publish/messages/sent": lambda: self.delivery.sent,
                "retained messages/count": lambda: len(self.delivery.retained),
                "subscriptions/count": lambda: self.delivery.local.subscriptions,
                "store/messages/bytes": lambda: self.delivery.retained.used_bytes + self.delivery.sessions.outbox_bytes,
            }
        )
        self._access = access
        self._metrics = metrics
        self._seldom = Seldom(clock)
        self._clients: dict[str, Connection] = {}
        self._owing: dict[str, set[Publishing]] = {}
        """What connections that have ended still owe, by the client id behind the door."""
        self.before_opening: list[Callable[[], Awaitable[None]]] = []
        """Awaited when sessions are as they were, and nobody has come in yet."""
        self.before_closing: list[Callable[[], None]] = []
        """Called while everybody can still be told something."""
        self.answers: TakesAnswers | None = None
        self._tls = tls
        self.ports = Ports(settings, tls)
        access.on_change.append(self._drop_revoked)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def connections_by_device(self) -> Counter[Device]:
        """Return how many connections each device has open."""
        devices = (one.credential.device for one in self._connections if one.credential is not None)
        return Counter(device for device in devices if device is not None)

    async def start(self) -> None:
        """Open the ports, for clients that find what they were promised. Raises PortInUse or StoreFailed."""
        await self.delivery.restore(self._access.namespace_of)
        for prepare in self.before_opening:
            await prepare()
        await self.ports.open(lambda: Connection(self))

    async def stop(self) -> None:
        """Close the ports and every connection."""
        for say in self.before_closing:
            say()
        self.ports.close()
        for connection in list(self._connections):
            connection.end("stopping")
        ending = [connection.lost for connection in self._connections]
        if ending:
            await asyncio.wait(ending, timeout=_LAST_WORDS_S)
        await self._handed_on((one.settled for some in self._owing.values() for one in some), _TAKE_OVER_S)
        try:
            await self.delivery.stop()
        except StoreFailed as error:
            logger.warning("what clients acknowledged last may be sent to them again: %s", error.message)

    async def look_after(self) -> None:
        """Give up what has waited too long, and say how the broker is doing; runs until it is cancelled."""
        while True:
            self.delivery.expire()
            for message in self._sys.messages():
                self.delivery.show(message)
            await asyncio.sleep(SYS_INTERVAL_S)

    # For connections

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, unless it is one too many."""
        if len(self._connections) >= self.settings.max_connections:
            return False
        self._connections.add(connection)
        self._metrics.connections.set(len(self._connections))
        return True

    def turn_everybody_away(self) -> None:
        """Close every connection, as the store takes no more: an acknowledgement withheld only hangs a client."""
        for connection in list(self._connections):
            connection.end("store_full")

    def forget(self, connection: Connection) -> None:
        """The connection's socket is closed."""
        self._connections.discard(connection)
        self._metrics.connections.set(len(self._connections))
        self.leave(connection)

    def leave(self, connection: Connection) -> None:
        """Give up the client id, if it is still this connection's."""
        if connection.credential is not None and self._clients.get(connection.local_id) is connection:
            del self._clients[connection.local_id]

    def left(self, local_id: str, publishing: Publishing) -> None:
        """A connection has ended; what it still owes is handed on before its client comes in again."""
        if publishing.settled.done():
            return
        owing = self._owing.setdefault(local_id, set())
        owing.add(publishing)

        def settled(_: object) -> None:
            owing.discard(publishing)
            if not owing and self._owing.get(local_id) is owing:
                del self._owing[local_id]

        publishing.settled.add_done_callback(settled)

    def closed(self, connection: Connection, reason: str, detail: str) -> None:
        """Say why a connection ends."""
        client = connection.credential.username if connection.credential else ""
        level = logging.DEBUG if reason in _QUIET else logging.WARNING
        logger.log(
            level,
            "connection closed: %s",
            reason,
            extra={"peer": connection.peer, "client": client, "detail": detail},
        )
        if reason not in _QUIET:
            self._metrics.refused.labels(reason).inc()

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the disk that nothing should be added."""
        waiting = self.ingest.waiting_bytes + self._store.waiting_bytes
        return waiting > self.settings.buffers_max_bytes // 2

    def paused(self, connection: Connection, reason: str) -> None:
        """Count that a client is not read for a while."""
        self._metrics.paused.labels(reason).inc()
        if self._seldom.is_due(reason):
            level = logging.DEBUG if reason in _QUIET else logging.WARNING
            client = connection.credential.username if connection.credential else ""
            logger.log(
                level, "client not read for a while: %s", reason, extra={"peer": connection.peer, "client": client}
            )

    def authenticate(self, username: str | None, password: str | None) -> Credential | None:
        """Return who this is."""
        if username is None or password is None:
            return None
        return self._access.authenticate(username, password)

    def identify(self, identity: ClientIdentity) -> Credential | None:
        """Return who shows this certificate, None when it is good for nobody any more."""
        return self._access.identify(identity)

    @property
    def asks_certificates(self) -> bool:
        """Whether nobody comes in over TLS without a certificate."""
        return self._tls is not None and self._tls.asks_certificates

    def came_in(self, credential: Credential) -> None:
        """Count a login."""
        self._access.came_in(credential)

    def delayed(self, delay_s: float) -> None:
        """Count a failed login, whose answer waits so long."""
        self._metrics.logins_delayed.inc(delay_s)

    def publication(self, credential: Credential, topic: str) -> Publication | None:
        """Return what a message on this topic of the client is; None when it is not the client's to publish to."""
        return self._access.publication(credential, topic)

    def take_answer(self, credential: Credential, message: Message, done: Done) -> bool:
        """Take what a device says to a command, if a message is that; `done` is then called as for any on disk.

        The site's tools speak in no device's name.
        """
        organization_id = credential.organization_id
        if self.answers is None or organization_id is None or not message.topic.endswith("/ack"):
            return False
        answered = answered_command(organization_id, message.topic.removeprefix(credential.namespace))
        if answered is None:
            return False
        self.answers.answered((organization_id, *answered), message.payload, done)
        return True

    def connection_of(self, local_id: str) -> Connection | None:
        """Return the connection of a client, by its id behind the door."""
        return self._clients.get(local_id)

    def is_known(self, username: str | None) -> str:
        """Return the username if it is somebody's, else an empty text."""
        return username if username is not None and self._access.is_known(username) else ""

    def new_client_id(self) -> str:
        """Return a client id for a client that brought none."""
        return f"auto-{secrets.token_hex(8)}"

    async def take_over(self, connection: Connection) -> None:
        """Make the connection its client's only one: an older one is really ended first (MQTT-3.1.4-2).

        And what older ones have published is handed on: what comes now is newer.
        """
        old = self._clients.get(connection.local_id)
        self._clients[connection.local_id] = connection
        if old is not None and old is not connection:
            old.end("taken_over")
        ending = [] if old is None or old is connection else [old.lost]
        ending += [one.settled for one in self._owing.get(connection.local_id, ())]
        await self._handed_on(ending, _TAKE_OVER_S)

    async def _handed_on(self, futures: Iterable[asyncio.Future[None]], timeout_s: float) -> bool:
        """Return when all are done, or some are not within the time (False)."""
        waiting = [one for one in futures if not one.done()]
        if not waiting:
            return True
        self.ingest.hurry()
        return not (await asyncio.wait(waiting, timeout=timeout_s))[1]

    async def forget_messages(self, topics: KeptTopics) -> None:
        """Let go of the messages on these topics, as `Delivery.forget`; none published before comes back.

        Raises StoreFailed.
        """
        handing_on = [one.settled for some in self._owing.values() for one in some]
        handing_on += [one for one in (connection.handed_on() for connection in self._connections) if one is not None]
        if not await self._handed_on(handing_on, _HANDED_ON_S):
            raise StoreFailed("What clients have published still waits for the disk.", hint="Run it again.")
        await self.delivery.forget(topics)

    async def _drop_revoked(self) -> None:
        """End every connection whose credential has been revoked or replaced; returns when nothing more comes of it."""
        ending: list[asyncio.Future[None]] = []
        for connection in list(self._connections):
            if connection.credential is not None and not self._access.is_current(connection.credential):
                connection.end("revoked")
                ending.append(connection.lost)
        ending += [
            one.settled for some in self._owing.values() for one in some if not self._access.is_current(one.credential)
        ]
        await self._handed_on(ending, _TAKE_OVER_S)
        self.delivery.forget_strangers(self._access.namespace_of)

    def _may_subscribe(self, local_id: str, topic_filter: str) -> bool:
        connection = self._clients.get(local_id)
        if connection is None or connection.credential is None:
            return False
        space = connection.namespace
        return topic_filter.startswith(space) and connection.credential.rights.may_subscribe(topic_filter[len(space) :])

    def _may_hear(self, local_id: str, topic: str) -> bool:
        return self._access.may_hear(local_id.partition("|")[0], topic)
