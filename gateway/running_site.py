"""The running gateway, as operations see it."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import generate_latest

from cloud_sync.notifier import Notifier
from gateway import process
from gateway.access import Access, Device
from gateway.broker.door import Door
from gateway.broker.self_test import BrokerTest
from gateway.clock import Clock
from gateway.commands import Commands
from gateway.config import Settings
from gateway.integrations import RunningIntegrations
from gateway.logs import recent_lines
from gateway.metrics import Metrics
from gateway.model.finding import Finding
from gateway.model.status import DeviceActivity, GatewayStatus, IntegrationHealth
from gateway.model.topics import KeptTopics
from gateway.model.vitals import FailingAddress, Trace, Vitals
from gateway.operations.site import Live, Site
from gateway.storage.activity_log import CLI
from gateway.storage.certificates import SiteCertificates
from gateway.storage.log import Log
from gateway.storage.log_reader import LogReader
from gateway.storage.state import State
from gateway.tls.site_tls import SiteTls


@dataclass(slots=True)
class RunningSite:
    """The running gateway, as operations see it."""

    settings: Settings
    clock: Clock
    _state: State
    _log: Log
    _access: Access
    _door: Door
    certificates: SiteCertificates
    _tls: SiteTls | None
    _stopping: asyncio.Event
    _status: Callable[[], Awaitable[GatewayStatus]]
    _integrations: RunningIntegrations
    _metrics: Metrics
    commands: Commands
    notifier: Notifier
    actor: str = CLI
    """Whoever asks over the control socket; others say who they are by `acting`."""
    broker_test: BrokerTest = field(init=False)
    _epoch_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self.broker_test = BrokerTest(self, self._door.ports)
        self._epoch_ms = self.clock.now_ms() - self.clock.monotonic_ms()

    def acting(self, actor: str) -> Site:
        acting = copy(self)
        acting.actor = actor
        return acting

    @property
    def live(self) -> Live:
        return self

    async def status(self) -> GatewayStatus:
        return await self._status()

    async def state(self) -> State:
        return self._state

    async def log(self) -> LogReader:
        return self._log

    def activity(self, organization_id: str, device_id: str) -> DeviceActivity:
        device = self._access.devices.get(organization_id, device_id) or Device(organization_id, device_id)
        return device_activity(device, self._door.connections_by_device())

    def vitals(self) -> Vitals:
        return Vitals(
            pid=os.getpid(),
            clock_moved_ms=self.clock.now_ms() - self.clock.monotonic_ms() - self._epoch_ms,
            open_files=process.open_files(),
            open_files_at_most=process.open_files_at_most(),
            memory_bytes=process.memory_bytes(),
            logins=self._access.login_activity(),
            failing_addresses=[FailingAddress(*one) for one in self._door.login_delay.failing().items()],
            metrics=generate_latest(self._metrics.registry).decode(),
        )

    def trace(self) -> Trace:
        return Trace(recent_lines(), process.tasks(), process.threads())

    async def try_broker(self) -> list[Finding]:
        return await self.broker_test.findings()

    async def apply_access(self) -> None:
        await self._access.refresh()

    async def apply_certificates(self) -> None:
        if self._tls is not None:
            await self._tls.apply()

    async def write_down_access(self) -> None:
        await self._access.write_down()

    async def forget_messages(self, topics: KeptTopics) -> None:
        await self._door.forget_messages(topics)

    async def end_retained(self, topics: KeptTopics) -> None:
        await self._door.delivery.end_retained(topics)

    @property
    def newest_row(self) -> int:
        return self._log.last_row

    async def writable_log(self) -> Log:
        return self._log

    async def wait_beyond(self, row: int) -> bool:
        await self._unless_stopped(self._log.wait_beyond(row))
        return self._log.last_row > row

    def replay(self, destinations: Iterable[str]) -> None:
        self._integrations.replay(destinations)

    async def apply_integrations(self, *, anew: str | None = None) -> None:
        await self._integrations.apply(anew=anew)

    def integration_health(self, integration_id: str) -> IntegrationHealth | None:
        return self._integrations.health(integration_id)

    def integration_errors(self) -> Mapping[str, str]:
        return self._integrations.errors()

    async def wait_settled(self, settled: int) -> bool:
        await self._unless_stopped(self._log.dead_letters.wait_settled(settled))
        return self._log.dead_letters.settled > settled

    async def _unless_stopped(self, wait: Coroutine[Any, Any, None]) -> None:
        waits = [asyncio.ensure_future(wait), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


def device_activity(device: Device, connections: Counter[Device]) -> DeviceActivity:
    """Return what came from a device since the start, and how many connections it has."""
    return DeviceActivity(
        device.organization_id, device.device_id, device.readings, device.last_seen_ms, connections[device]
    )
