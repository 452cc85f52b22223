"""Report on change: a reading that says nothing new is left out, for destinations behind a thin or dear line.

A destination that wants events only compares nothing but the fields that it names: a reading in which one of them has
changed is an event, and whatever else the reading says goes along.

- compared is with the last reading of the device that the destination has acknowledged, sensor by sensor, so many small
  steps add up to a change
- a reading goes out whole as soon as one of its sensors has something new: a value that differs by more than its dead
  band (any difference, where it has none), a field or sensor that was not there, or nothing sent for the heartbeat
- what is known is kept in memory alone: after a restart, or when too many devices are known, the next reading of each
  goes out; one too many, and no change is lost

What a batch would change is noted only when it was acknowledged. Which rows were left out of it is frozen with it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, TypeGuard

from gateway.model.reading import StoredReading

_SENSORS_IN_MEMORY = 50_000

Key = tuple[str, str, str]
"""Organisation, device, sensor."""


@dataclass(slots=True, frozen=True)
class Sent:
    """What one sensor said last."""

    values: Mapping[str, Any]
    gateway_boot: int
    monotonic_ms: int


@dataclass(slots=True)
class Changes:
    """What a destination knows of each sensor; `dead_band` and `events` are by `sensor.field`."""

    dead_band: Mapping[str, float]
    heartbeat_ms: float = inf
    events: frozenset[str] = frozenset()
    """The fields that are compared; empty: all."""
    _sent: OrderedDict[Key, Sent] = field(default_factory=OrderedDict)

    def choose(self, readings: Iterable[StoredReading]) -> list[StoredReading]:
        """Return which of these readings, the next in order, say something new."""
        ahead: dict[Key, Sent] = {}  # what will be known when those before have arrived
        chosen = []
        for reading in readings:
            if self._is_news(reading, ahead):
                ahead.update(self._said(reading))
                chosen.append(reading)
        return chosen

    def sent(self, readings: Iterable[StoredReading]) -> None:
        """Hear that the destination has these."""
        for reading in readings:
            for key, said in self._said(reading).items():
                self._sent[key] = said
                self._sent.move_to_end(key)
        while len(self._sent) > _SENSORS_IN_MEMORY:
            self._sent.popitem(last=False)

    def forget(self) -> None:
        """Begin anew."""
        self._sent.clear()

    def _is_news(self, reading: StoredReading, ahead: Mapping[Key, Sent]) -> bool:
        said = self._said(reading)
        if not said:  # it cannot be read, or has nothing that could be compared
            return bool(reading.defect) or not self.events
        return any(self._differs(key, new, ahead.get(key) or self._sent.get(key)) for key, new in said.items())

    def _differs(self, key: Key, new: Sent, old: Sent | None) -> bool:
        if old is None or new.values.keys() != old.values.keys() or self._is_due(new, old):
            return True
        return any(
            _differ(value, old.values[name], self.dead_band.get(f"{key[2]}.{name}", 0.0))
            for name, value in new.values.items()
        )

    def _is_due(self, new: Sent, old: Sent) -> bool:
        if self.heartbeat_ms == inf:
            return False
        is_unknown = old.gateway_boot != new.gateway_boot  # how long ago that was
        return is_unknown or new.monotonic_ms - old.monotonic_ms >= self.heartbeat_ms

    def _said(self, reading: StoredReading) -> dict[Key, Sent]:
        said = _said(reading)
        if self.events:
            said = {key: replace(one, values=self._only_events(key, one.values)) for key, one in said.items()}
        return {key: one for key, one in said.items() if one.values or not self.events}

    def _only_events(self, key: Key, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if f"{key[2]}.{name}" in self.events}


def _differ(new: object, old: object, dead_band: float) -> bool:
    if dead_band and _is_number(new) and _is_number(old):
        try:
            return abs(new - old) > dead_band
        except OverflowError:  # a whole number beyond what a float can be
            return True
    return new != old


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(reading: StoredReading) -> dict[Key, Sent]:
    sensors = reading.body.get("sensors")
    if not isinstance(sensors, dict):
        return {}
    whose = (reading.organization_id, reading.device_id)
    return {
        (*whose, sensor): Sent(
            values if isinstance(values, dict) else {"": values}, reading.gateway_boot, reading.monotonic_ms
        )
        for sensor, values in sensors.items()
    }
