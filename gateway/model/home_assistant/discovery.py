"""The message by which Home Assistant learns what a device is (device-based discovery).

Keys have their short names where Home Assistant has one (`abbreviations.py` there): a device is about 3 kB. Every
entity has a unique id that is the same for ever, so its owner's changes to it stay.
"""

from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from gateway import __version__
from gateway.model.home_assistant.entities import HEALTH, Entity
from gateway.model.home_assistant.state import DeviceState
from gateway.model.home_assistant.topics import OFFLINE, ONLINE, Topics, object_id

_CONNECTIVITY = "connectivity"
_AVAILABILITY = "{{ value_json['availability'] }}"


@dataclass(slots=True, frozen=True)
class Whose:
    """Whose device it is."""

    gateway_id: str
    organization_id: str
    device_id: str
    name: str = ""
    """What its owner calls it; empty when it has only its id."""
    area: str = ""
    """Where it is, if that is known: suggested as an area."""

    @property
    def object_id(self) -> str:
        """Return its name in Home Assistant."""
        return object_id(self.gateway_id, self.organization_id, self.device_id)


def discovery(whose: Whose, state: DeviceState, topics: Topics, *, silent_after_s: int | None = None) -> bytes:
    """Return what a device is, as JSON, with all entities that it has shown.

    With `silent_after_s` Home Assistant itself takes a device for gone of which it has heard nothing for so long.
    """
    name = whose.object_id
    device: dict[str, Any] = {"ids": [f"neurogate_{name}"], "name": whose.name or whose.device_id}
    device |= {"sa": whose.area} if whose.area else {}
    device |= {"sw": state.firmware} if state.firmware else {}
    gateway = {"t": topics.status}
    own = {"t": topics.state(whose.device_id), "val_tpl": _AVAILABILITY}
    silent = {} if silent_after_s is None else {"exp_aft": silent_after_s}
    components = {_CONNECTIVITY: _connectivity(name, gateway, silent_after_s)}
    components |= {entity.component: _component(entity, name) | silent for entity in state.entities.values()}
    return to_json(
        {
            "dev": device,
            "o": {"name": "neurogate", "sw": __version__},
            "avty": [gateway, own],
            "avty_mode": "all",
            "stat_t": topics.state(whose.device_id),
            "cmps": components,
        }
    )


def _connectivity(name: str, gateway: dict[str, str], silent_after_s: int | None) -> dict[str, Any]:
    """Return the entity that says whether the device is there: it is the one that is not gone when that is not."""
    return ({} if silent_after_s is None else {"off_dly": silent_after_s}) | {
        "p": "binary_sensor",
        "uniq_id": f"{name}.{_CONNECTIVITY}",
        "name": "Connectivity",
        "dev_cla": "connectivity",
        "ent_cat": "diagnostic",
        "val_tpl": _AVAILABILITY,
        "pl_on": ONLINE,
        "pl_off": OFFLINE,
        "avty": [gateway],
    }


def _component(entity: Entity, name: str) -> dict[str, Any]:
    # By subscript: an attribute of that name could be a method of the dictionary.
    place = f"['{entity.group}']" if entity.group == HEALTH else f"['sensors']['{entity.group}']"
    component: dict[str, Any] = {
        "p": entity.platform,
        "uniq_id": f"{name}.{entity.group}.{entity.field}",
        "name": entity.name,
        "val_tpl": f"{{{{ value_json{place}['{entity.field}'] }}}}",
    }
    if entity.platform == "binary_sensor":
        component |= {"pl_on": "True", "pl_off": "False"}  # as a template renders them
    said = {
        "dev_cla": entity.device_class,
        "unit_of_meas": entity.unit,
        "stat_cla": entity.state_class,
        "ic": entity.icon,
        "ent_cat": "diagnostic" if entity.is_diagnostic else None,
        "en": None if entity.is_enabled else False,
    }
    return component | {key: value for key, value in said.items() if value is not None}
