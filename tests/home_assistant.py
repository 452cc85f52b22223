"""Home Assistant's side of MQTT discovery, as far as it can be had without Home Assistant.

What it accepts is asked of two: `ha-mqtt-models-pydantic`, which has its schemas as models, and the lists below, from
its source (`schemas.py`, `discovery.py`, `abbreviations.py` of `components/mqtt/`, `const.py` of
`components/binary_sensor/` and `components/sensor/`), as those models let unknown keys and classes pass. Templates are
rendered by jinja2, as there.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from ha_mqtt_models_pydantic.abbreviations import ABBREVIATIONS, DEVICE_ABBREVIATIONS, ORIGIN_ABBREVIATIONS
from ha_mqtt_models_pydantic.components.common import DeviceDiscoveryPayload
from ha_mqtt_models_pydantic.discovery import (
    COMPONENT_MODELS,
    expand_abbreviations,
    parse_component_payload,
    parse_device_discovery_payload,
)
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.site import until

TOPIC = re.compile(r"(?P<component>\w+)/(?:(?P<node_id>[a-zA-Z0-9_-]+)/)?(?P<object_id>[a-zA-Z0-9_-]+)/config")
"""`TOPIC_MATCHER` of its discovery.py."""
SHARED = (
    "availability",
    "availability_mode",
    "availability_template",
    "availability_topic",
    "command_topic",
    "payload_available",
    "payload_not_available",
    "state_topic",
)
"""`SHARED_OPTIONS` of its schemas.py: what a component has of its device unless it says otherwise."""
CLASSES = {
    "binary_sensor": {"connectivity", "motion", "moving", "occupancy"},
    "sensor": {"data_size", "distance", "duration", "signal_strength"},
}
"""Of its device classes those that we use."""
UNITS = {"data_size": {"B"}, "distance": {"cm"}, "duration": {"s"}, "signal_strength": {"dBm"}}
"""Of the units that go with a sensor's class those that we use."""
DEVICE_ALONE = ("device", "origin", "components", "availability", "availability_mode", "state_topic", "qos", "encoding")
_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def accepted(payload: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each component of a device is to be, by its id. Fails where it would be refused or warned of."""
    whole: DeviceDiscoveryPayload = parse_device_discovery_payload(payload)
    expanded = expand_abbreviations(payload)
    assert set(expanded) <= {*DEVICE_ALONE}, "extra keys are not allowed"
    assert set(payload["dev"]) <= {*DEVICE_ABBREVIATIONS, *DEVICE_ABBREVIATIONS.values()}
    assert set(payload["o"]) <= {*ORIGIN_ABBREVIATIONS, *ORIGIN_ABBREVIATIONS.values()}
    assert whole.origin.name
    components = {}
    for name, raw in payload["cmps"].items():
        assert " " not in name
        assert set(raw) <= {*ABBREVIATIONS, *ABBREVIATIONS.values()}
        component = expand_abbreviations(raw)
        platform = component.pop("platform")
        component = {key: expanded[key] for key in SHARED if key in expanded} | component
        model = COMPONENT_MODELS[platform]
        known = {one.alias or name for name, one in model.model_fields.items()}  # type: ignore[attr-defined]
        assert set(component) <= known, set(component) - known
        parse_component_payload(platform, component)
        device_class, unit = component.get("device_class"), component.get("unit_of_measurement")
        if device_class is not None:
            assert device_class in CLASSES[platform]
            assert platform == "binary_sensor" or unit in UNITS[device_class]
        components[name] = component | {"platform": platform}
    return components


@dataclass
class HomeAssistant:
    """What it would show, from the messages that it hears."""

    prefix: str = "homeassistant"
    devices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Components by object id, then by component id."""
    names: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it knows of each device, by object id."""
    heard: dict[str, str] = field(default_factory=dict)
    """The last message of each other topic."""
    configs: int = 0
    """How often it was told what a device is."""

    def message(self, topic: str, payload: bytes) -> None:
        """Hear a message."""
        if not topic.startswith(f"{self.prefix}/") or not topic.endswith("/config"):
            self.heard[topic] = payload.decode()
            return
        match = TOPIC.fullmatch(topic.removeprefix(f"{self.prefix}/"))
        assert match is not None, f"illegal discovery topic {topic}"
        name = match["object_id"]
        if not payload:
            self.devices.pop(name, None)
            return
        self.configs += 1
        self.devices[name] = accepted(json.loads(payload))
        self.names[name] = expand_abbreviations(json.loads(payload)["dev"], DEVICE_ABBREVIATIONS)
        ids = [one["unique_id"] for device in self.devices.values() for one in device.values()]
        assert len(ids) == len(set(ids)), "two entities with one id"

    def state(self, device: str, component: str) -> str:
        """Return what it shows of an entity: `unavailable`, `unknown`, `on`, `off` or a value."""
        config = self.devices[device][component]
        assert config.get("availability_mode", "latest") == "all"
        for one in config["availability"]:
            found = self.heard.get(one["topic"])
            if found is None or rendered(one.get("value_template"), found) != one.get("payload_available", "online"):
                return "unavailable"
        value = rendered(config["value_template"], self.heard[config["state_topic"]])
        if value == "None":
            return "unknown"
        if config["platform"] == "sensor":
            return value
        return {config["payload_on"]: "on", config["payload_off"]: "off"}[value]

    def states(self, device: str) -> dict[str, str]:
        """Return what it shows of all entities of a device."""
        return {name: self.state(device, name) for name in self.devices[device]}


def rendered(template: str | None, payload: str) -> str:
    """Return what a template makes of a payload."""
    if template is None:
        return payload
    return _TEMPLATES.from_string(template).render(value=payload, value_json=json.loads(payload)).strip()


async def listen(client: aiomqtt.Client, shown: HomeAssistant) -> None:
    """Hear what is told, and subscribe to what is found in it, as Home Assistant does."""
    wanted: set[str] = set()
    async for message in client.messages:
        assert isinstance(message.payload, bytes)
        shown.message(str(message.topic), message.payload)
        found = {
            topic
            for device in shown.devices.values()
            for component in device.values()
            for topic in (component["state_topic"], *(one["topic"] for one in component["availability"]))
        }
        if new := found - wanted:
            wanted |= new
            granted = await client.subscribe([(topic, 0) for topic in sorted(new)])
            assert all(code.value < 0x80 if hasattr(code, "value") else code < 0x80 for code in granted)


async def showing(found: HomeAssistant, device: str, component: str, value: str) -> None:
    """Return as soon as it shows a value."""

    def holds() -> bool:
        return component in found.devices.get(device, {}) and found.state(device, component) == value

    try:
        await until(holds, f"{component} shown as {value}")
    except AssertionError:
        raise AssertionError(f"{component}: {found.devices.get(device)} {found.heard}") from None
