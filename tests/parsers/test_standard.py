"""The standard payload: what is valid stays byte for byte, what is not gets a clear answer."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from gateway.model.errors import BadInput
from gateway.parsers.standard import parse_standard

GOOD: dict[str, Any] = {"device_id": "k", "sensors": {"pir": {"motion_detected": True}}}


def refused(data: bytes) -> BadInput:
    with pytest.raises(BadInput) as raised:
        parse_standard(data)
    return raised.value


def with_fields(text: str) -> bytes:
    return b'{"device_id":"k","sensors":{"pir":{"motion_detected":true}},' + text.encode() + b"}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        json.dumps(GOOD).encode() + b" x",
        with_fields('"x":"\\ud800"'),
        with_fields('"x":NaN'),
        with_fields('"x":Infinity'),
        with_fields('"health":{"x":-Infinity}'),
        with_fields('"x":' + "[" * 10_000 + "]" * 10_000),
        with_fields('"x":' + "9" * 5000),
    ],
    ids=["empty", "cut", "utf-8", "bom", "trailing", "surrogate", "nan", "infinity", "-infinity", "deep", "huge"],
)
def test_what_is_not_json_is_called_that(data: bytes) -> None:
    assert refused(data).code == "invalid_json"


@pytest.mark.parametrize("data", [b"[]", b"null", b'"text"', b"1", b"true"])
def test_a_reading_is_an_object(data: bytes) -> None:
    assert refused(data).code == "not_an_object"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"device_id": None}, "device_id"),
        ({"device_id": 5}, "device_id"),
        ({"device_id": ""}, "device_id"),
        ({"device_id": "x" * 101}, "device_id"),
        ({"sensors": {}}, "sensors"),
        ({"sensors": []}, "sensors"),
        ({"sensors": None}, "sensors"),
        ({"seq": -1}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"seq": "1"}, "seq"),
        ({"seq": 2**63}, "seq"),
        ({"boot_id": 7}, "boot_id"),
        ({"boot_id": "x" * 65}, "boot_id"),
        ({"timestamp": True}, "timestamp"),
        ({"age_ms": True}, "age_ms"),
        ({"health": 1}, "health"),
        ({"firmware": 1}, "firmware"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], says: str) -> None:
    error = refused(json.dumps(GOOD | fields).encode())
    assert error.code == "invalid_reading"
    assert says in error.message
    assert error.hint


@pytest.mark.parametrize(
    "sensors",
    [
        {"pir": {"motion_detected": 1}},
        {"pir": None},
        {"ld2410": {"presence": "yes"}},
        {"mq134": {"gas_concentration": True}},
        {"mq134": {"gas_concentration": "12"}},
        {"mq134": {}},
    ],
)
def test_without_a_valid_sensor_there_is_no_reading(sensors: dict[str, Any]) -> None:
    assert refused(json.dumps(GOOD | {"sensors": sensors}).encode()).code == "invalid_sensors"


def test_one_bad_sensor_of_three_does_not_spoil_the_others() -> None:
    sensors = {"pir": {"motion_detected": True}, "ld2410": {"presence": 3}, "co2": {"ppm": 400}}
    data = json.dumps(GOOD | {"sensors": sensors}).encode()
    parsed = parse_standard(data)
    assert list(from_json(parsed.payload)["sensors"]) == ["pir", "co2"]
    assert [bad.name for bad in parsed.bad_sensors] == ["ld2410"]
    assert parsed.raw == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"device_id":"k","sensors":{"co2":{"ppm":1e999}}}',
        b'{"device_id":"k","sensors":{"pir":{"motion_detected":true,"x":-1e999}}}',
        with_fields('"health":{"x":1e999}'),
        with_fields('"x":[1e999]'),
        with_fields('"timestamp":1e999'),
    ],
)
def test_a_number_that_becomes_an_infinity_is_refused_wherever_it_stands(data: bytes) -> None:
    """It would go out as `Infinity` or null: no receiver could read what the board sent."""
    refused(data)


def test_of_equal_keys_the_one_that_is_checked_is_the_one_that_is_read() -> None:
    data = b'{"device_id":"v","device_id":"k","sensors":{"pir":{"motion_detected":3},"pir":{"motion_detected":true}}}'
    assert parse_standard(data).body == from_json(data) == GOOD


@given(st.binary())
def test_no_bytes_raise_anything_but_bad_input(data: bytes) -> None:
    with suppress(BadInput):
        parse_standard(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = st.sampled_from(["device_id", "sensors", "timestamp", "age_ms", "boot_id", "seq", "firmware", "health", "x"])
SENSORS = st.dictionaries(st.sampled_from(["pir", "ld2410", "mq134", "co2"]), JSON, min_size=1)


@given(st.dictionaries(FIELDS, JSON | SENSORS | st.just(GOOD["sensors"]) | st.just("k")))
def test_no_json_raises_anything_but_bad_input_and_what_is_valid_stays_as_it_came(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    try:
        parsed = parse_standard(data)
    except BadInput:
        return
    assert (parsed.raw if parsed.bad_sensors else parsed.payload) == data
    from_json(parsed.payload, allow_inf_nan=False)
