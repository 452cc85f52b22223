"""The integrations that run: those of the configuration file, and those that organisations manage while it runs.

- each active one is entered once, in a task of its own, and so is the engine that forwards to it
- a change takes effect at once and touches only what it changed: one with new settings is stopped, its batch under way
  staying frozen as at a stop of the gateway, and goes on from its place; an inactive one gives its place up; a removed
  one leaves nothing behind, not even labels of metrics, and if that is interrupted, the next start completes it
- one that cannot be started, for a secret that cannot be read or settings that are no good, is in error: it stops no
  other and keeps its place, and everything that waits for it
- rows are read again every five minutes, too: a key of the vault may have come back. The file is read at the start
- one of an organisation has its readings only; to others it does not exist
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from cloud_sync.contract import Forwards, IntegrationConfig, Receives
from cloud_sync.egress import Egress
from cloud_sync.forwarder import Forwarder
from cloud_sync.health import Health
from cloud_sync.registry import class_of, known_integrations
from gateway.clock import Clock
from gateway.config import Settings
from gateway.first_of import first_of
from gateway.inbound.engine import Inbound, Source
from gateway.metrics import Metrics
from gateway.model.errors import NeurogateError
from gateway.model.status import DestinationStatus, IntegrationHealth, ReceivingStatus
from gateway.running_integration import Running
from gateway.storage.integrations import Integrations
from gateway.storage.log import Log
from gateway.storage.state import State
from gateway.storage.vault import Vault
from gateway.wanted_integrations import Wanted, each_alone, notice_of, wanted_by_file, wanted_by_row

logger = logging.getLogger(__name__)

_READ_AGAIN_S = 300.0
_TRY_AGAIN_S = 10.0  # after a change that could not take effect
_BEGINS_WITHIN_S = 1.0
_ENDS_WITHIN_S = 10.0

KeepRunning = Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]
"""The supervisor's: runs a part under its name, and again after a crash."""

Receiver = Callable[[Source, str, Health], Inbound]
"""(integration, whose readings it brings, how it does) → what receives through it."""

OnChange = Callable[[str], Awaitable[None]]
"""Hears the id of an integration. May raise NeurogateError: then the change is made again, and it hears again."""


class RunningIntegrations:
    """See the module's own words. Called in this order: `read`, `open`, `run`; `apply` at any time after `open`."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: Clock,
        egress: Egress,
        metrics: Metrics,
        keep_running: KeepRunning,
    ) -> None:
        self._settings = settings
        self._state = state
        self._rows = Integrations(state)
        self._clock = clock
        self._egress = egress
        self._metrics = metrics
        self._keep_running = keep_running
        self._files: dict[str, Wanted] = {}
        self._log: Log
        self._receiver: Receiver
        self._current: dict[str, Wanted] = {}
        self._running: dict[str, Running] = {}
        self._failed: dict[str, NeurogateError] = {}
        """Changes that could not take effect yet, by id, and why."""
        self.on_begin: list[OnChange] = []
        """Hear of one that has begun while the gateway runs: new, changed, or started anew."""
        self.on_remove: list[OnChange] = []
        """Hear of one that is no more; again, if that was interrupted."""
        self._lasting_notices: list[str] = []
        self._changing = asyncio.Lock()
        self._has_failed = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    async def read(self) -> list[str]:
        """Read the file's and the rows; return the names of the cursors they need. Raises ConfigError, StoreFailed."""
        self._lasting_notices = await Vault(self._state).notices()
        self._lasting_notices += (await asyncio.to_thread(known_integrations)).problems
        for table in self._settings.integrations:
            self._files[table.name] = await wanted_by_file(table, self._state)
        for notice in (*self._lasting_notices, *map(notice_of, self._files.values())):
            if notice:
                logger.error("%s", notice)
        wanted = await self._wanted()
        return [one.id for one in wanted.values() if one.is_active and one.forwards is not False]

    async def open(self, log: Log, receiver: Receiver) -> None:
        """Give each its place in the log, before anything can come in: a new one begins with the first reading.

        Raises StoreFailed.
        """
        self._log, self._receiver = log, receiver
        await self.apply()
        for error in self._failed.values():
            raise error
        await log.all_cursors_opened()

    async def run(self) -> None:
        """Run them, and read the rows again from time to time, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for one in self._running.values():
                    self._start(one)
                await self._keep_running("integrations", self._keep_fresh)
        finally:
            self._tasks = None
            for one in self._running.values():
                one.task = None

    async def _keep_fresh(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_READ_AGAIN_S):
                    await self._has_failed.wait()
                await asyncio.sleep(_TRY_AGAIN_S)
            except TimeoutError:
                pass
            try:
                await self.apply()
            except NeurogateError as error:
                logger.warning("the integrations could not be read again: %s", error)

    # What others ask

    def find(self, organization_id: str, type: str | None = None, id: str | None = None) -> Running | None:  # noqa: A002
        """Return the one of that id, or the first active one of a type, that this organisation may use now.

        Its own come first, then those of the file, each by name.
        """
        for one in sorted(self._running.values(), key=lambda one: (one.origin, one.name)):
            is_meant = type in {None, one.wanted.type} and id in {None, one.id}
            if is_meant and one.entered.is_set() and one.serves(organization_id):
                return one
        return None

    def running(self) -> list[Running]:
        """Return those that run."""
        return [*self._running.values()]

    def replay(self, destinations: Iterable[str]) -> None:
        """Let these send again what was requested; those that do not run are left out."""
        for name in destinations:
            one = self._running.get(name)
            if one is not None and one.forwarder is not None:
                one.forwarder.replay()

    async def statuses(self) -> list[DestinationStatus]:
        """Return how far each destination is."""
        return [
            replace(await one.forwarder.status(), label="" if one.name == one.id else one.name)
            for one in self.running()
            if one.forwarder is not None
        ]

    def receiving(self) -> list[ReceivingStatus]:
        """Return how it goes with each that receives."""
        return [
            replace(one.inbound.status(), label="" if one.name == one.id else one.name)
            for one in self.running()
            if one.inbound is not None
        ]

    def health(self, integration_id: str) -> IntegrationHealth | None:
        """Return how one does; None when it does not run."""
        one = self._running.get(integration_id)
        return None if one is None else one.health.figures()

    def not_started(self) -> list[Wanted]:
        """Return those that should run and cannot, as `why` says."""
        return [one for one in self._current.values() if one.is_active and one.why]

    def errors(self) -> dict[str, str]:
        """Return what its owner must know of each that is in error, by id."""
        found = {one.id: one.why for one in self.not_started()}
        found |= {one.id: one.error for one in self.running() if one.error}
        return found | {name: f"A change could not take effect yet: {error}" for name, error in self._failed.items()}

    @property
    def notices(self) -> list[str]:
        """What the site's owner should know; each as a sentence, without what an organisation calls its own."""
        return [*self._lasting_notices, *filter(None, map(notice_of, self._current.values()))]

    # What is wanted

    async def _wanted(self) -> dict[str, Wanted]:
        rows = sorted(await self._rows.list(), key=lambda row: row.created_at_ms)
        found = [await wanted_by_row(row, self._state) for row in rows if row.id not in self._files]
        wanted = each_alone([*self._files.values(), *found], self._settings.gateway.id)
        return {one.id: one for one in wanted}

    # What is done about it

    async def apply(self, *, anew: str | None = None) -> None:
        """Let what the rows say take effect, and start the one of that id anew, whatever it says.

        What fails is tried again, and `errors` tells it. Raises StoreFailed.
        """
        async with self._changing:
            removed = await self._rows.removed()  # first: what is removed meanwhile is not started again
            wanted = await self._wanted()
            failed, self._failed = set(self._failed), {}
            self._has_failed.clear()
            for name in removed:
                await self._attempt(name, self._remove(name))
            for name in {*self._current, *failed} - {*wanted, *removed}:
                await self._attempt(name, self._give_up(name))
            for one in wanted.values():
                old = self._current.get(one.id)
                if old is None or not one.is_as(old) or one.id in failed or one.id == anew:
                    await self._attempt(one.id, self._change(one))
                elif one.name != old.name:
                    self._rename(one)

    async def _attempt(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except NeurogateError as error:
            logger.error("a change of an integration could not take effect yet: %s", error, extra={"integration": name})  # noqa: TRY400 - no fault of ours
            self._failed[name] = error
            self._has_failed.set()

    async def _change(self, one: Wanted) -> None:
        self._current.pop(one.id, None)  # should this be interrupted, it is done anew
        await self._stop(one.id)
        why = one.why
        if not one.is_active:
            await self._give_up(one.id)
        elif one.config is None:
            await self._keep_place(one)
        else:
            try:
                await self._begin(one, one.config)
            except NeurogateError:
                raise
            except Exception as error:  # whatever the class of somebody else raises when it is made
                logger.exception("an integration cannot be made", extra={"integration": one.id})
                why = f"It cannot be made ({type(error).__name__}); the log says more."
                await self._keep_place(one)
        self._current[one.id] = replace(one, why=why)
        self._tell(one)
        if one.origin == "api" and one.is_active:
            await self._note_start(one.id, why)

    async def _begin(self, one: Wanted, config: IntegrationConfig) -> None:
        integration = class_of(one.type)(config, self._clock, self._egress)
        if one.forwards is False and await self._has_place(one.id):  # it had other settings
            await self._give_up(one.id)
        health, forwarder = Health(one.id, self._clock, self._metrics), None
        if one.forwards is not False and isinstance(integration, Forwards):
            await self._log.open_cursor(one.id, start=one.start, selection=one.selection)
            gateway_id, clock, metrics = self._settings.gateway.id, self._clock, self._metrics
            forwarder = Forwarder(integration, self._log, clock, metrics, gateway_id, health=health)
        inbound = None
        if isinstance(integration, Receives) and integration.hears().topics:
            whose = one.brings_for(self._settings.gateway.organization_id)
            inbound = self._receiver(integration, whose, health)
        self._running[one.id] = running = Running(one, config, integration, forwarder, inbound, health)
        if self._start(running):
            with suppress(TimeoutError):  # it may also crash; that is not for whoever has changed it to wait for
                async with asyncio.timeout(_BEGINS_WITHIN_S):
                    await running.entered.wait()
            for hear in self.on_begin:
                await hear(one.id)

    async def _keep_place(self, one: Wanted) -> None:
        """Nothing is lost to it that it is to have, once it can be started."""
        if one.forwards is False:
            return
        if one.forwards or await self._has_place(one.id):
            await self._log.open_cursor(one.id, start=one.start, selection=one.selection)
            self._metrics.forget_destination(one.id)
            self._metrics.delivery_state.labels(one.id, "stopped").set(1)

    async def _has_place(self, name: str) -> bool:
        return any(cursor.name == name for cursor in await self._log.cursors())

    async def _give_up(self, name: str) -> None:
        """Give up its place; should it come back, it begins anew."""
        await self._stop(name)
        await self._log.drop_cursor(name)
        self._metrics.forget_destination(name)
        self._current.pop(name, None)

    async def _remove(self, name: str) -> None:
        """Leave nothing of it behind."""
        await self._stop(name)
        self._current.pop(name, None)
        await self._log.forget_destination(name)
        self._metrics.forget_destination(name)
        for hear in self.on_remove:
            await hear(name)
        await self._rows.forget(name)

    def _rename(self, one: Wanted) -> None:
        self._current[one.id] = replace(self._current[one.id], name=one.name)
        if one.id in self._running:
            self._running[one.id].wanted = replace(self._running[one.id].wanted, name=one.name)
        self._tell(one)

    def _tell(self, one: Wanted) -> None:
        """Tell in the metrics what it is called."""
        self._metrics.integration_info.remove_by_labels({"integration": one.id})
        self._metrics.integration_info.labels(one.id, one.name, one.organization_id, one.type).set(1)

    async def _note_start(self, name: str, why: str) -> None:
        try:
            row = await self._rows.get(name)
            if (row.status, row.sync_error) != (("error", why) if why else ("active", None)):
                await self._rows.note_start(name, why or None)
        except NeurogateError as error:  # it is only for whoever asks without a gateway
            logger.warning("how an integration started is not written: %s", error)

    # Their tasks

    def _start(self, one: Running) -> bool:
        """Start its task; False while none is."""
        if self._tasks is None:
            return False
        keeps_running = self._keep_running(one.part, partial(self._enter, one))
        one.task = self._tasks.create_task(_to_its_end(keeps_running), name=one.part)
        return True

    async def _enter(self, one: Running) -> None:
        await one.integration.__aenter__()
        try:
            one.entered.set()
            await first_of(*one.engines())
        finally:
            one.entered.clear()
            await self._leave(one)

    async def _leave(self, one: Running) -> None:
        """Close it. One that hangs is left as it is: neither the gateway nor a change waits for it for ever.

        By hand: the `asyncio.timeout` of Python 3.11.2 tells nothing to a task that is being cancelled already.
        """
        task, has_ended = asyncio.current_task(), True
        assert task is not None

        def give_up() -> None:
            nonlocal has_ended
            has_ended = False
            task.cancel()

        limit = asyncio.get_running_loop().call_later(_ENDS_WITHIN_S, give_up)
        try:
            await one.integration.__aexit__(None, None, None)
        except asyncio.CancelledError:
            if has_ended:  # it was somebody else
                raise
            task.uncancel()
            logger.error("an integration did not end in time", extra={"integration": one.id})  # noqa: TRY400 - no fault of ours
        finally:
            limit.cancel()

    async def _stop(self, name: str) -> None:
        one = self._running.pop(name, None)
        if one is None:
            return
        if one.task is not None:
            one.task.cancel()
            await asyncio.wait([one.task])
        self._metrics.forget_part(one.part)
        for engine in (one.forwarder, one.inbound):
            if engine is not None:
                engine.forget()


async def _to_its_end(work: Awaitable[None]) -> None:
    await work
