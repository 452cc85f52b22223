"""What a template makes of readings, and what it refuses when the configuration is loaded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cloud_sync.contract import Batch
from cloud_sync.payload.readings_batch import wire_readings
from cloud_sync.payload.template import BATCH_FIELDS, READING_FIELDS, PayloadTemplate, Template
from tests.cloud_sync.samples import NOW_MS, batch, stored

BODY = {
    "sensors": {"pir": {"motion_detected": True, "pulses": 2}, "gates": {"energy": [7, 8.5]}},
    "firmware": "1.4.0",
    "battery": {"mv": 3100},
}


def made(template: object, *bodies: dict[str, Any]) -> Any:
    readings = [stored(row, body) for row, body in enumerate(bodies or (BODY,), 1)]
    return json.loads(Template(template).encode(Batch("msg_1", readings, "site-1", "log-1")))


def each(template: object, **fields: object) -> Any:
    return made({"$each_reading": template}, BODY | fields)[0]


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("{{device_id}}", "esp32-kitchen"),
        ("{{ device_id }}", "esp32-kitchen"),
        ("{{seq}}", 1),
        ("{{late}}", False),
        ("{{sensors.pir.motion_detected}}", True),
        ("{{sensors.pir}}", {"motion_detected": True, "pulses": 2}),
        ("{{sensors.gates.energy}}", [7, 8.5]),
        ("{{sensors.gates.energy.1}}", 8.5),
        ("{{sensors.gates.energy.2}}", None),
        ("{{sensors.gates.energy.x}}", None),
        ("{{sensors.mq134.ppm}}", None),
        ("{{device_id.x}}", None),
        ("{{device_metadata.location}}", "kitchen"),
        ("{{firmware}}", "1.4.0"),
        ("{{reading.battery.mv}}", 3100),
        ("{{gateway_id}}", "site-1"),
        ("{{batch_id}}", "msg_1"),
        ("motion in {{device_metadata.location}}: {{sensors.pir.motion_detected}}", "motion in kitchen: true"),
        ("{{seq}}{{seq}}", "11"),
        ("[{{sensors.mq134.ppm}}]", "[]"),
        ("{{sensors.pir}}!", '{"motion_detected":true,"pulses":2}!'),
        ("plain {a} {b: {c}}", "plain {a} {b: {c}}"),
        (5, 5),
        (None, None),
        ([1.5, "{{seq}}"], [1.5, 1]),
        ({"a": {"b": ["{{seq}}"]}}, {"a": {"b": [1]}}),
        ({"{{device_id}}-{{seq}}": "{{seq}}"}, {"esp32-kitchen-1": 1}),
        ("{{time_ms}}", NOW_MS),
        ("{{values}}", {"pir.motion_detected": True, "pir.pulses": 2, "gates.energy": [7, 8.5]}),
    ],
)
def test_a_reference_becomes_the_value_with_its_type_or_a_part_of_a_text(reference: object, value: object) -> None:
    filled = each(reference)
    assert filled == value
    assert type(filled) is type(value)


def test_a_template_repeats_for_each_reading_wherever_that_stands() -> None:
    template = {"from": "{{gateway_id}}", "n": "{{count}}", "x": [{"$each_reading": ["{{seq}}"]}, "{{batch_id}}", 1]}
    assert made(template, BODY, BODY) == {"from": "site-1", "n": 2, "x": [[[1], [2]], "msg_1", 1]}
    assert made({"$each_reading": "{{seq}}"}, BODY, BODY, BODY) == [1, 2, 3]
    assert not Template(template).is_for_one_reading


def test_without_it_a_request_carries_one_reading() -> None:
    assert made({"id": "{{id}}", "n": "{{seq}}"}) == {"id": "site-1:log-1:1", "n": 1}
    assert Template('"{{reading}}"').is_for_one_reading


def test_the_template_may_be_json_in_a_text() -> None:
    assert made('{"seq": "{{seq}}", "unit": "°C"}') == {"seq": 1, "unit": "°C"}


def test_the_same_batch_gives_the_same_bytes() -> None:
    template = {"b": 1, "a": {"$each_reading": {"z": "{{reading}}", "y": "{{sensors}}"}}}
    assert Template(template).encode(batch()) == Template(template).encode(batch())
    assert Template(template).encode(batch()).startswith(b'{"b":1,"a":[{"z":')


def test_what_a_device_calls_its_fields_changes_no_other() -> None:
    assert each(["{{gateway_id}}", "{{batch_id}}"], gateway_id="evil", batch_id="evil") == ["site-1", "msg_1"]
    assert each("{{reading.reading}}", reading="x") == "x"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_p4_whatever_a_device_sent_can_be_filled_in(value: Any) -> None:
    body = {"sensors": {"a": value}, "firmware": value}
    expected = json.loads(json.dumps(value))
    assert each(["{{sensors.a}}", "{{firmware}}"], **body) == [expected, expected]
    assert isinstance(each("{{sensors.a}}, {{sensors.a.b.0}}", **body), str)


def test_p4_values_are_data_and_are_not_filled_in_again() -> None:
    assert each("{{firmware}}", firmware="{{seq}}") == "{{seq}}"
    assert each("<{{firmware}}>", firmware='", "x": "{{seq}}') == '<", "x": "{{seq}}>'


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (["{{devce_id}}"], "{{devce_id}} is an unknown field. Did you mean device_id?"),
        ({"$each_reading": "{{xyzzy}}"}, "{{xyzzy}} is an unknown field. There are: id, organization_id,"),
        ({"$each_reading": 1, "b": 2}, '"$each_reading" stands alone in its object.'),
        ({"$each_reading": {"$each_reading": 1}}, '"$each_reading" cannot stand here'),
        ({"$each": 1}, '"$each" cannot stand here'),
        ({"a": [{"$each_reading": 1}], "$each_readings": 2}, '"$each_readings" cannot stand here'),
        ({"a": {"$each_reading": 1}, "b": "{{seq}}"}, '{{seq}} is a field of a reading: it stands inside of "$each_'),
        ({"a": {"$each_reading": 1}, "b": "{{x}}"}, "{{x}} is an unknown field. There are: gateway_id, batch_id, "),
        ({"$each_reading": "{{count}}"}, "{{count}} is an unknown field."),
        ({"{{gateway_id}}": {"$each_reading": 1}}, '"{{gateway_id}}" is a key outside of "$each_reading"'),
        ({"{{devce_id}}": 1}, "{{devce_id}} is an unknown field. Did you mean device_id?"),
        (["{{device_id"], "a text has braces that are no reference; write one as {{id}}."),
        (["{{a b}}"], "has braces that are no reference"),
        (["{{{{seq}}}}"], "has braces that are no reference"),
        (["{{}}"], "{{}} is an unknown field"),
        (["{{sensors..a}}"], "{{sensors..a}} has a dot too many."),
    ],
)  # fmt: skip
def test_a_wrong_template_says_why(template: object, complaint: str) -> None:
    for written in (template, json.dumps(template)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at
            Template(written)
        assert complaint in str(caught.value)


@pytest.mark.parametrize("text", ["", "{{device_id}}", '{"a": ', '{"a": NaN}', "{'a': 1}"])
def test_a_text_that_is_no_json_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it is not JSON: "):
        Template(text)


def test_a_setting_that_is_a_template_is_told_by_its_name_and_null_is_none() -> None:
    class Settings(BaseModel):
        body: PayloadTemplate = None

    assert (Settings(body=None).body, Settings(body={"id": "{{id}}"}).body) == (None, {"id": "{{id}}"})
    with pytest.raises(ValidationError) as raised:
        Settings(body={"id": "{{idd}}"})
    assert [one["loc"] for one in raised.value.errors()] == [("body",)]


def test_the_fields_are_those_that_destinations_see() -> None:
    (reading,) = wire_readings(Batch("msg_1", [stored(1, {"firmware": "1"})], "site-1", "log-1"))
    assert set(READING_FIELDS) == set(reading) | {"reading", "time_ms", "values", "gateway_id", "batch_id"}
    assert set(BATCH_FIELDS) - set(READING_FIELDS) == {"count"}
