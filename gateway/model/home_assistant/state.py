"""A device's last known state: what came last of each of its sensors, in one message.

An older reading does not overwrite a newer one, whenever it arrives. It holds what Home Assistant is shown and nothing
else, and no more entities than `ENTITIES_AT_MOST`, whatever a device sends.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from gateway.model.home_assistant.entities import HEALTH, Entity, Value, entity_of, fields_of, is_known, unit_of
from gateway.model.home_assistant.topics import OFFLINE, ONLINE
from gateway.model.reading import StoredReading, rfc3339

ENTITIES_AT_MOST = 64
"""Of those that only a device's own words make; those that have a name here are few."""
_LONGEST_FIRMWARE = 100


class DeviceState:
    """See the module's own words."""

    def __init__(self) -> None:
        self.entities: dict[str, Entity] = {}
        """What it has ever shown, by component id; none leaves, or it would come and go."""
        self.firmware = ""
        """What the device says that it runs."""
        self.changes = 0
        """Grows when it is another device than before: another entity, or other firmware."""
        self._fields: dict[str, dict[str, Entity]] = {}
        """The same, by sensor and field."""
        self._others = 0
        """How many of them only the device's own words have made."""
        self._values: dict[str, dict[str, Value]] = {}
        self._times: dict[str, int] = {}
        """When each sensor's values were measured."""

    @property
    def time_ms(self) -> int:
        """When the newest of it was measured; 0 before any was."""
        return max(self._times.values(), default=0)

    def take(self, reading: StoredReading) -> bool:
        """Take over what is newer; False when nothing is."""
        sensors = reading.body.get("sensors")
        groups: dict[str, Any] = dict(sensors) if isinstance(sensors, Mapping) else {}
        groups[HEALTH] = reading.body.get(HEALTH)
        there = {group: fields_of(values) for group, values in groups.items() if values is not None}
        taken = [self._take(group, values, reading) for group, values in there.items()]
        firmware = reading.body.get("firmware")
        if any(taken) and isinstance(firmware, str) and firmware[:_LONGEST_FIRMWARE] != self.firmware:
            self.firmware = firmware[:_LONGEST_FIRMWARE]
            self.changes += 1
        return any(taken)

    def _take(self, group: str, values: Mapping[str, Any], reading: StoredReading) -> bool:
        held_ms = self._times.get(group)
        if held_ms is not None and reading.time_ms < held_ms:
            # A wrong clock may have put what is held into the future: then what comes as it is measured counts.
            was_in_the_future = held_ms > reading.received_at_ms
            if reading.late or not was_in_the_future:
                return False
        known = self._fields.get(group, {})
        shown: dict[str, Value] = {}
        for field, value in values.items():
            entity = known.get(field)
            if entity is None or entity.has_own_unit:
                entity = self._learn(group, field, values)
            if entity is not None:
                shown[field] = entity.value(value)
        if group not in self._fields:
            return False
        self._times[group] = reading.time_ms
        self._values[group] = shown
        return True

    def _learn(self, group: str, field: str, values: Mapping[str, Any]) -> Entity | None:
        """Return the entity of a field; one that there was stays what it is, but for its unit."""
        known = self._fields.get(group, {}).get(field)
        if known is not None and unit_of(known, values) == known.unit:
            return known
        found = entity_of(group, field, values) or known
        if found is None or found is known:
            return known
        if not is_known(found):
            if self._others >= ENTITIES_AT_MOST:
                return None
            self._others += 1
        self.entities[found.component] = self._fields.setdefault(group, {})[field] = found
        self.changes += 1
        return found

    def message(self, *, is_online: bool) -> bytes:
        """Return the state as JSON: every entity has its place in it; null is what is not known now.

        {"availability": "online", "time": RFC 3339 or null, SENSOR: {FIELD: VALUE}, "health": {FIELD: VALUE}}, with the
        sensors under "sensors".
        """
        groups: dict[str, dict[str, Value]] = {}
        for entity in self.entities.values():
            groups.setdefault(entity.group, {})[entity.field] = self._values.get(entity.group, {}).get(entity.field)
        health = groups.pop(HEALTH, {})
        time = rfc3339(self.time_ms) if self._times else None
        availability = ONLINE if is_online else OFFLINE
        return to_json({"availability": availability, "time": time, "sensors": groups, "health": health})
