"""The composition root: builds every part from Settings, starts and stops them in order.

Order of starting: lock, state, log, listeners, forwarders. Order of stopping: listeners first, so that nothing new is
promised (the control socket is the last of them); then the forwarders, whose batch under way is frozen and will be sent
again under the same id; then the log, which commits what it has taken.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from cloud_sync.callbacks import Callbacks
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.signed_post import SignedPost
from cloud_sync.notifier import Notifier
from gateway.access import Access
from gateway.alerts.engine import AlertEngine
from gateway.broker.boards import commands_over
from gateway.broker.door import Door
from gateway.broker.home_assistant import home_assistant_over
from gateway.broker.names import too_long
from gateway.broker.publisher import Publisher
from gateway.callers import Callers
from gateway.clock import Clock, SystemClock
from gateway.config import Settings
from gateway.control import ControlServer
from gateway.hook_routes import hook_routes
from gateway.http_listeners import HttpListeners
from gateway.inbound.engine import receiver
from gateway.ingest import Ingest
from gateway.integrations import RunningIntegrations
from gateway.live_feed import LiveFeed
from gateway.machine_names import host_label
from gateway.mdns import Announcer, announced, local_addresses
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.status import GatewayStatus
from gateway.operations.devices import add_device
from gateway.operations.registry import OPERATIONS
from gateway.parsers.routes import ParserRoutes
from gateway.rate_limit import RateLimits
from gateway.running_parts import Parts
from gateway.running_site import RunningSite
from gateway.site_routes import site_routes
from gateway.sources.serial_sources import serial_sources
from gateway.status_report import StatusReport
from gateway.storage.bounds import Bounds
from gateway.storage.certificates import SiteCertificates
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.log import Log
from gateway.storage.mqtt_messages import MqttMessages
from gateway.storage.mqtt_store import MqttStore
from gateway.storage.organizations import Organizations
from gateway.storage.passwords import derived_secret
from gateway.storage.progress import Progress
from gateway.storage.repair.run_marker import RunMarker
from gateway.storage.snapshot import remove_left_copy
from gateway.storage.state import DeviceCredential, State
from gateway.supervisor import Supervisor
from gateway.tls.site_tls import SiteTls
from gateway.wanted_integrations import check_integrations
from gateway.watching import alert_engine, told_by, watched_integrations
from gateway.web.authorization import Authorization
from gateway.web.document import Document
from gateway.web.health import Health
from gateway.web.live import Live
from gateway.web.mqtt_broker import MqttBroker
from gateway.web.routes import Routes
from gateway.web.sensor_data import SensorData

logger = logging.getLogger(__name__)

_BOUNDS_CHECK_S = 1.0
_CLOCK_CHECK_S = 1.0  # until then, readings from before go out with the wrong time
_CALLBACK_TIMEOUT_S = 30.0
_LOCK_PATIENCE_S = 2.0  # for a command that has the store for a moment


class Gateway:
    """One gateway. `run` runs it; the other methods are for whoever shares its event loop."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._egress = Egress(settings.egress)
        self._metrics = Metrics()
        self._supervisor = Supervisor(self._metrics)
        self._report = StatusReport(settings, self._clock, self._metrics, self._supervisor)
        self._parts: Parts | None = None
        self._run_marker: RunMarker
        self._progress: Progress
        self._alerts: AlertEngine

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None] | None = None) -> None:
        """Run until `stop` is set; `ready` is called when the listeners are open. Raises NeurogateError."""
        check_integrations(self._settings)
        data_dir = DataDir(self._settings.gateway.data_dir)
        async with data_dir.lock_within(_LOCK_PATIENCE_S):
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(self._marker(data_dir))
                parts = await self._open(stack, data_dir)
                logger.info(
                    "gateway ready",
                    extra={
                        "mqtt_port": parts.door.ports.mqtt,
                        "http_port": parts.http.port,
                        "mqtt_tls_port": parts.door.ports.mqtt_tls,
                        "https_port": parts.http.tls_port,
                        "websocket_port": self._settings.mqtt.websocket_port,
                    },
                )
                if ready is not None:
                    ready()
                async with asyncio.TaskGroup() as tasks:
                    running = [
                        tasks.create_task(self._supervisor.keep_running(name, run), name=name)
                        for name, run in self._long_lived(parts).items()
                    ]
                    await stop.wait()
                    await parts.listeners.aclose()
                    for task in running:
                        task.cancel()
                self._run_marker.is_clean = not parts.log.care.is_damaged
                if self._run_marker.is_clean:
                    await self._say_goodbye(parts)
            self._parts = None

    def _marker(self, data_dir: DataDir) -> RunMarker:
        self._run_marker = RunMarker(data_dir.running)
        return self._run_marker

    async def _open(self, stack: contextlib.AsyncExitStack, data_dir: DataDir) -> Parts:
        settings, clock, metrics = self._settings, self._clock, self._metrics
        await asyncio.to_thread(remove_left_copy, data_dir.path)
        key = load_or_create_key(data_dir.password_key)
        state = await stack.enter_async_context(
            State.open(data_dir.state_db, key, clock=clock, tell=partial(self._run_marker.add, "state.db"))
        )
        keep_running = self._supervisor.keep_running
        integrations = RunningIntegrations(settings, state, clock, self._egress, metrics, keep_running)
        readers = await integrations.read()
        log = await stack.enter_async_context(
            Log.create(
                data_dir.log_db,
                settings.storage,
                dedupe_window_ms=settings.ingest.dedupe_window_s * 1000,
                clock=clock,
                metrics=metrics,
                tell=partial(self._run_marker.add, "log.db"),
            )
        )
        self._progress = Progress(log)
        log.bounds.readers.update(dict.fromkeys(readers, 0))
        if self._run_marker.was_unclean:
            log.care.check()
        access = Access(state, key, clock, ParserRoutes.of(settings))
        await access.refresh()
        ingest = Ingest(log, clock, metrics, max_skew_ms=settings.clock.max_skew_s * 1000)
        store = MqttStore(log)
        messages = MqttMessages(
            log,
            store,
            state,
            clock,
            metrics,
            max_messages=settings.mqtt.messages_max_count,
            max_bytes=settings.mqtt.messages_max_bytes,
            max_age_s=settings.mqtt.messages_max_age_s,
        )
        await messages.open()
        certificates = SiteCertificates.of(settings, clock)
        tls = await self._open_tls(certificates, data_dir)
        door = Door(settings.mqtt, access, ingest, store, messages, clock, metrics, tls)
        notifier = self._notifier(integrations, state)
        log.bounds.on_full.append(door.turn_everybody_away)
        limits = RateLimits(clock, per_minute=settings.http.rate_limit_per_minute, burst=settings.http.rate_limit_burst)
        listeners = await stack.enter_async_context(contextlib.AsyncExitStack())
        stopping = asyncio.Event()
        site = RunningSite(
            settings,
            clock,
            state,
            log,
            access,
            door,
            certificates,
            tls,
            stopping,
            self.status,
            integrations,
            metrics,
            commands_over(door, access, state, clock, metrics),
            notifier,
        )
        callers = await self._callers(state, key, access)
        publisher = Publisher(access, ingest, door.delivery, settings.mqtt)
        callbacks = Callbacks(
            messages,
            lambda url, secret: SignedPost(url, [secret], clock, self._egress, timeout_s=_CALLBACK_TIMEOUT_S),
            self._supervisor.keep_running,
            clock,
            metrics,
            gateway_id=settings.gateway.id,
            secret_of=partial(derived_secret, key),
            message_id=partial(_message_id, settings, log),
        )
        authorization = Authorization(callers, limits, door.login_delay)
        feed = LiveFeed(log, metrics, settings.gateway.id)
        delay, most_bytes = door.login_delay, settings.http.max_body_bytes
        live = Live(
            access, callers, authorization, ingest, feed, limits, delay, clock, metrics, max_message_bytes=most_bytes
        )
        routes: list[Routes] = [
            SensorData(access, authorization, ingest, limits, delay),
            MqttBroker(
                authorization,
                publisher.publish,
                messages,
                callbacks,
                site.broker_test.run,
                partial(too_long, settings=settings.mqtt),
                site,
            ),
            *hook_routes(
                settings, callers, door.login_delay, publisher.publish, integrations, access, ingest, log, clock
            ),
            *site_routes(authorization, site),
        ]
        health = Health(self.status, metrics, clock, metrics_from=settings.http.metrics_from)
        http = HttpListeners(settings, door, routes, live, health, Document(authorization), tls, metrics)
        control = ControlServer(data_dir, OPERATIONS, site)
        listeners.push_async_callback(control.stop)  # first in, so last out: who follows sees what still comes in
        listeners.callback(stopping.set)
        await integrations.open(log, receiver(settings, access, ingest, clock, metrics))
        self._alerts = alert_engine(
            watched_integrations(integrations, log),
            tls,
            access,
            state,
            clock,
            on_open=told_by(notifier, home=settings.gateway.organization_id),
        )
        serial = serial_sources(settings, access.devices, ingest, metrics, clock)
        parts = self._parts = Parts(
            state,
            log,
            access,
            door,
            http,
            integrations,
            messages,
            callbacks,
            feed,
            serial,
            site,
            home_assistant_over(door, access, log, state, settings, clock),
            tls,
            self._run_marker,
            listeners,
        )  # who asks, may ask now
        if tls is not None:
            listeners.callback(tls.handshakes.stop)
        await door.start()
        listeners.push_async_callback(door.stop)
        await http.start(listeners)
        await control.start()  # last: now there is something to ask
        return parts

    def _notifier(self, integrations: RunningIntegrations, state: State) -> Notifier:
        """Return what notifies by the integrations, and hears of their changes."""
        settings, keep_running = self._settings, self._supervisor.keep_running
        gateway_id = settings.gateway.id
        notifier = Notifier(
            integrations, state, settings.notifications, keep_running, self._clock, self._metrics, gateway_id=gateway_id
        )
        integrations.on_begin.append(notifier.renew)
        integrations.on_remove.append(notifier.forget)
        return notifier

    async def _open_tls(self, certificates: SiteCertificates, data_dir: DataDir) -> SiteTls | None:
        """Return what listeners over TLS need, ready; None when there is none."""
        settings = self._settings
        if not any((settings.mqtt.tls_port, settings.mqtt.websocket_tls_port, settings.http.tls_port)):
            return None
        tls = SiteTls(settings.tls, certificates, data_dir, self._clock, self._metrics)
        await tls.open()
        return tls

    async def _callers(self, state: State, key: bytes, access: Access) -> Callers:
        settings = self._settings
        await Organizations(state).ensure(settings.organizations)
        home, jwt_secret = settings.gateway.organization_id, settings.http.jwt_secret.get_secret_value()
        callers = Callers(state, key, self._clock, home=home, jwt_secret=jwt_secret)
        access.on_change.append(callers.refresh)
        await callers.refresh()
        return callers

    def _long_lived(self, parts: Parts) -> dict[str, Callable[[], Awaitable[None]]]:
        serial = {f"serial {port}": source.run for port, source in parts.serial.items()}
        mdns = {"mdns": self._announcer(parts).run} if self._settings.mdns.enabled else {}
        return {
            "bounds": lambda: self._keep_bounds(parts.log.bounds),
            "clock": lambda: self._watch_clock(parts.log),
            "state copy": parts.state.keep_copied,
            "access": parts.access.keep_written,
            "broker": parts.door.look_after,
            "callbacks": parts.callbacks.run,
            "commands": parts.site.commands.run,
            "alerts": self._alerts.run,
            "notifications": parts.site.notifier.run,
            "live feed": parts.feed.run,
            "home assistant": parts.home_assistant.run,
            **({"certificates": parts.tls.keep_fresh} if parts.tls is not None else {}),
            **serial,
            **mdns,
            "running integrations": parts.integrations.run,
        }

    def _announcer(self, parts: Parts) -> Announcer:
        services = announced(
            self._settings,
            mqtt_port=parts.door.ports.mqtt,
            http_port=parts.http.port,
            secure_mqtt_port=parts.door.ports.mqtt_tls,
        )
        label = host_label(self._settings.gateway.id)
        return Announcer(label, services, partial(local_addresses, self._settings.mdns.interfaces))

    async def _keep_bounds(self, bounds: Bounds) -> None:
        """Let the store look after itself."""
        while True:
            bounds.tick()
            await asyncio.sleep(_BOUNDS_CHECK_S)

    async def _watch_clock(self, log: Log) -> None:
        """Tell the log when the clock has been set: a Pi without a battery starts in the past."""
        while True:
            await log.learn_clock()
            await asyncio.sleep(_CLOCK_CHECK_S)

    async def _say_goodbye(self, parts: Parts) -> None:
        try:
            await parts.access.write_down()
        except StoreFailed as error:
            logger.warning("how credentials were used is not written: %s", error)
        for status in await parts.integrations.statuses():
            if status.undelivered:
                # A logger of its own: equal warnings of one logger are counted, and each destination must be named.
                logging.getLogger(f"{__name__}.{status.name}").warning(
                    "stopped with undelivered readings; they are kept and go out after the next start",
                    extra={"destination": status.name, "undelivered": status.undelivered},
                )
        logger.info("gateway stopped", extra={"readings_stored": parts.log.stored})

    async def add_device(
        self,
        device_id: str,
        *,
        organization_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> DeviceCredential:
        """Register a device; it may connect at once. Raises BadInput or AlreadyExists."""
        organization = organization_id or self._settings.gateway.organization_id
        return await add_device(
            self._running.site, organization_id=organization, device_id=device_id, metadata=dict(metadata or {})
        )

    async def makes_progress(self) -> bool:
        """Return, when the log's writer has answered, whether readings get on; see `Progress`."""
        return await self._progress.is_made()

    async def status(self) -> GatewayStatus:
        """Return a snapshot, and bring the gauges up to date."""
        return await self._report.of(self._running)

    @property
    def _running(self) -> Parts:
        assert self._parts is not None, "the gateway is not running"
        return self._parts


def _message_id(settings: Settings, log: Log, number: int) -> str:
    """Return what names a message in the world, as a reading's id does."""
    return f"{settings.gateway.id}-{log.uuid}-m{number}"
