"""How a running gateway does, put together from what its parts know."""

from gateway import __version__
from gateway.clock import Clock
from gateway.config import Settings
from gateway.metrics import Metrics
from gateway.model.status import BufferStatus, DestinationStatus, GatewayStatus
from gateway.running_parts import Parts
from gateway.running_site import device_activity
from gateway.supervisor import Supervisor


class StatusReport:
    """Made when the gateway starts: it counts from then."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics, supervisor: Supervisor) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._supervisor = supervisor
        self._started_ms = clock.monotonic_ms()
        self._figures: tuple[BufferStatus, list[DestinationStatus]] = (BufferStatus(0, 0, 0, 0, 0), [])

    async def of(self, parts: Parts) -> GatewayStatus:
        """Return a snapshot, and bring the gauges up to date."""
        if not parts.log.care.is_damaged:  # else nobody can ask it until it is replaced: what was last known must do
            self._figures = await parts.log.buffer(), await parts.integrations.statuses()
        buffer, destinations = self._figures
        connections = parts.door.connections_by_device()
        self._gauge(parts, buffer)
        return GatewayStatus(
            gateway_id=self._settings.gateway.id,
            version=__version__,
            uptime_seconds=(self._clock.monotonic_ms() - self._started_ms) / 1000,
            mqtt_port=parts.door.ports.mqtt,
            mqtt_tls_port=parts.door.ports.mqtt_tls,
            http_port=parts.http.port,
            problems=self._problems(parts),
            connections=parts.door.connections,
            ingested=parts.log.stored,
            duplicates=parts.log.duplicates,
            quarantined=buffer.quarantined,
            buffer=buffer,
            devices=[device_activity(device, connections) for device in parts.access.devices if device.readings],
            destinations=destinations,
            receiving=parts.integrations.receiving(),
            notices=[
                *parts.log.care.notices,
                *parts.integrations.notices,
                *(damage.words for damage in parts.run_marker.found),
                *(parts.tls.notices() if parts.tls is not None else ()),
                *(words for source in parts.serial.values() for words in source.notices),
            ],
        )

    def _problems(self, parts: Parts) -> list[str]:
        problems = [f"The part {name} has crashed: {why}" for name, why in self._supervisor.failing.items()]
        problems += [str(why) for why in (parts.log.bounds.full, parts.log.failure) if why is not None]
        if parts.log.care.is_damaged:
            problems.append("The log is damaged: nothing is acknowledged until a fresh one takes its place.")
        return problems

    def _gauge(self, parts: Parts, buffer: BufferStatus) -> None:
        metrics = self._metrics
        metrics.buffer_bytes.set(buffer.bytes)
        metrics.queue_size.labels("sensor-data").set(parts.log.waiting)
        damaged = {damage.database for damage in parts.run_marker.found}
        for database in ("log.db", "state.db"):
            metrics.store_damaged.labels(database).set(database in damaged)
        metrics.clock_synced.set(self._clock.is_synced())
