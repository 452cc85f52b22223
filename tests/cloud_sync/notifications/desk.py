"""A notifier's surroundings: a state on disk, channels that answer as they are told, a time that passes in sleeps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_sync.contract import IntegrationConfig, Notification, Ok, Outcome, PartlyDelivered
from cloud_sync.courier import Health
from cloud_sync.notifier import Notifier
from gateway.clock import ManualClock
from gateway.config import NotificationSettings
from gateway.metrics import Metrics
from gateway.model.priorities import Priority
from gateway.storage.notification_rows import NewNotification, NotificationRow
from gateway.storage.state import State
from tests.cloud_sync.site import until

KEY = b"k" * 32


class Channel:
    """A channel that answers as it was told, and Ok after that."""

    def __init__(self, *answers: Outcome | PartlyDelivered, name: str = "chat", **settings: Any) -> None:
        base = {"type": "scripted", "name": name, "rate_limit_per_minute": 0}
        self.config: IntegrationConfig = IntegrationConfig.model_validate(base | settings)
        self.id = name
        self.organization_id = ""
        self.integration: object = self
        self.health: Health | None = None
        self.entered = asyncio.Event()
        self.entered.set()
        self.answers = list(answers)
        self.sent: list[Notification] = []
        self.wanted: Callable[[str, Priority], bool] = lambda _kind, _priority: True
        self.hangs = False
        self.breaks = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def serves(self, organization_id: str) -> bool:
        others = self.config.organizations
        return self.organization_id in ("", organization_id) and (not others or organization_id in others)

    def wants(self, kind: str, priority: Priority) -> bool:
        return self.wanted(kind, priority)

    def preview(self, notification: Notification) -> str:
        return notification.message

    async def notify(self, notification: Notification) -> Outcome | PartlyDelivered:
        self.sent.append(notification)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.breaks:
            raise RuntimeError
        return self.answers.pop(0) if self.answers else Ok()

    @property
    def told(self) -> list[str]:
        """What was said, one by one."""
        return [part.message for one in self.sent for part in one.parts or (one,)]


@dataclass
class Channels:
    all: list[Channel]

    def find(self, organization_id: str, type: str | None = None, id: str | None = None) -> Channel | None:  # noqa: A002
        for one in self.all:
            if one.serves(organization_id) and type in (None, one.config.type) and id in (None, one.id):
                return one
        return None

    def running(self) -> Sequence[Channel]:
        return self.all


@dataclass
class Desk:
    """A notifier that runs while it is entered."""

    notifier: Notifier
    channels: Channels
    clock: ManualClock
    state: State
    metrics: Metrics
    moves: asyncio.Event
    """Time passes only while it is set."""
    slept: list[float] = field(default_factory=list)

    async def send(self, message: str = "hello", **more: Any) -> str:
        fields = {"organization_id": "default", "integration_id": "chat", "integration_type": ""} | more
        return (await self.notifier.send(NewNotification(message=message, **fields))).added.id

    async def burst(self, *messages: str, **more: Any) -> list[str]:
        """Send several at the same moment."""
        return await asyncio.gather(*(self.send(message, **more) for message in messages))

    async def row(self, notification_id: str) -> NotificationRow:
        return await self.notifier.log.get("default", notification_id)

    async def rows(self) -> list[NotificationRow]:
        return await self.notifier.log.page("default", limit=100_000)

    async def settled(self) -> list[NotificationRow]:
        """Wait until nothing waits any more, and return all."""
        async with asyncio.timeout(30):
            while await self.notifier.log.waiting_integrations():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return await self.rows()


async def _keep_running(_: str, run: Callable[[], Awaitable[None]]) -> None:
    await run()


@asynccontextmanager
async def open_desk(folder: Path, *channels: Channel, **settings: Any) -> AsyncIterator[Desk]:
    """Run one; its time passes only where it sleeps."""
    clock, metrics = ManualClock(), Metrics()
    async with State.open(folder / "state.db", KEY, clock=clock) as state:
        slept: list[float] = []
        moves = asyncio.Event()
        moves.set()

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await asyncio.sleep(0.002)  # what is under way goes on
            await moves.wait()
            clock.advance(round(seconds * 1000))

        found = Channels(list(channels))
        notifier = Notifier(
            found,
            state,
            NotificationSettings.model_validate(settings),
            _keep_running,
            clock,
            metrics,
            gateway_id="site-1",
            sleep=sleep,
            random=lambda: 1.0,
        )
        task = asyncio.create_task(notifier.run())
        try:
            yield Desk(notifier, found, clock, state, metrics, moves, slept)
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


__all__ = ["Channel", "Channels", "Desk", "open_desk", "until"]
