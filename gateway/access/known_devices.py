"""Which devices there are, by every name that they go by: an in-memory view of `state.db`.

One from which something comes and that is unknown is noted as discovered; that is written behind the data path.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.model.errors import StoreFailed
from gateway.parsers.contract import Found
from gateway.storage.state import DeviceRow, SeenDevice, State

logger = logging.getLogger(__name__)

DISCOVERED_AT_MOST = 1_000
"""Devices of one organisation that are `discovered` and not yet anything more. Of further ones the readings are stored
like any others; they are registered when there is room, and they are heard again."""


@dataclass(slots=True, eq=False)
class Device:
    """A device as the data path needs it; one object for as long as the gateway runs."""

    organization_id: str
    device_id: str
    metadata: str | None = None
    """Its metadata as JSON, stored with each reading; None when there is none."""
    name: str = ""
    """What its owner calls it."""
    is_revoked: bool = False
    readings: int = 0
    last_seen_ms: int = 0
    is_known: bool = True
    """False of one that is not registered, as there is no room or it is only spoken to: then this object is for one
    message, and is not to be kept."""


class KnownDevices:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._devices: dict[tuple[str, str], Device] = {}
        self._called: dict[tuple[str, str, str], Device] = {}
        """Devices by organisation, `hardware_id`, `serial_number` or `name`, and that.

        A name is a hardware id that its owner has registered: where a message has only one name for its device, what
        was merely discovered must not take it from another one.
        """
        self._registered: set[tuple[str, str]] = set()
        """Devices that the state had when it was read last."""
        self._discovered: Counter[str] = Counter()
        """How many devices of each organisation are discovered, those to be written included."""
        self._to_register: dict[tuple[str, str], SeenDevice] = {}
        self._writing = asyncio.Lock()
        self.seen_new = asyncio.Event()
        """Set while there are discovered ones to be written."""

    def __iter__(self) -> Iterator[Device]:
        return iter(list(self._devices.values()))

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, organization_id: str, device_id: str) -> Device | None:
        """Return the device of that name."""
        return self._devices.get((organization_id, device_id))

    def spoken_to(self, organization_id: str, device_id: str) -> Device:
        """Return the device of that name, to which something goes; one that is unknown stays so."""
        key = (organization_id, device_id)
        return self._devices.get(key) or Device(*key, is_known=False)

    def heard(self, organization_id: str, device_id: str) -> Device:
        """Return the device of that name, from which something came; one that is unknown is noted as discovered."""
        key = (organization_id, device_id)
        return self._devices.get(key) or self._discover(SeenDevice(*key))

    def by_hardware_id(self, organization_id: str, hardware_id: str) -> Device | None:
        """Return the device that has it."""
        return self._called.get((organization_id, "hardware_id", hardware_id))

    def meant(self, organization_id: str, found: Found) -> Device | None:
        """Return the device that a reading is of, by whatever it says of it; None when it is unknown."""
        for hardware_id in found.hardware_ids:
            if (device := self.by_hardware_id(organization_id, hardware_id)) is not None:
                return device
        name = found.device_id or ""
        return (
            self._called.get((organization_id, "serial_number", found.serial_number))
            or self._called.get((organization_id, "name", name))
            or self._devices.get((organization_id, name))
        )

    def discover(self, organization_id: str, found: Found, device_id: str) -> Device:
        """Return a new device with what a reading says of it."""
        return self._discover(SeenDevice(organization_id, device_id, found.hardware_ids, found.serial_number))

    def _discover(self, seen: SeenDevice) -> Device:
        key = (seen.organization_id, seen.device_id)
        device = Device(*key)
        if self._discovered[key[0]] < DISCOVERED_AT_MOST:
            self._discovered[key[0]] += 1
            self._devices[key] = device
            self._to_register[key] = seen
            self._call(device, seen.hardware_ids, seen.serial_number)
            self.seen_new.set()
        else:
            device.is_known = False
            logger.warning("too many discovered devices: not registered", extra={"organization_id": key[0]})
        return device

    def _call(self, device: Device, hardware_ids: Iterable[str], serial_number: str) -> None:
        """Let a device be found by what it is called, unless another one is."""
        for hardware_id in hardware_ids:
            self._called.setdefault((device.organization_id, "hardware_id", hardware_id), device)
        if serial_number:
            self._called.setdefault((device.organization_id, "serial_number", serial_number), device)

    def replace(self, devices: Iterable[DeviceRow]) -> None:
        """Take over what the state says; a device that stays is the same object, as live connections hold it."""
        rows = sorted(devices, key=lambda row: row.status != "active")  # they come first for what they are called
        self._discovered = Counter(organization_id for organization_id, _ in self._to_register)
        self._called = {}
        registered = {(row.organization_id, row.device_id) for row in rows}
        for key in self._registered - registered - self._to_register.keys():  # to another organisation, or with its own
            del self._devices[key]
        self._registered = registered
        for row in rows:
            key = (row.organization_id, row.device_id)
            device = self._devices.setdefault(key, Device(*key))
            device.metadata = json.dumps(row.metadata, separators=(",", ":")) if row.metadata else None
            device.name, device.is_revoked = row.name, row.status == "revoked"
            if row.status == "discovered" and key not in self._to_register:
                self._discovered[row.organization_id] += 1
            self._call(device, row.hardware_ids, row.serial_number)
            if row.status == "active":
                self._called.update(((row.organization_id, "name", one), device) for one in row.hardware_ids)
        for key, seen in self._to_register.items():
            self._call(self._devices[key], seen.hardware_ids, seen.serial_number)

    async def write_down(self) -> None:
        """Register those that were discovered. Raises StoreFailed; then another time."""
        async with self._writing:
            self.seen_new.clear()
            found = list(self._to_register.values())
            if not found:
                return
            try:
                await self._state.discover_devices(found)
            except StoreFailed:
                self.seen_new.set()
                raise
            for seen in found:
                del self._to_register[seen.organization_id, seen.device_id]
            logger.info("devices discovered", extra={"count": len(found), "first": found[0].device_id})
