"""What a V-Mark hub reports, and what it is answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import BadInput
from gateway.model.topics import matches
from gateway.parsers.contract import Found
from gateway.parsers.vmark import VMARK, parse_vmark

VECTORS = json.loads((Path(__file__).parent / "vmark.json").read_text("utf-8"))
TOPIC: str = VECTORS["example_topic"]


def parsed(report: Any, topic: str = TOPIC) -> list[Found]:
    return parse_vmark(json.dumps(report).encode(), topic)


def test_the_vectors_hold() -> None:
    reply = VMARK.reply(TOPIC)
    assert reply is not None
    assert (reply.topic, json.loads(reply.payload)) == (VECTORS["ack_topic"], VECTORS["ack_payload"])
    assert matches(TOPIC, VECTORS["subscribe"])
    assert matches(reply.topic, VECTORS["subscribe"])
    assert not matches(TOPIC, "#")
    assert VMARK.reads(TOPIC)
    assert VMARK.ignores(reply.topic)
    assert not VMARK.reads(reply.topic)
    assert VMARK.reply(reply.topic) is None


@pytest.mark.parametrize(
    "topic", ["$sys/version/1.0/devices/hub1/status", "$sys/version/1.0/devices/hub1", "devices/hub1/properties_report"]
)
def test_other_topics_are_none_of_its_business(topic: str) -> None:
    assert not VMARK.reads(topic)
    assert not VMARK.ignores(topic)
    assert VMARK.reply(topic) is None


@pytest.mark.parametrize(
    ("report", "sensors"),
    [
        ({"properties": {"t": 21.5, "h": 40}}, {"vmark": {"t": 21.5, "h": 40}}),
        ({"params": {"t": 21.5}}, {"vmark": {"t": 21.5}}),
        ({"t": 21.5, "time": 5}, {"vmark": {"t": 21.5}}),
        (
            {"properties": {"climate": {"t": 1}, "door": "open", "vmark": {"x": 1}}},
            {"climate": {"t": 1}, "vmark": {"x": 1, "door": "open"}},
        ),
    ],
)
def test_the_properties_become_sensors(report: dict[str, Any], sensors: dict[str, Any]) -> None:
    (found,) = parsed(report)
    assert found.fields["sensors"] == sensors
    assert found.device_id == "hub1"


@pytest.mark.parametrize(
    ("names", "device_id", "hardware_ids", "serial"),
    [
        ({}, "hub1", (), ""),
        ({"hardware_ids": ["AA:01", "BB"], "serial_number": 7}, "AA:01", ("AA:01", "BB"), "7"),
        ({"hardware_id": "AA:01"}, "AA:01", ("AA:01",), ""),
        ({"serial_number": "S1"}, "S1", (), "S1"),
        ({"device_id": "door", "hardware_ids": ["AA"]}, "door", ("AA",), ""),
        ({"hardware_ids": [None, True, ""], "serial_number": None}, "hub1", (), ""),
    ],
)
def test_what_a_device_is_called(names: dict[str, Any], device_id: str, hardware_ids: Any, serial: str) -> None:
    (found,) = parsed(names | {"properties": {"t": 1}})
    assert (found.device_id, found.hardware_ids, found.serial_number) == (device_id, hardware_ids, serial)


def test_a_report_may_be_about_several_devices_and_times() -> None:
    found = parsed(
        {
            "time": 1_763_640_000,
            "devices": [
                {"hardware_ids": ["A"], "properties": {"t": 1}},
                {"hardware_ids": ["B"], "t": 2, "timestamp": "2025-11-20T12:00:01Z"},
            ],
        }
    )
    assert [(one.device_id, one.fields["timestamp"]) for one in found] == [
        ("A", 1_763_640_000),
        ("B", "2025-11-20T12:00:01Z"),
    ]


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ([], "object"),
        ({}, "no properties"),
        ({"properties": {}}, "no properties"),
        ({"devices": []}, "devices"),
        ({"devices": 1}, "devices"),
        ({"hardware_ids": ["x"] * 21, "t": 1}, "21 hardware_ids"),
    ],
)
def test_what_is_no_report_is_refused(report: Any, words: str) -> None:
    with pytest.raises(BadInput) as raised:
        parsed(report)
    assert words in raised.value.message


def test_p4_a_device_of_which_nothing_can_be_read_spoils_no_other() -> None:
    wrong: list[Any] = [1, {"hardware_ids": ["C"]}, {"hardware_ids": ["x"] * 21, "t": 1}]
    found = parsed({"devices": [{"hardware_ids": ["A"], "t": 1}, *wrong, {"hardware_ids": ["B"], "t": 2}]})
    assert [one.device_id for one in found if one.problem is None] == ["A", "B"]
    assert [(one.piece, one.problem.code) for one in found if one.problem is not None] == [
        (device, "invalid_vmark") for device in wrong
    ]
