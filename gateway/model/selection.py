"""Which readings one reader of the log wants, and what of them.

Decided from what a stored row holds and nothing else: the same row is wanted today and after any restart.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from gateway.model.reading import StoredReading

_DEVICES_IN_MEMORY = 20_000


@dataclass(slots=True, frozen=True)
class Selection:
    """An empty filter wants everything; several filters must all agree."""

    devices: tuple[str, ...] = ()
    """Device ids, or patterns with `*`, `?` and `[…]`."""
    organizations: frozenset[str] = frozenset()
    sensors: frozenset[str] = frozenset()
    """Sensor types: a reading is reduced to these, and not wanted when it has none of them."""
    _patterns: tuple[re.Pattern[str], ...] = field(init=False, compare=False, repr=False)
    _decided: dict[tuple[str, str], bool] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Compile the patterns."""
        object.__setattr__(self, "_patterns", tuple(re.compile(translate(pattern)) for pattern in self.devices))

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.devices or self.organizations or self.sensors)

    def wants_device(self, organization_id: str, device_id: str) -> bool:
        """Whether readings of this device may be wanted."""
        key = (organization_id, device_id)
        wanted = self._decided.get(key)
        if wanted is None:
            if len(self._decided) >= _DEVICES_IN_MEMORY:
                self._decided.clear()
            wanted = self._decided[key] = self._decide(organization_id, device_id)
        return wanted

    def _decide(self, organization_id: str, device_id: str) -> bool:
        if self.organizations and organization_id not in self.organizations:
            return False
        return not self._patterns or any(pattern.match(device_id) for pattern in self._patterns)

    def wants(self, reading: StoredReading) -> bool:
        """Whether the reading is wanted. One that cannot be read any more is: nobody knows what it holds."""
        if not self.wants_device(reading.organization_id, reading.device_id):
            return False
        return not self.sensors or bool(reading.defect) or not self.sensors.isdisjoint(_sensors(reading.body))

    def reduce(self, reading: StoredReading) -> None:
        """Take away the sensors that are not wanted."""
        found = _sensors(reading.body)
        if self.sensors and not self.sensors.issuperset(found):
            kept = {sensor: found[sensor] for sensor in found if sensor in self.sensors}
            reading.body = {**reading.body, "sensors": kept}


EVERYTHING = Selection()


def _sensors(body: Mapping[str, Any]) -> Mapping[str, Any]:
    sensors = body.get("sensors")
    return sensors if isinstance(sensors, dict) else {}
