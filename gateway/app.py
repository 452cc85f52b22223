"""The composition root: builds every part from Settings, starts and stops them in order.

Order of starting: lock, state, log, listeners, forwarders. Order of stopping: listeners first, so that nothing new is
promised; then the forwarders, whose batch under way is frozen and will be sent again under the same id; then the log,
which commits what it has taken.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from cloud_sync.contract import Forwards
from cloud_sync.forwarder import Destination, Forwarder
from cloud_sync.registry import integration_class, load_config
from gateway import __version__
from gateway.access import Access
from gateway.broker.door import Door
from gateway.clock import Clock, SystemClock
from gateway.config import Settings
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.status import DestinationStatus, DeviceActivity, GatewayStatus
from gateway.rate_limit import RateLimits
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.log import Log
from gateway.storage.state import DeviceCredential, State
from gateway.supervisor import Supervisor
from gateway.web.health import Health
from gateway.web.sensor_data import SensorData
from gateway.web.server import Routes, WebServer

logger = logging.getLogger(__name__)

_STATE_CHECK_S = 1.0


@dataclass(slots=True)
class _Parts:
    """What a running gateway consists of."""

    state: State
    log: Log
    access: Access
    door: Door
    web: WebServer
    forwarders: dict[str, Forwarder]
    listeners: contextlib.AsyncExitStack
    """Closing it closes every port and connection."""


class Gateway:
    """One gateway. `run` runs it; the other methods are for whoever shares its event loop."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._metrics = Metrics()
        self._supervisor = Supervisor(self._metrics)
        self._started_ms = self._clock.monotonic_ms()
        self._parts: _Parts | None = None

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None] | None = None) -> None:
        """Run until `stop` is set; `ready` is called when the listeners are open. Raises NeurogateError."""
        destinations, inactive = self._destinations()
        data_dir = DataDir(self._settings.gateway.data_dir)
        with data_dir.lock():
            async with contextlib.AsyncExitStack() as stack:
                parts = self._parts = await self._open(stack, data_dir, destinations, inactive)
                logger.info("gateway ready", extra={"mqtt_port": parts.door.port, "http_port": parts.web.port})
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
                await self._say_goodbye(parts)
            self._parts = None

    def _destinations(self) -> tuple[list[Destination], list[str]]:
        """Build the active integrations of the configuration, and name the inactive ones. Raises ConfigError."""
        active: list[Destination] = []
        inactive: list[str] = []
        for table in self._settings.integrations:
            config = load_config(table)
            if config.status == "inactive":
                inactive.append(config.name)
            else:
                integration = integration_class(table)(config, self._clock)
                if isinstance(integration, Forwards):
                    active.append(integration)
        return active, inactive

    async def _open(
        self,
        stack: contextlib.AsyncExitStack,
        data_dir: DataDir,
        destinations: list[Destination],
        inactive: list[str],
    ) -> _Parts:
        settings, clock, metrics = self._settings, self._clock, self._metrics
        key = load_or_create_key(data_dir.password_key)
        state = await stack.enter_async_context(State.open(data_dir.state_db, key, clock=clock))
        log = await stack.enter_async_context(
            Log.create(
                data_dir.log_db,
                settings.storage,
                dedupe_window_ms=settings.ingest.dedupe_window_s * 1000,
                clock=clock,
                metrics=metrics,
            )
        )
        access = Access(state, key)
        await access.refresh(force=True)
        ingest = Ingest(log, clock, metrics, max_skew_ms=settings.clock.max_skew_s * 1000)
        door = Door(settings.mqtt, access, ingest, metrics)
        limits = RateLimits(clock, per_minute=settings.http.rate_limit_per_minute, burst=settings.http.rate_limit_burst)
        routes: list[Routes] = [SensorData(access, ingest, limits), Health(self.status, metrics)]
        web = WebServer(settings.http.host, settings.http.port, settings.http.max_body_bytes, routes)
        listeners = await stack.enter_async_context(contextlib.AsyncExitStack())
        await door.start()
        listeners.push_async_callback(door.stop)
        await web.start()
        listeners.push_async_callback(web.stop)
        for name in inactive:  # its owner has given up its place
            await log.drop_cursor(name)
        forwarders = {
            destination.config.name: Forwarder(destination, log, clock, metrics, settings.gateway.id)
            for destination in destinations
        }
        return _Parts(state, log, access, door, web, forwarders, listeners)

    def _long_lived(self, parts: _Parts) -> dict[str, Callable[[], Awaitable[None]]]:
        forwarders = {f"forwarder {name}": forwarder.run for name, forwarder in parts.forwarders.items()}
        return {"state watch": lambda: self._watch_state(parts.access), **forwarders}

    async def _watch_state(self, access: Access) -> None:
        """Notice what a command has changed, for example a revoked device."""
        while True:
            await asyncio.sleep(_STATE_CHECK_S)
            await access.refresh()

    async def _say_goodbye(self, parts: _Parts) -> None:
        for status in await self._destination_statuses(parts):
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
        parts = self._running
        organization = organization_id or self._settings.gateway.organization_id
        credential = await parts.state.add_device(organization, device_id, metadata)
        await parts.access.refresh(force=True)
        return credential

    async def status(self) -> GatewayStatus:
        """Return a snapshot, and bring the gauges up to date."""
        parts = self._running
        buffer = await parts.log.buffer()
        destinations = await self._destination_statuses(parts)
        problems = [f"The part {name} has crashed: {why}" for name, why in self._supervisor.failing.items()]
        if parts.log.failure is not None:
            problems.append(str(parts.log.failure))
        metrics = self._metrics
        metrics.buffer_bytes.set(buffer.bytes)
        metrics.queue_size.labels("sensor-data").set(parts.log.waiting)
        metrics.clock_synced.set(self._clock.is_synced())
        return GatewayStatus(
            gateway_id=self._settings.gateway.id,
            version=__version__,
            uptime_seconds=(self._clock.monotonic_ms() - self._started_ms) / 1000,
            mqtt_port=parts.door.port,
            http_port=parts.web.port,
            problems=problems,
            connections=parts.door.connections,
            ingested=parts.log.stored,
            duplicates=parts.log.duplicates,
            quarantined=buffer.quarantined,
            buffer=buffer,
            devices=[
                DeviceActivity(device.organization_id, device.device_id, device.readings, device.last_seen_ms)
                for device in parts.access.devices
                if device.readings
            ],
            destinations=destinations,
        )

    async def _destination_statuses(self, parts: _Parts) -> list[DestinationStatus]:
        return [await forwarder.status() for forwarder in parts.forwarders.values()]

    @property
    def _running(self) -> _Parts:
        assert self._parts is not None, "the gateway is not running"
        return self._parts
