"""What pipelines of Golioth hand in becomes readings: of which device, which sensor, and when."""

import json
from typing import Any

import pytest

from gateway.model.errors import BadInput
from gateway.parsers.contract import Found, in_standard_shape
from gateway.parsers.golioth import Event, is_echo, parser_of, says_when

WHO = "64f0c0ffee00000000000001"
DAY = "2022-12-08T20:45:47+00:00"
PIR = {"pir": {"motion_detected": True}}


def nobodys(_: str) -> bool:
    return False


def ours(name: str) -> bool:
    return name.startswith("site-1:log-1:")


def parsed(value: Any, path: str = ".s/sensor") -> list[Found]:
    event = Event(WHO, "our-project", f"io.golioth.data.v1/{path}")
    return list(parser_of(event, ours).parse(json.dumps(value).encode(), ""))


def sensors(value: Any, path: str = ".s/sensor") -> Any:
    (found,) = parsed(value, path)
    return found.fields["sensors"]


def test_golioths_own_example() -> None:
    """docs.golioth.io/data-routing/destinations/webhook."""
    assert parsed({"temp": 32}) == [Found({"sensors": {"sensor": {"temp": 32}}}, WHO, (WHO,))]


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ({"latitude": 37.75, "speed": 5}, ".s/position", {"position": {"latitude": 37.75, "speed": 5}}),
        ({"latitude": 37.75}, ".s/cab/position", {"cab/position": {"latitude": 37.75}}),
        ({"temp": 32, "pir": {"motion_detected": True}}, ".s", {"temp": {"value": 32}} | PIR),
        (21.5, ".s/temperature", {"temperature": {"value": 21.5}}),
        (True, ".s", {"value": {"value": True}}),
        ({"sensors": PIR}, ".s/anything", PIR),
        ({"temp": 32, "t": "warm"}, ".s/sensor", {"sensor": {"temp": 32, "t": "warm"}}),
    ],
)
def test_the_path_names_the_sensor_as_golioths_database_has_it(value: Any, path: str, expected: Any) -> None:
    assert sensors(value, path) == expected


@pytest.mark.parametrize("key", ["t", "ts", "time", "timestamp"])
@pytest.mark.parametrize("time", [1_670_532_287_544, 1_670_532_287, DAY])
def test_a_time_is_what_golioth_takes_for_one_and_leaves_the_values(key: str, time: Any) -> None:
    (found,) = parsed({"temp": 32, key: time})
    assert found.fields == {"sensors": {"sensor": {"temp": 32}}, "timestamp": time}


def test_an_array_is_a_message_each() -> None:
    found = parsed([{"ts": 1626362266059, "speed": 5}, {"ts": 1626362276059, "speed": 10}], ".s/position")
    assert [(one.fields["timestamp"], one.fields["sensors"]["position"]["speed"]) for one in found] == [
        (1626362266059, 5),
        (1626362276059, 10),
    ]


def test_what_inject_metadata_wraps_is_taken_out() -> None:
    wrapped = {"data": {"temp": 32}, "device_id": "7", "project_id": "p"}
    (found,) = parsed(wrapped | {"timestamp": {"nanos": 346519550, "seconds": 1647624308}})
    assert (found.device_id, found.hardware_ids) == ("7", ("7",))
    assert found.fields == {"sensors": {"sensor": {"temp": 32}}, "timestamp": pytest.approx(1647624308.3465)}


def test_a_reading_that_names_its_device_is_that_ones() -> None:
    (found,) = parsed({"device_id": "kitchen", "sensors": PIR, "boot_id": "b", "seq": 1})
    assert (found.device_id, found.hardware_ids) == ("kitchen", ())
    assert in_standard_shape(found, "kitchen").body["seq"] == 1


@pytest.mark.parametrize("value", [None, {}, {"ts": DAY}, []])
def test_what_is_no_measurement_is_refused_with_what_to_do(value: Any) -> None:
    with pytest.raises(BadInput) as refused:
        parsed(value)
    assert "cbor-to-json" in refused.value.hint


def test_p4_an_item_that_is_no_measurement_spoils_no_other() -> None:
    found = parsed([1, None, [2], {}, 3], ".s/speed")
    assert [one.fields["sensors"]["speed"]["value"] for one in found if one.problem is None] == [1, 3]
    assert [one.piece for one in found if one.problem is not None] == [None, [2], {}]


def test_what_is_no_json_or_too_much_is_refused() -> None:
    with pytest.raises(BadInput, match="Not JSON"):
        parser_of(Event(WHO, "", ""), nobodys).parse(b"\xa1ctemp", "")
    with pytest.raises(BadInput, match="Too many"):
        parsed([1] * 1_001)


def test_what_this_gateway_has_sent_is_known_and_left_out() -> None:
    mine: dict[str, Any] = {"id": "site-1:log-1:7", "sensors": PIR}
    wrapped = {"data": mine, "device_id": "7", "project_id": "p", "timestamp": {}}
    for echo in (mine, [mine], wrapped):
        assert is_echo(echo, ours)
    for other in ({"id": "site-2:log-1:7"}, {"id": 7}, [], [mine, {"temp": 1}], "site-1:log-1:7", None):
        assert not is_echo(other, ours)
    assert [one.fields["sensors"] for one in parsed([mine, {"temp": 1}])] == [{"sensor": {"temp": 1}}]


def test_whether_data_says_its_time() -> None:
    for timed in ({"ts": DAY}, [{"t": 1_670_532_287}], {"data": 1, "timestamp": {"seconds": 1_670_532_287}}):
        assert says_when(timed)
    for untimed in ({"temp": 32, "t": 21.5}, [{"ts": DAY}, {}], [], 5, None):
        assert not says_when(untimed)


@pytest.mark.parametrize("time", [{"seconds": 10**400, "nanos": 1}, {"seconds": 1, "nanos": 10**400}, 10**400])
def test_p4_a_number_that_is_no_time_is_a_value(time: Any) -> None:
    assert not says_when({"temp": 32, "time": time})
    (found,) = parsed({"temp": 32, "time": time})
    assert "timestamp" not in found.fields
