"""Which field of which sensor is what in Home Assistant.

What we know has a name, a class and a unit here; of other sensors numbers and booleans are shown as they come. Device
classes, state classes and units are Home Assistant's:
https://www.home-assistant.io/integrations/binary_sensor/#device-class and `/sensor/#device-class`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

HEALTH = "health"
"""Under which the device's own health is, beside its sensors."""

_FIELD = re.compile(r"[A-Za-z0-9_]{1,64}")  # it stands in a template, and must end nothing there
_LONGEST_TEXT = 255  # of a state in Home Assistant
_LONGEST_UNIT = 20

Value = bool | float | str | None
Platform = Literal["binary_sensor", "sensor"]


@dataclass(slots=True, frozen=True)
class Entity:
    """One entity of a device."""

    group: str
    """The sensor's wire name, or `health`."""
    field: str
    name: str
    platform: Platform = "sensor"
    device_class: str | None = None
    unit: str | None = None
    state_class: str | None = None
    icon: str | None = None
    is_diagnostic: bool = False
    is_enabled: bool = True
    """Whether it is shown unless its owner says otherwise."""
    is_text: bool = False
    has_own_unit: bool = False
    """Whether a reading may say its unit."""

    @property
    def component(self) -> str:
        """Its id within the device: `-` is in no name, so no two entities have the same."""
        return f"{self.group}-{self.field}"

    def value(self, found: object) -> Value:
        """Return what a reading says, as it is shown; None when that is of another kind."""
        if self.platform == "binary_sensor":
            return found if isinstance(found, bool) else None
        if self.is_text:
            return found[:_LONGEST_TEXT] if isinstance(found, str) else None
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _binary(group: str, field: str, name: str, device_class: str | None = None) -> Entity:
    return Entity(group, field, name, "binary_sensor", device_class)


def _measured(group: str, field: str, name: str, unit: str | None, device_class: str | None = None) -> Entity:
    return Entity(group, field, name, "sensor", device_class, unit, "measurement")


def _diagnostic(entity: Entity, *, is_enabled: bool = True) -> Entity:
    return replace(entity, is_diagnostic=True, is_enabled=is_enabled)


_GAS = replace(_measured("mq134", "gas_concentration", "Gas (estimate)", "ppm"), icon="mdi:molecule", has_own_unit=True)
_KNOWN = {
    (entity.group, entity.field): entity
    for entity in (
        _binary("ld2410", "presence", "Occupancy", "occupancy"),
        _binary("ld2410", "moving", "Moving target", "moving"),
        replace(_binary("ld2410", "stationary", "Stationary target"), icon="mdi:human-male"),
        _measured("ld2410", "distance_cm", "Distance", "cm", "distance"),
        _diagnostic(_measured("ld2410", "moving_distance_cm", "Moving target distance", "cm", "distance")),
        _diagnostic(_measured("ld2410", "moving_energy", "Moving target energy", "%")),
        _diagnostic(_measured("ld2410", "stationary_distance_cm", "Stationary target distance", "cm", "distance")),
        _diagnostic(_measured("ld2410", "stationary_energy", "Stationary target energy", "%")),
        _binary("pir", "motion_detected", "Motion", "motion"),
        _diagnostic(_measured("pir", "pulses", "Motion pulses", None)),
        _GAS,
        _diagnostic(Entity("mq134", "state", "Gas sensor state", is_text=True)),
        _diagnostic(_measured("mq134", "raw_uv", "Gas sensor voltage", "µV"), is_enabled=False),
        _diagnostic(_measured("mq134", "rs_ohm", "Gas sensor resistance", "Ω"), is_enabled=False),
        _diagnostic(_measured("mq134", "ratio", "Gas sensor ratio", None), is_enabled=False),
        _diagnostic(_measured(HEALTH, "rssi_dbm", "Signal strength", "dBm", "signal_strength")),
        _diagnostic(_measured(HEALTH, "heap_free", "Free memory", "B", "data_size"), is_enabled=False),
        _diagnostic(_measured(HEALTH, "uptime_s", "Uptime", "s", "duration"), is_enabled=False),
    )
}
"""By (sensor, field). No class for the gas: it is an estimate of a mixture, and nobody may build an alarm on it."""


def entity_of(sensor: str, field: str, values: Mapping[str, Any]) -> Entity | None:
    """Return what Home Assistant can show of a field; None for what it cannot, such as a list."""
    value = values[field]
    entity = _KNOWN.get((sensor, field)) or _generic(sensor, field, value)
    if entity is None or entity.value(value) is None:
        return None
    return replace(entity, unit=unit_of(entity, values)) if entity.has_own_unit else entity


def unit_of(entity: Entity, values: Mapping[str, Any]) -> str | None:
    """Return the unit of an entity, as a reading says it."""
    unit = values.get("unit")
    return unit if isinstance(unit, str) and 0 < len(unit) <= _LONGEST_UNIT else entity.unit


def is_known(entity: Entity) -> bool:
    """Whether it is one that has a name here."""
    return (entity.group, entity.field) in _KNOWN


def fields_of(values: object) -> Mapping[str, Any]:
    """Return a sensor's fields by name; one that is only a value has one of that name."""
    return values if isinstance(values, Mapping) else {"value": values}


def _generic(sensor: str, field: str, value: object) -> Entity | None:
    if sensor == HEALTH or not isinstance(value, int | float):
        return None
    if _FIELD.fullmatch(sensor) is None or _FIELD.fullmatch(field) is None:
        return None
    name = (sensor if field == "value" else f"{sensor} {field}").replace("_", " ")
    return Entity(sensor, field, name, "binary_sensor" if isinstance(value, bool) else "sensor")
