"""A mapping makes readings of whatever JSON a device sends, or says which path was not found."""

import json
from typing import Any

import pytest

from gateway.config.routes import Mapping
from gateway.model.errors import BadInput
from gateway.parsers.contract import Found
from gateway.parsers.custom import custom

TOPIC = "factory/press-4/measurements"
MESSAGE: dict[str, Any] = {
    "station": {"id": "press-4", "ts": 1_763_640_000, "boot": "b1", "n": 7, "fw": "2.1"},
    "values": {"t": 21.5, "rh": 412, "ok": True, "none": None, "text": "12", "huge": 10**400},
    "rows": [{"id": 1, "t": 5}, {"id": 2, "t": 6}],
}


def parsed(mapping: dict[str, Any], message: Any = MESSAGE) -> list[Found]:
    return list(custom(Mapping.model_validate(mapping)).parse(json.dumps(message).encode(), TOPIC))


def refused(mapping: dict[str, Any], message: Any = MESSAGE) -> BadInput:
    with pytest.raises(BadInput) as raised:
        parsed(mapping, message)
    return raised.value


def climate(**fields: Any) -> dict[str, Any]:
    return {"sensors": {"climate": fields}}


def test_every_field_of_a_reading_may_come_from_the_message() -> None:
    (found,) = parsed(
        {
            "device_id": "station.id",
            "timestamp": "station.ts",
            "boot_id": "station.boot",
            "seq": "station.n",
            "firmware": "station.fw",
            "sensors": {"climate": {"temperature_c": "values.t"}, "gate": {"open": "values.ok"}},
            "health": {"boot": "station.boot"},
        }
    )
    assert found.device_id == "press-4"
    assert found.fields == {
        "timestamp": 1_763_640_000,
        "boot_id": "b1",
        "seq": 7,
        "firmware": "2.1",
        "sensors": {"climate": {"temperature_c": 21.5}, "gate": {"open": True}},
        "health": {"boot": "b1"},
    }


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"path": "values.rh", "scale": 0.1}, 41.2),
        ({"path": "values.t", "scale": 1.8, "offset": 32}, 70.7),
        ({"path": "values.rh", "offset": -12}, 400.0),
        ({"value": "Cel"}, "Cel"),
        ({"value": False}, False),
        ({"topic_level": 2}, "press-4"),
        ("$.values.t", 21.5),
        ("values.text", "12"),
    ],
)
def test_a_field_may_be_scaled_constant_or_of_the_topic(source: Any, value: Any) -> None:
    (found,) = parsed(climate(x=source))
    assert found.fields["sensors"]["climate"]["x"] == value
    assert found.device_id is None


def test_each_item_of_an_array_may_be_a_reading() -> None:
    found = parsed({"each": "rows", "device_id": "id", "timestamp": "$.station.ts", **climate(t="t")})
    assert [(one.device_id, one.fields) for one in found] == [
        ("1", {"timestamp": 1_763_640_000, "sensors": {"climate": {"t": 5}}}),
        ("2", {"timestamp": 1_763_640_000, "sensors": {"climate": {"t": 6}}}),
    ]


def test_p4_an_item_that_cannot_be_read_spoils_no_other() -> None:
    rows: list[Any] = [{"id": 1, "t": 5}, {"id": 2}, 7, {"id": 3, "t": "x"}, {"id": 4, "t": 6}]
    mapping = {"each": "rows", "device_id": "id", **climate(t={"path": "t", "scale": 1})}
    found = parsed(mapping, {"rows": rows})
    assert [one.device_id for one in found if one.problem is None] == ["1", "4"]
    assert [(one.piece, one.problem.code) for one in found if one.problem is not None] == [
        (rows[1], "path_not_found"),
        (rows[2], "path_not_found"),
        (rows[3], "not_a_number"),
    ]


@pytest.mark.parametrize("path", ["values.x", "values.none", "x.y"])
def test_what_is_optional_may_be_missing_and_a_sensor_without_fields_is_none(path: str) -> None:
    missing = {"path": path, "optional": True}
    (found,) = parsed({"timestamp": missing, "sensors": {"a": {"t": "values.t", "x": missing}, "b": {"x": missing}}})
    assert found.fields == {"sensors": {"a": {"t": 21.5}}}


@pytest.mark.parametrize(
    ("mapping", "code", "words"),
    [
        (climate(x="values.co2"), "path_not_found", "values.co2 was not found: values is an object without co2"),
        (climate(x="values.none"), "path_not_found", "values.none"),
        (climate(x={"topic_level": 9}), "path_not_found", "topic_level 9 was not found"),
        (climate(x={"path": "values.text", "scale": 2}), "not_a_number", "values.text"),
        (climate(x={"path": "values.ok", "scale": 2}), "not_a_number", "values.ok"),
        (climate(x={"path": "values.huge", "scale": 2}), "not_a_number", "values.huge"),
        (climate(x="values.t") | {"device_id": "values"}, "invalid_device_id", "device id"),
        (climate(x="t") | {"each": "station"}, "no_readings", "station is no array"),
        (climate(x="t") | {"each": "lines"}, "path_not_found", "lines was not found"),
    ],
)
def test_an_error_names_the_path(mapping: dict[str, Any], code: str, words: str) -> None:
    error = refused(mapping)
    assert error.code == code
    assert words in error.message


def test_an_empty_array_and_what_is_not_json_are_errors() -> None:
    assert refused({"each": "$", **climate(x="t")}, []).code == "no_readings"
    with pytest.raises(BadInput):
        custom(Mapping.model_validate(climate(x="t"))).parse(b"{", TOPIC)
