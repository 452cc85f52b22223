"""Tells people, or programs for them, what is handed in: durably, by whatever integration can.

- what is handed in is on disk when `send` returns, and goes out at least once, under an id that stays the same
- every integration has a task of its own: one that hangs delays no other
- `announce` is for what happens by itself: every integration of the organisation gets it that wants such
  by its settings; `send` is for one integration, whatever it wants

How and when it goes out is in `courier.py`, what is on disk in `gateway/storage/notification_log.py`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from cloud_sync.contract import IntegrationConfig, Notification, Notifies
from cloud_sync.courier import Courier, Health, Notifying
from cloud_sync.payload import digest
from gateway.clock import Clock
from gateway.config import NotificationSettings
from gateway.metrics import Metrics
from gateway.model.errors import BadInput, NotFound
from gateway.model.priorities import Priority
from gateway.storage.notification_log import Added, NotificationLog
from gateway.storage.notification_rows import NewNotification, NotificationRow
from gateway.storage.state import State

EXAMPLE = "This is how a notification looks."

KeepRunning = Callable[[str, Callable[[], Awaitable[None]]], Coroutine[None, None, None]]
"""Runs a part, and starts it again when it has crashed."""


class Running(Protocol):
    """An integration that runs, whatever it can do."""

    @property
    def id(self) -> str:
        """Its id; that of one from the file is its name."""
        ...

    @property
    def config(self) -> IntegrationConfig:
        """Its settings."""
        ...

    @property
    def integration(self) -> object:
        """Itself, entered."""
        ...

    @property
    def entered(self) -> asyncio.Event:
        """Set while it is entered."""
        ...

    @property
    def health(self) -> Health | None:
        """What hears how it does."""
        ...

    def serves(self, organization_id: str) -> bool:
        """Whether that organisation may use it."""
        ...


class Integrations(Protocol):
    """What runs."""

    def find(self, organization_id: str, type: str | None = None, id: str | None = None) -> Running | None:  # noqa: A002 - what they are called
        """Return the first active one that an organisation may use; None when there is none."""
        ...

    def running(self) -> Sequence[Running]:
        """Return all."""
        ...


@dataclass(slots=True, frozen=True)
class Accepted:
    """A notification that was handed in, and for which integration."""

    added: Added
    integration_id: str
    integration_type: str


class Notifier:
    """See the module's own words."""

    def __init__(
        self,
        integrations: Integrations,
        state: State,
        settings: NotificationSettings,
        keep_running: KeepRunning,
        clock: Clock,
        metrics: Metrics,
        *,
        gateway_id: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._integrations = integrations
        self.log = NotificationLog(state, settings)
        self._settings = settings
        self._keep_running = keep_running
        self._clock = clock
        self._metrics = metrics
        self._gateway_id = gateway_id
        self._sleep = sleep
        self._random = random
        self._couriers: dict[str, Courier] = {}
        self._unstarted: asyncio.Queue[Courier] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Send until cancelled."""
        await self.log.trim()
        for integration_id in await self.log.waiting_integrations():
            self._courier(integration_id)
        try:
            for courier in self._couriers.values():
                self._unstarted.put_nowait(courier)
            while True:
                courier = await self._unstarted.get()
                if courier.id not in self._tasks and self._couriers.get(courier.id) is courier:
                    part = f"notifications of {courier.id}"
                    running = self._keep_running(part, courier.run)
                    self._tasks[courier.id] = asyncio.create_task(running, name=part)
        finally:
            tasks = [self._tasks.pop(name) for name in [*self._tasks]]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _courier(self, integration_id: str) -> Courier:
        known = self._couriers.get(integration_id)
        if known is None:
            known = self._couriers[integration_id] = Courier(
                integration_id,
                self._notifying,
                self.log,
                self._settings,
                self._clock,
                self._metrics,
                gateway_id=self._gateway_id,
                sleep=self._sleep,
                random=self._random,
            )
            self._unstarted.put_nowait(known)
        return known

    def _notifying(self, integration_id: str) -> Notifying | None:
        for one in self._integrations.running():
            if one.id == integration_id and one.entered.is_set() and isinstance(one.integration, Notifies):
                return Notifying(one.config, one.integration, one.health)
        return None

    async def send(self, new: NewNotification) -> Accepted:
        """Hand in a notification for one integration: the named one, or the first active one of the named type.

        Raises NotFound when there is none, BadInput, StoreFull and StoreFailed.
        """
        found = self.find(new.organization_id, new.integration_type or None, new.integration_id or None)
        new = replace(new, integration_id=found.id, integration_type=found.config.type)
        return Accepted(await self._add(new), found.id, found.config.type)

    def find(self, organization_id: str, type_: str | None, integration_id: str | None) -> Running:
        """Return the integration that is meant. Raises NotFound, and BadInput for one that does not notify."""
        found = self._integrations.find(organization_id, type=type_, id=integration_id)
        if found is None:
            of_type = f" of the type {type_}" if type_ else ""
            with_id = f" with the id {integration_id}" if integration_id else ""
            raise NotFound(
                f"{organization_id} has no active integration{of_type}{with_id}.",
                hint="Its status must be active; see what there is: GET integrations, or the configuration file.",
            )
        if not isinstance(found.integration, Notifies):
            raise BadInput(
                "not_notifying",
                f"The integration {found.id} is of the type {found.config.type}, which sends no notifications.",
                hint="Use one of the type email, slack or webhook.",
            )
        return found

    def preview(self, new: NewNotification) -> str:
        """Return what would be sent. Raises NotFound and BadInput."""
        found = self.find(new.organization_id, new.integration_type or None, new.integration_id or None)
        assert isinstance(found.integration, Notifies)
        return found.integration.preview(example(new, self._gateway_id, self._clock.now_ms()))

    async def announce(
        self,
        organization_id: str,
        kind: str,
        message: str,
        *,
        subject: str = "",
        priority: Priority = "medium",
        data: dict[str, object] | None = None,
        dedupe_key: str | None = None,
        by: str = "gateway",
    ) -> int:
        """Hand in what has happened, for every integration that wants to know, and return how many these are.

        Raises BadInput, StoreFull and StoreFailed.
        """
        wanting = [one for one in self._integrations.running() if _wants(one, organization_id, kind, priority)]
        for one in wanting:
            await self._add(
                NewNotification(
                    organization_id,
                    one.id,
                    one.config.type,
                    message,
                    priority,
                    kind,
                    subject,
                    data or {},
                    dedupe_key=dedupe_key,
                    by=by,
                )
            )
        return len(wanting)

    async def _add(self, new: NewNotification) -> Added:
        added = await self.log.add(new)
        self._courier(new.integration_id).wake()
        return added

    async def resend(self, organization_id: str, notification_id: str, *, by: str) -> NotificationRow:
        """Send one again that has failed. Raises NotFound and Conflict."""
        row = await self.log.resend(organization_id, notification_id, by=by)
        self._courier(row.integration_id).renew()
        return row

    async def renew(self, integration_id: str) -> None:
        """Try again at once what has failed to go out there: its settings are others by now."""
        await self.log.hurry(integration_id)
        if (courier := self._couriers.get(integration_id)) is not None:
            courier.renew()

    async def forget(self, integration_id: str) -> None:
        """Give up what waits for an integration that was removed, and let go of all that is known of it."""
        self._couriers.pop(integration_id, None)
        if (task := self._tasks.pop(integration_id, None)) is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.log.give_up(integration_id, "The integration was removed.")
        self._metrics.forget_part(f"notifications of {integration_id}")
        self._metrics.forget_destination(integration_id)


def example(new: NewNotification, gateway_id: str, now_ms: int) -> Notification:
    """Return a notification that nobody has handed in; of the kind `digest`, one of several."""
    made = Notification(
        str(UUID(int=0)),
        gateway_id,
        new.organization_id,
        new.kind,
        new.subject,
        new.message,
        new.priority,
        now_ms,
        new.data,
    )
    if new.kind != digest.KIND:
        return made
    return digest.digest(made.id, [made, made, replace(made, subject="", message="Something else has happened.")])


def _wants(one: Running, organization_id: str, kind: str, priority: Priority) -> bool:
    if not one.serves(organization_id) or not isinstance(one.integration, Notifies):
        return False
    return one.integration.wants(kind, priority)
