"""SenML packs as RFC 8428 has them: resolved, grouped into readings, refused where the RFC says so."""

import json
from typing import Any

import pytest

from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, in_standard_shape
from gateway.parsers.senml import parse_senml

DEVICE = "urn:dev:ow:10e2073a01080063"


def parsed(*records: dict[str, Any]) -> list[Found]:
    return parse_senml(json.dumps(records).encode(), "")


def shown(*records: dict[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    return [(one.device_id, one.fields) for one in parsed(*records)]


def test_a_single_datapoint() -> None:
    """RFC 8428, 5.1.1."""
    assert shown({"n": DEVICE, "u": "Cel", "v": 23.1}) == [
        (DEVICE, {"sensors": {"value": {"value": 23.1, "unit": "Cel"}}})
    ]


def test_several_datapoints_of_one_time_are_one_reading() -> None:
    """RFC 8428, 5.1.2, the first example."""
    assert shown({"bn": f"{DEVICE}:", "n": "voltage", "u": "V", "v": 120.1}, {"n": "current", "u": "A", "v": 1.2}) == [
        (DEVICE, {"sensors": {"voltage": {"value": 120.1, "unit": "V"}, "current": {"value": 1.2, "unit": "A"}}})
    ]


def test_base_time_version_and_unit_hold_for_those_that_follow() -> None:
    """RFC 8428, 5.1.2, the second example, shortened."""
    pack = [
        {"bn": f"{DEVICE}:", "bt": 1.763640000001e9, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
        {"n": "current", "v": 1.7},
    ]
    now = 1.763640000001e9
    assert shown(*pack) == [
        (
            DEVICE,
            {
                "timestamp": now,
                "sensors": {"voltage": {"value": 120.1, "unit": "V"}, "current": {"value": 1.7, "unit": "A"}},
            },
        ),
        (DEVICE, {"timestamp": now - 5, "sensors": {"current": {"value": 1.2, "unit": "A"}}}),
        (DEVICE, {"timestamp": now - 4, "sensors": {"current": {"value": 1.3, "unit": "A"}}}),
    ]


def test_several_devices_are_several_readings() -> None:
    """RFC 8428, 5.1.3 has such a pack: a base name holds until the next one."""
    pack = [{"bn": "a:", "n": "t", "v": 1}, {"n": "h", "v": 2}, {"bn": "b/", "n": "t", "v": 3}]
    assert [(name, list(fields["sensors"])) for name, fields in shown(*pack)] == [("a", ["t", "h"]), ("b", ["t"])]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"vs": "open"}, {"value": "open"}),
        ({"vb": True}, {"value": True}),
        ({"vd": "aGkg"}, {"value": "aGkg"}),
        ({"s": 12.5}, {"sum": 12.5}),
        ({"v": 0, "s": 0, "ut": 60}, {"value": 0, "sum": 0, "update_time_s": 60}),
        ({"bv": 20, "v": 1.5}, {"value": 21.5}),
        ({"bv": 20}, {"value": 20}),
        ({"bs": 100, "s": 5, "v": 1}, {"value": 1, "sum": 105}),
        ({"bv": 20, "vs": "x"}, {"value": "x"}),
        ({"v": 1, "unknown": {"x": 1}}, {"value": 1}),
    ],
)
def test_every_kind_of_value(record: dict[str, Any], fields: dict[str, Any]) -> None:
    ((_, reading),) = shown({"n": "x"} | record)
    assert reading["sensors"] == {"x": fields}


@pytest.mark.parametrize(
    ("base", "name", "device", "sensor"),
    [
        ("kitchen/", "t", "kitchen", "t"),
        ("kitchen", "", "kitchen", "value"),
        ("urn:dev:mac:0024befffe804ff1_", "t", "urn:dev:mac:0024befffe804ff1", "t"),
        ("", "urn:dev:ow:10e2_t", "urn:dev:ow:10e2", "t"),
        ("", "t", None, "t"),
    ],
)
def test_a_name_tells_device_and_sensor(base: str, name: str, device: str | None, sensor: str) -> None:
    (found,) = parsed({"bn": base, "n": name, "v": 1})
    assert (found.device_id, list(found.fields["sensors"])) == (device, [sensor])


def test_a_slash_names_a_field_so_that_our_own_sensors_can_be_told() -> None:
    (found,) = parsed(
        {"n": "pir/motion_detected", "vb": True}, {"n": "pir/pulses", "v": 2}, {"n": "a/b/c", "v": 1, "u": "m"}
    )
    parsed_found = in_standard_shape(found, "kitchen")
    assert parsed_found.bad_sensors == ()
    assert parsed_found.body["sensors"] == {
        "pir": {"motion_detected": True, "pulses": 2},
        "a/b": {"c": 1, "c_unit": "m"},
    }


@pytest.mark.parametrize(
    ("time", "fields"),
    [
        ({}, {}),
        ({"t": 0}, {}),
        ({"t": -60}, {"age_ms": 60_000}),
        ({"bt": -60, "t": 0.5}, {"age_ms": 59_500}),
        ({"t": 2**28 - 1}, {}),
        ({"t": 2**28}, {"timestamp": 2**28}),
        ({"bt": 1_763_640_000, "t": -5}, {"timestamp": 1_763_639_995}),
    ],
)
def test_a_small_time_is_relative(time: dict[str, float], fields: dict[str, float]) -> None:
    ((_, reading),) = shown({"n": "x", "v": 1} | time)
    del reading["sensors"]
    assert reading == fields


def test_the_same_name_and_time_twice_loses_nothing() -> None:
    assert [fields["sensors"]["t"]["value"] for _, fields in shown({"n": "t", "v": 1}, {"n": "t", "v": 2})] == [1, 2]


def test_a_record_of_bases_only_measures_nothing() -> None:
    assert len(parsed({"bn": "a:", "bt": -1}, {"n": "t", "v": 1})) == 1


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        ({}, "array"),
        ([], "no measurement"),
        ([{"bn": "a:"}], "no measurement"),
        ([1], "Record 0 is no object"),
        ([{"n": "x", "v": 1}, {"n": "y", "v": 1, "must_": 1}], "Record 1 has the label 'must_'"),
        ([{"n": "x", "v": "1"}], "v must be a number"),
        ([{"n": "x", "v": True}], "v must be a number"),
        ([{"n": 5, "v": 1}], "n must be a text"),
        ([{"n": "x", "vb": 1}], "vb must be true or false"),
        ([{"n": "x", "v": 1, "bver": 1.5}], "bver must be a whole number"),
        ([{"n": "x", "v": 1, "bver": 11}], "newer than 10"),
        ([{"n": "x", "v": 1, "vs": "1"}], "several values"),
        ([{"n": "x"}], "neither a value nor a sum"),
        ([{"v": 1}], "no name"),
        ([{"n": "ä", "v": 1}], "the name"),
        ([{"n": ":x", "v": 1}], "the name"),
        ([{"n": "x", "bv": 1e308, "v": 1e308}], "too large"),
        ([{"n": "x", "bv": 1.5, "v": 10**400}], "too large"),
        ([{"n": "x", "v": 1, "t": 1e308, "bt": 1e308}], "too large"),
    ],
)
def test_what_the_rfc_forbids_is_refused(pack: Any, words: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_senml(json.dumps(pack).encode(), "")
    assert raised.value.code == "invalid_senml"
    assert words in raised.value.message
