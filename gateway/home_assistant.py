"""Tells Home Assistant, over the embedded broker, which devices there are and what they say.

- it is told what is on disk, a commit later: it reads the log as any other, and nobody waits for it
- what it is told is retained in memory, so whoever comes later has it at once; after a start it is made anew from the
  log and the state. When Home Assistant says that it has come, it is told everything again
- of what is measured faster than it is told, or read, the latest counts: the others are left out
- what it was told that a device is, it is told when that device is no more, also when it or the gateway was away then,
  and when it is to hear nothing any more: which topics it has heard is on disk
- an organisation's hears its devices; the site's has every topic of an organisation with that before it

What the messages are is said in gateway/model/home_assistant/, who may hear them in gateway/model/rights.py.
"""

import asyncio
import json
import logging
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from gateway.access import Access, Device
from gateway.clock import Clock
from gateway.config import HomeAssistantSettings
from gateway.first_of import first_of
from gateway.model.errors import StoreFailed
from gateway.model.home_assistant import BIRTH, OFFLINE, ONLINE, DeviceState, Topics, Whose, births, discovery
from gateway.model.reading import StoredReading
from gateway.model.topics import KeptTopics
from gateway.storage.log import Log
from gateway.storage.told_topics import ToldTopics

logger = logging.getLogger(__name__)

_LOOK_S = 5.0  # who is connected, and which devices there are
_LOOK_AGAIN_S = 1.0  # at most, as each look is at all devices, whatever comes
_PAUSE_S = 0.1  # so each device is told of ten times a second at most
_PAGE_READINGS = 500
_PAGE_BYTES = 1_000_000
_RESTORED_READINGS = 5  # a device may send each sensor by itself

Key = tuple[str, str]
"""Organisation, device."""


class Broker(Protocol):
    """How it is told; topics are those behind the door."""

    def show(self, topic: str, payload: bytes) -> None:
        """Give a message of ours to its subscribers, and hold it for later ones; an empty one ends that."""
        ...

    def shown(self, topic: str) -> bytes:
        """Return what is held for a topic; nothing when nothing is."""
        ...

    def is_heard(self, topic: str) -> bool:
        """Whether somebody is there who hears it."""
        ...

    def is_stuck(self, topic: str) -> bool:
        """Whether somebody hears it who does not read what was sent before."""
        ...

    def connected(self) -> Container[Device]:
        """Return the devices that have a connection."""
        ...


@dataclass(slots=True, frozen=True)
class _Audience:
    """An organisation's Home Assistant, or the site's as to one organisation."""

    topics: Topics
    space: str
    """What stands before its topics behind the door."""

    def config(self, whose: Whose) -> str:
        return self.space + self.topics.config(whose.object_id)

    def state(self, device_id: str) -> str:
        return self.space + self.topics.state(device_id)


@dataclass(slots=True, eq=False)
class _Shown:
    """A device as Home Assistant knows it."""

    device: Device
    whose: Whose
    called: tuple[str, str | None]
    """Its name and metadata, as `whose` was made of them."""
    state: DeviceState = field(default_factory=DeviceState)
    heard_ms: int | None = None
    """When something came from it last (monotonic)."""
    offline_since_row: int | None = None
    """What was stored when it, or its will, said that it leaves; None when it has not."""
    is_online: bool = False
    configs_due: set[_Audience] = field(default_factory=set)
    is_due: bool = True
    """Whether its state is to be told."""


class HomeAssistant:
    """See the module's own words."""

    def __init__(
        self,
        settings: HomeAssistantSettings,
        gateway_id: str,
        log: Log,
        access: Access,
        told: ToldTopics,
        broker: Broker,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._gateway_id = gateway_id
        self._log = log
        self._access = access
        self._store = told
        self._broker = broker
        self._clock = clock
        self._devices: dict[Key, _Shown] = {}
        self._audiences: dict[str, tuple[_Audience, _Audience]] = {}
        """By organisation: its own, and the site's."""
        self._told: set[str] = set()
        """Where somebody has heard what a device is."""
        self._over: set[str] = set()
        """Where somebody is still to hear that a device is no more."""
        self._heard: set[str] = set()
        """Where that has been heard, and is not noted yet."""
        self._births: set[str] = set()
        """Spaces of those who have come."""
        self._wake = asyncio.Event()
        self._is_stopping = False

    async def changed(self) -> None:
        """Hear that there may be other devices than before."""
        self._wake.set()

    async def run(self) -> None:
        """Tell, until cancelled; where it is switched off, until what was told before is taken back."""
        self._told = await self._store.all()
        if not self._settings.enabled:
            await self._take_everything_back()
            return
        position = self._log.last_row
        self._look()
        await self._restore()
        self._over = self._told - {topic for shown in self._devices.values() for topic in self._configs(shown)}
        loop = asyncio.get_running_loop()
        looked = loop.time() - _LOOK_S
        while True:
            position = await self._read(position)
            if loop.time() - looked >= (_LOOK_AGAIN_S if self._wake.is_set() else _LOOK_S):
                self._wake.clear()
                looked = loop.time()
                self._look()
                await self._tell()
                await self._note()
            else:
                await self._tell()
            await asyncio.sleep(_PAUSE_S)
            if self._log.last_row <= position:
                left_s = max(looked + _LOOK_S - loop.time(), 0)
                woken = self._woken(looked + _LOOK_AGAIN_S)
                await first_of(self._log.wait_beyond(position), woken, asyncio.sleep(left_s))

    async def _woken(self, not_before: float) -> None:
        """Return when there is a reason to look again, by the loop's time not before that."""
        await self._wake.wait()
        await asyncio.sleep(max(not_before - asyncio.get_running_loop().time(), 0))

    def goodbye(self) -> None:
        """Say that the gateway stops; nothing is told after that."""
        self._is_stopping = True
        for organization_id in self._audiences:
            self._say_status(organization_id, OFFLINE)

    def forget(self, topics: KeptTopics) -> None:
        """Forget what the device said to which these topics belong."""
        for (organization_id, device_id), shown in self._devices.items():
            if topics.includes(f"{organization_id}/devices/{device_id}/telemetry"):
                shown.state = DeviceState()
                shown.heard_ms = None
                shown.is_due = True
                shown.configs_due.update(self._audiences[organization_id])
                self._wake.set()

    def hear(self, topic: str, payload: bytes) -> None:
        """Hear a message that a client has published, by its topic behind the door."""
        if not topic.endswith("/status"):
            return
        birth = next((one for one in births(self._settings.discovery_prefix) if topic.endswith(one)), None)
        if birth is not None and payload == BIRTH:
            space = topic.removesuffix(birth)
            if not space or space.removesuffix("/") in self._audiences:
                self._births.add(space)
                self._wake.set()
            return
        match topic.split("/"):
            case [organization_id, "devices", device_id, "status"]:
                pass
            case [organization_id, above, "devices", device_id, "status"] if above == f"org_{organization_id}":
                pass
            case _:
                return
        shown = self._devices.get((organization_id, device_id))
        if shown is not None:
            said = _said(payload)
            shown.offline_since_row = self._log.last_row if said == OFFLINE else None
            if said == ONLINE:
                shown.heard_ms = self._clock.monotonic_ms()
            self._wake.set()

    # What is there

    async def _restore(self) -> None:
        """Take up what each device said last, as far as the log still has it."""
        now_ms, monotonic_ms = self._clock.now_ms(), self._clock.monotonic_ms()
        for (organization_id, device_id), shown in list(self._devices.items()):
            latest = await self._log.latest_of(organization_id, device_id, _RESTORED_READINGS)
            for reading in reversed(latest):
                shown.state.take(reading)
            if latest:
                shown.heard_ms = monotonic_ms - max(0, now_ms - latest[0].received_at_ms)
            own = (f"org_{organization_id}/devices/{device_id}/status", f"devices/{device_id}/status")
            if any(_said(self._broker.shown(f"{organization_id}/{topic}")) == OFFLINE for topic in own):
                shown.offline_since_row = self._log.last_row

    async def _read(self, position: int) -> int:
        """Take in what came since; returns up to where."""
        while True:
            rows = await self._log.read(position, limit=_PAGE_READINGS, max_bytes=_PAGE_BYTES)
            for row in rows:
                self._take(row)
            if not rows:
                return position
            position = rows[-1].row
            if position >= self._log.last_row:
                return position

    def _take(self, reading: StoredReading) -> None:
        shown = self._devices.get((reading.organization_id, reading.device_id))
        if shown is None:
            device = self._access.devices.get(reading.organization_id, reading.device_id)
            if device is None or device.is_revoked:
                return
            shown = self._add(device)
        shown.heard_ms = self._clock.monotonic_ms()
        if shown.offline_since_row is not None and reading.row > shown.offline_since_row:
            shown.offline_since_row = None
        if not shown.is_online:
            self._wake.set()
        changes = shown.state.changes
        if shown.state.take(reading):
            shown.is_due = True
            if changes != shown.state.changes:
                shown.configs_due.update(self._audiences[reading.organization_id])

    def _look(self) -> None:
        """See which devices there are, and which of them are there."""
        all_devices = self._access.devices
        devices = {
            (device.organization_id, device.device_id): device for device in all_devices if not device.is_revoked
        }
        for key, device in devices.items():
            shown = self._devices.get(key)
            if shown is None or shown.device is not device:
                self._add(device)
            elif shown.called != (device.name, device.metadata):
                shown.called, shown.whose = (device.name, device.metadata), self._whose(device)
                shown.configs_due.update(self._audiences[key[0]])
        for key in self._devices.keys() - devices.keys():
            self._remove(self._devices.pop(key))
        connected = self._broker.connected()
        for shown in self._devices.values():
            is_online = shown.device in connected or self._was_heard(shown)
            shown.is_due |= is_online is not shown.is_online
            shown.is_online = is_online
        births, self._births = self._births, set()
        for space in births:
            self._say_all_again(space)

    def _was_heard(self, shown: _Shown) -> bool:
        if shown.heard_ms is None or shown.offline_since_row is not None:
            return False
        return self._clock.monotonic_ms() - shown.heard_ms < self._settings.offline_after_s * 1000

    def _add(self, device: Device) -> _Shown:
        organization_id = device.organization_id
        if organization_id not in self._audiences:
            prefix = self._settings.discovery_prefix
            its_own = _Audience(Topics(prefix), f"{organization_id}/")
            self._audiences[organization_id] = its_own, _Audience(Topics(prefix, f"{organization_id}/"), "")
            self._say_status(organization_id, ONLINE)
        shown = _Shown(device, self._whose(device), (device.name, device.metadata))
        shown.configs_due.update(self._audiences[organization_id])
        self._devices[organization_id, device.device_id] = shown
        return shown

    def _whose(self, device: Device) -> Whose:
        known = json.loads(device.metadata) if device.metadata else {}
        name, area = (value if isinstance(value, str) else "" for value in (known.get("name"), known.get("location")))
        return Whose(self._gateway_id, device.organization_id, device.device_id, device.name or name, area)

    def _remove(self, shown: _Shown) -> None:
        for audience in self._audiences[shown.device.organization_id]:
            topic = audience.config(shown.whose)
            (self._heard if self._broker.is_heard(topic) else self._over).add(topic)
            self._broker.show(topic, b"")
            self._broker.show(audience.state(shown.device.device_id), b"")

    def _configs(self, shown: _Shown) -> Iterator[str]:
        for audience in self._audiences[shown.device.organization_id]:
            yield audience.config(shown.whose)

    # Telling

    def _say_all_again(self, space: str) -> None:
        """Tell an audience everything: it has just come."""
        for organization_id in self._audiences:
            if space in ("", f"{organization_id}/"):
                self._say_status(organization_id, ONLINE)
        for (organization_id, _), shown in self._devices.items():
            its_own, sites = self._audiences[organization_id]
            if space in ("", its_own.space):
                shown.configs_due.add(its_own if space else sites)
                shown.is_due = True

    def _say_status(self, organization_id: str, status: str) -> None:
        if status == ONLINE and self._is_stopping:
            return
        its_own, _ = self._audiences[organization_id]
        self._broker.show(its_own.space + its_own.topics.status, status.encode())

    async def _tell(self) -> None:
        """Tell what is due, but for those who do not read: they are told the latest when they do."""
        for shown in list(self._devices.values()):
            if self._is_stopping:
                return
            if shown.is_due or shown.configs_due:
                self._tell_of(shown)
                await asyncio.sleep(0)  # others have their turn, and what was sent leaves

    def _tell_of(self, shown: _Shown) -> None:
        its_own, _ = self._audiences[shown.device.organization_id]
        state_topic = its_own.state(shown.device.device_id)
        if shown.is_due and not self._broker.is_stuck(state_topic):
            self._broker.show(state_topic, shown.state.message(is_online=shown.is_online))
            shown.is_due = False
        for audience in list(shown.configs_due):
            topic = audience.config(shown.whose)
            if not self._broker.is_stuck(topic):
                self._broker.show(topic, discovery(shown.whose, shown.state, audience.topics))
                shown.configs_due.discard(audience)

    async def _note(self) -> None:
        """Note who has heard what, and let those hear what is over who have come."""
        there = {topic for shown in self._devices.values() for topic in self._configs(shown)}
        self._over = (self._over & self._told) - there
        self._heard = (self._heard & self._told) - there
        for topic in [topic for topic in self._over if self._broker.is_heard(topic)]:
            self._broker.show(topic, b"")
            self._over.discard(topic)
            self._heard.add(topic)
        new = {topic for topic in there - self._told if self._broker.is_heard(topic)}
        if not self._heard and not new:
            return
        try:
            await self._store.change(new, self._heard)
        except StoreFailed as error:
            logger.warning("what Home Assistant was told is not noted: %s", error.message)
            return
        self._told = (self._told | new) - self._heard
        self._heard.clear()

    async def _take_everything_back(self) -> None:
        self._over = set(self._told)
        while self._told:
            await self._note()
            if self._told:
                not_before = asyncio.get_running_loop().time() + _LOOK_AGAIN_S
                await first_of(self._woken(not_before), asyncio.sleep(_LOOK_S))
                self._wake.clear()


def _said(payload: bytes) -> object:
    """Return what a device says of itself: JSON with a `status`, or that word alone."""
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):  # too deep is no status either
        return payload.decode(errors="replace")
    return said.get("status") if isinstance(said, dict) else said
