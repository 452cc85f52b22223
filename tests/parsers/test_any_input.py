"""Whatever comes in, a parser finds readings or says that it cannot; what it takes can be stored and read again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from gateway.config.routes import Mapping
from gateway.model.errors import BadInput
from gateway.parsers.contract import Parser, in_standard_shape
from gateway.parsers.custom import custom
from gateway.parsers.routes import PARSERS
from gateway.parsers.senml import parse_senml
from gateway.parsers.vmark import parse_vmark

TOPIC = "$sys/version/1.0/devices/hub1/properties_report"
MAPPED = custom(
    Mapping.model_validate(
        {
            "device_id": {"path": "id", "optional": True},
            "timestamp": {"path": "t", "optional": True},
            "sensors": {"pir": {"motion_detected": "v"}, "x": {"y": {"path": "v", "scale": 0.1, "optional": True}}},
        }
    )
)
EACH = pytest.mark.parametrize("parser", [*PARSERS.values(), MAPPED], ids=lambda parser: parser.name)

SENML = ["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut", "must_"]
VMARK = ["devices", "hardware_ids", "serial_number", "properties", "params", "timestamp"]
KEYS = st.sampled_from([*SENML, *VMARK, "device_id", "sensors", "pir", "id"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=6),
)
LIKELY = st.dictionaries(KEYS, VALUES, max_size=8)


def check(parser: Parser, data: bytes) -> None:
    try:
        found = parser.parse(data, TOPIC)
    except BadInput as error:
        str(error).encode()  # it is shown, and stored
        return
    assert found
    for one in found:
        try:
            parsed = in_standard_shape(one, "kitchen")
        except BadInput:
            continue
        body = from_json(parsed.payload, allow_inf_nan=False)
        assert body == parsed.body
        assert body["device_id"] == "kitchen"
        assert body["sensors"]


@EACH
@given(data=st.binary() | st.text().map(str.encode))
def test_any_bytes(parser: Parser, data: bytes) -> None:
    check(parser, data)


@EACH
@given(value=VALUES | LIKELY | st.lists(LIKELY, max_size=4))
def test_any_json(parser: Parser, value: Any) -> None:
    check(parser, json.dumps(value).encode())


NAMES = st.text("abcXYZ019", min_size=1, max_size=8)
NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(NAMES, NUMBERS, st.integers(-100, 0)), min_size=1, max_size=20))
def test_no_measurement_of_a_senml_pack_is_lost_or_invented(records: list[tuple[str, float, int]]) -> None:
    pack = [{"n": name, "v": value, "t": time} for name, value, time in records]
    pack[0] |= {"bn": "dev:", "bt": 0}
    found = [
        (sensor, fields["value"], -one.fields.get("age_ms", 0) / 1000)
        for one in parse_senml(json.dumps(pack).encode(), "")
        for sensor, fields in one.fields["sensors"].items()
    ]
    assert sorted(found) == sorted(records)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, NUMBERS, min_size=1), min_size=1, max_size=5))
def test_every_property_of_a_vmark_report_is_there(devices: dict[str, dict[str, float]]) -> None:
    report = {"devices": [{"hardware_ids": [name], "properties": values} for name, values in devices.items()]}
    found = parse_vmark(json.dumps(report).encode(), TOPIC)
    assert {one.device_id: one.fields["sensors"]["vmark"] for one in found} == devices


@given(st.lists(st.tuples(NAMES, NUMBERS), min_size=1, max_size=20))
def test_each_item_of_a_custom_message_becomes_its_reading(rows: list[tuple[str, float]]) -> None:
    mapping = Mapping.model_validate({"each": "$.rows", "device_id": "id", "sensors": {"x": {"v": "v"}}})
    message = {"rows": [{"id": name, "v": value} for name, value in rows]}
    found = custom(mapping).parse(json.dumps(message).encode(), "")
    assert [(one.device_id, one.fields["sensors"]["x"]["v"]) for one in found] == rows
