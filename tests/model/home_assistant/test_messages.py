"""What Home Assistant is told of a device: accepted by it, the same for ever, and never older than what it was told."""

import json
from typing import Any

import pytest

from gateway.model.home_assistant import DeviceState, Topics, Whose, discovery
from gateway.model.home_assistant.entities import Entity
from gateway.model.home_assistant.state import ENTITIES_AT_MOST
from gateway.model.home_assistant.topics import is_for_home_assistant, object_id
from gateway.model.reading import StoredReading, TimeSource
from tests.home_assistant import HomeAssistant, accepted

KITCHEN = Whose("site-1", "default", "kitchen")
NOON_MS = 1_795_176_000_000
NAME = "site-1_-default_-kitchen"
WHOLE: dict[str, Any] = {
    "firmware": "1.4.0",
    "sensors": {
        "ld2410": {
            "presence": True,
            "moving": True,
            "stationary": False,
            "distance_cm": 123,
            "moving_distance_cm": 123,
            "moving_energy": 55,
            "stationary_distance_cm": 0,
            "stationary_energy": 0,
        },
        "pir": {"motion_detected": True, "pulses": 2},
        "mq134": {"gas_concentration": 12.5, "unit": "ppm", "state": "ok", "raw_uv": 812000, "ratio": 1.02},
    },
    "health": {"rssi_dbm": -61, "heap_free": 61200, "uptime_s": 86400},
}


def reading(
    body: dict[str, Any], *, at_ms: int = NOON_MS, received_ms: int | None = None, row: int = 1
) -> StoredReading:
    received = at_ms if received_ms is None else received_ms
    return StoredReading(row, "default", "kitchen", "b", row, at_ms, TimeSource.DEVICE, received, body)


def sensors(**found: Any) -> dict[str, Any]:
    return {"sensors": found}


def shown(state: DeviceState, *, is_online: bool = True, whose: Whose = KITCHEN) -> HomeAssistant:
    """Let Home Assistant hear all there is of a device."""
    home = HomeAssistant()
    topics = Topics()
    home.message(topics.status, b"online")
    home.message(topics.state(whose.device_id), state.message(is_online=is_online))
    home.message(topics.config(whose.object_id), discovery(whose, state, topics))
    return home


def taken(*readings: StoredReading) -> DeviceState:
    state = DeviceState()
    for one in readings:
        state.take(one)
    return state


def test_a_board_is_shown_with_all_that_it_measures() -> None:
    assert shown(taken(reading(WHOLE))).states(NAME) == {
        "connectivity": "on",
        "ld2410-presence": "on",
        "ld2410-moving": "on",
        "ld2410-stationary": "off",
        "ld2410-distance_cm": "123",
        "ld2410-moving_distance_cm": "123",
        "ld2410-moving_energy": "55",
        "ld2410-stationary_distance_cm": "0",
        "ld2410-stationary_energy": "0",
        "pir-motion_detected": "on",
        "pir-pulses": "2",
        "mq134-gas_concentration": "12.5",
        "mq134-state": "ok",
        "mq134-raw_uv": "812000",
        "mq134-ratio": "1.02",
        "health-rssi_dbm": "-61",
        "health-heap_free": "61200",
        "health-uptime_s": "86400",
    }


def test_each_entity_is_of_its_kind() -> None:
    device = shown(taken(reading(WHOLE))).devices[NAME]

    def kind(name: str) -> tuple[Any, ...]:
        one = device[name]
        keys = ("platform", "device_class", "unit_of_measurement", "entity_category")
        return tuple(one.get(key) for key in keys)

    assert kind("ld2410-presence") == ("binary_sensor", "occupancy", None, None)
    assert kind("pir-motion_detected") == ("binary_sensor", "motion", None, None)
    assert kind("ld2410-distance_cm") == ("sensor", "distance", "cm", None)
    assert kind("mq134-gas_concentration") == ("sensor", None, "ppm", None)
    assert "estimate" in device["mq134-gas_concentration"]["name"]
    assert kind("connectivity") == ("binary_sensor", "connectivity", None, "diagnostic")
    assert kind("health-rssi_dbm") == ("sensor", "signal_strength", "dBm", "diagnostic")
    assert kind("ld2410-moving_energy") == ("sensor", None, "%", "diagnostic")
    assert [name for name in device if not device[name].get("enabled_by_default", True)] == [
        "mq134-raw_uv",
        "mq134-ratio",
        "health-heap_free",
        "health-uptime_s",
    ]


def test_who_is_away_is_unavailable_and_only_its_connectivity_says_so() -> None:
    states = shown(taken(reading(WHOLE)), is_online=False).states(NAME)
    assert states.pop("connectivity") == "off"
    assert set(states.values()) == {"unavailable"}


def test_when_the_gateway_is_away_nothing_is_known() -> None:
    home = shown(taken(reading(WHOLE)))
    home.message("neurogate/status", b"offline")
    assert set(home.states(NAME).values()) == {"unavailable"}


def test_a_sensor_of_which_nothing_came_is_not_shown_and_what_is_missing_is_unknown() -> None:
    state = taken(reading(sensors(ld2410={"presence": True, "distance_cm": 80})))
    assert set(shown(state).states(NAME)) == {"connectivity", "ld2410-presence", "ld2410-distance_cm"}
    state.take(reading(sensors(ld2410={"presence": False}), at_ms=NOON_MS + 1))
    assert shown(state).state(NAME, "ld2410-presence") == "off"
    assert shown(state).state(NAME, "ld2410-distance_cm") == "unknown"


def test_sensors_that_come_in_turn_stay_known() -> None:
    state = taken(
        reading(sensors(pir={"motion_detected": True})), reading(sensors(ld2410={"presence": False}), at_ms=NOON_MS + 1)
    )
    assert shown(state).state(NAME, "pir-motion_detected") == "on"


def test_what_is_older_does_not_overwrite_what_is_newer() -> None:
    state = taken(reading(sensors(pir={"motion_detected": True})))
    late = reading(
        sensors(pir={"motion_detected": False}, door={"open": True}), at_ms=NOON_MS - 60_000, received_ms=NOON_MS + 5
    )
    assert state.take(late)  # of the door nothing newer is known
    assert shown(state).state(NAME, "pir-motion_detected") == "on"
    assert shown(state).state(NAME, "door-open") == "on"


def test_a_clock_that_ran_ahead_does_not_silence_a_device() -> None:
    state = taken(reading(sensors(pir={"motion_detected": True}), at_ms=NOON_MS + 3_600_000))
    state.take(reading(sensors(pir={"motion_detected": False})))
    assert shown(state).state(NAME, "pir-motion_detected") == "off"


def test_of_sensors_that_nobody_knows_numbers_and_booleans_are_shown() -> None:
    found = {"co2": {"ppm": 480, "warm": True, "name": "x", "list": [1], "none": None}, "door": False, "temp": 21.5}
    states = shown(taken(reading(sensors(**found)))).states(NAME)
    assert states == {
        "connectivity": "on",
        "co2-ppm": "480",
        "co2-warm": "on",
        "door-value": "off",
        "temp-value": "21.5",
    }


@pytest.mark.parametrize("name", ["it's", "a b", "x'] }}{{ 1", "ü", "", "a-b", "x" * 65])
def test_a_name_that_could_end_a_template_is_not_shown(name: str) -> None:
    state = taken(reading(sensors(**{name: {"value": 1}, "good": {name: 1, "n": 2}})))
    assert set(shown(state).states(NAME)) == {"connectivity", "good-n"}


@pytest.mark.parametrize("name", ["items", "keys", "get", "__class__"])
def test_a_name_that_is_a_method_of_a_dictionary_is_only_a_name(name: str) -> None:
    assert shown(taken(reading(sensors(**{name: {name: 7}})))).state(NAME, f"{name}-{name}") == "7"


def test_what_was_a_number_stays_one() -> None:
    state = taken(reading(sensors(door={"open": 1})))
    state.take(reading(sensors(door={"open": True}), at_ms=NOON_MS + 1))
    assert shown(state).state(NAME, "door-open") == "unknown"
    assert [one.platform for one in state.entities.values()] == ["sensor"]


def test_a_device_that_invents_names_fills_nothing() -> None:
    state = DeviceState()
    for number in range(3 * ENTITIES_AT_MOST):
        state.take(reading(sensors(**{f"s{number}": {"v": number}}), at_ms=NOON_MS + number))
    assert len(state._fields) == len(state._values) == len(state._times) == ENTITIES_AT_MOST
    state.take(reading(WHOLE, at_ms=NOON_MS + 1_000))
    assert len([one for one in state.entities.values() if one.field == "v"]) == ENTITIES_AT_MOST
    assert shown(state).state(NAME, "pir-motion_detected") == "on"


def test_the_unit_of_the_gas_is_the_readings() -> None:
    state = taken(reading(sensors(mq134={"gas_concentration": 3.0, "unit": "mg/m³"})))
    assert shown(state).devices[NAME]["mq134-gas_concentration"]["unit_of_measurement"] == "mg/m³"


def test_ids_are_the_same_for_ever() -> None:
    message = json.loads(discovery(KITCHEN, taken(reading(WHOLE)), Topics()))
    assert message["dev"]["ids"] == ["neurogate_site-1_-default_-kitchen"]
    assert message["cmps"]["ld2410-presence"]["uniq_id"] == "site-1_-default_-kitchen.ld2410.presence"
    assert message["cmps"]["connectivity"]["uniq_id"] == "site-1_-default_-kitchen.connectivity"


def test_a_device_has_its_name_its_place_and_its_firmware() -> None:
    whose = Whose("site-1", "default", "kitchen", "Kitchen", "Ground floor")
    home = shown(taken(reading(WHOLE)), whose=whose)
    assert home.names[NAME] == {
        "identifiers": [f"neurogate_{NAME}"],
        "name": "Kitchen",
        "suggested_area": "Ground floor",
        "sw_version": "1.4.0",
    }


def test_no_two_devices_have_one_name_and_each_can_be_in_a_topic() -> None:
    parts = ["a", "a_", "_a", "a.", "a:", "a-", "a_-b", "a_d", "a_c", "a__", "a_-", "-a"]
    names = [
        object_id(gateway, organization, device) for gateway in parts for organization in parts for device in parts
    ]
    assert len(set(names)) == len(parts) ** 3
    for name in names:
        home = HomeAssistant()
        home.message(Topics().config(name), b"")  # it looks at the topic


def test_a_device_without_a_reading_is_shown_with_its_connectivity() -> None:
    assert shown(DeviceState()).states(NAME) == {"connectivity": "on"}


def test_what_is_told_of_a_whole_organisation_or_another_broker_says_so_in_its_topics() -> None:
    assert Topics(before="acme/").state("kitchen") == "acme/neurogate/devices/kitchen/state"
    external = Topics(behind="site-1/", within="acme/")
    assert (external.status, external.state("kitchen")) == (
        "neurogate/site-1/status",
        "neurogate/site-1/acme/devices/kitchen/state",
    )
    assert accepted(json.loads(discovery(KITCHEN, DeviceState(), external)))["connectivity"]["availability"] == [
        {"topic": "neurogate/site-1/status"}
    ]


@pytest.mark.parametrize(
    ("organization", "topic", "is_ours"),
    [
        ("acme", "homeassistant/status", True),
        ("acme", "homeassistant/device/x/config", True),
        ("acme", "neurogate/devices/kitchen/state", True),
        ("acme", "status", False),
        ("acme", "ha/status", False),
        ("acme", "devices/kitchen/status", False),
        ("homeassistant", "status", True),
        ("homeassistant", "device/x/config", True),
        ("homeassistant", "devices/kitchen/telemetry", False),
        ("acme", "neurogates/x", False),
    ],
)
def test_no_route_leads_to_what_is_ours(organization: str, topic: str, is_ours: bool) -> None:
    assert is_for_home_assistant(organization, topic, "homeassistant") is is_ours


def test_a_state_has_what_is_shown_and_nothing_else() -> None:
    state = taken(reading(WHOLE | {"secret": "x"} | sensors(pir={"motion_detected": True, "blob": "y" * 1000})))
    assert json.loads(state.message(is_online=True)) == {
        "availability": "online",
        "time": "2026-11-20T12:00:00.000Z",
        "sensors": {"pir": {"motion_detected": True}},
        "health": {"rssi_dbm": -61, "heap_free": 61200, "uptime_s": 86400},
    }


def test_an_entity_knows_its_values() -> None:
    number = Entity("s", "f", "F")
    assert [number.value(one) for one in (1, 1.5, True, "1", None)] == [1, 1.5, None, None, None]
