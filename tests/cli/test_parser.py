"""`neurogate parser`: what becomes of a sample, without a gateway."""

import json
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess

ROUTES = """
[[ingest.routes]]
topic = "factory/+/measurements"
parser = "custom"
[ingest.routes.mapping]
device_id = "station.id"
timestamp = "station.ts"
[ingest.routes.mapping.sensors.climate]
temperature_c = "values.t"
humidity_percent = { path = "values.rh", scale = 0.1 }
[[ingest.routes]]
topic = "$sys/version/+/devices/#"
parser = "vmark"
"""
SAMPLE = {"station": {"id": "press-4", "ts": 1_763_640_000}, "values": {"t": 21.5, "rh": 412}}
TOPIC = "factory/press/measurements"


@pytest.fixture
def site(tmp_path: Path) -> GatewayProcess:
    site = GatewayProcess(tmp_path)
    with (tmp_path / "neurogate.toml").open("a") as file:
        file.write(ROUTES)
    (tmp_path / "sample.json").write_text(json.dumps(SAMPLE))
    (tmp_path / "pack.json").write_text('[{"bn": "a:", "n": "t", "v": 1, "t": -5}, {"n": "pir", "v": 2, "t": -5}]')
    return site


@pytest.mark.parametrize("how", [("--topic", TOPIC), ("--parser", "custom"), ("--parser", "custom", "--topic", TOPIC)])
def test_a_sample_is_shown_as_it_would_be_stored(site: GatewayProcess, how: tuple[str, ...]) -> None:
    answer = site.json("parser", "test", "sample.json", *how)
    assert answer == {
        "parser": "custom",
        "readings": [
            {
                "device": "press-4",
                "time": "2025-11-20T12:00:00.000Z",
                "age_ms": None,
                "sensors": {"climate": {"temperature_c": 21.5, "humidity_percent": 41.2}},
                "hardware_ids": [],
                "serial_number": "",
                "problem": "",
                "readable": True,
            }
        ],
    }


def test_what_a_person_reads(site: GatewayProcess) -> None:
    done = site.neurogate("parser", "test", "pack.json", "--parser", "senml")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "parser    senml: 1 reading",
            "",
            "device    a",
            "time      5 s before it comes in",
            'sensor    t  {"value": 1}',
            "problem   pir: motion_detected: Field required",
        ],
    )


def test_an_item_that_cannot_be_read_names_nobody_not_even_the_sender(site: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"devices": [{"device_id": "attic", "properties": {"t": 1}}, 7]}')
    report = ("parser", "test", "report.json", "--topic", "$sys/version/1/devices/hub/properties_report")
    *shown, problem = site.neurogate(*report).stdout.splitlines()[2:]
    assert shown == [
        "device    attic",
        "time      (when it comes in)",
        'sensor    vmark  {"t": 1}',
        "",
        "device    (it names nobody)",
    ]
    assert problem.startswith("problem   What stands in devices is no object.")
    assert [one["readable"] for one in site.json(*report)["readings"]] == [True, False]
    (tmp_path / "unsaid.json").write_text('[{"n": "t", "v": 1}]')
    assert "device    (the sender)" in site.neurogate("parser", "test", "unsaid.json", "--parser", "senml").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pack.json", "--topic", TOPIC), 1, "Error: The path station.ts was not found: the message is an array of 2"),
        (("pack.json",), 1, "Error: A reading is a JSON object, not an array."),
        (("sample.json", "--parser", "senml"), 1, "Error: A SenML pack is an array of records.\nSee RFC 8428"),
        (("sample.json", "--parser", "xml"), 1, "Error: There is no parser xml.\nneurogate parser list"),
        (("sample.json", "--topic", "factory/press"), 1, "Error: No route of default matches factory/press, and"),
        (("sample.json", "--topic", "org_b/devices/x/telemetry"), 1, "Error: No route of default matches org_b"),
        (("sample.json", "--topic", "devices/x/telemetry"), 1, "Error: device_id: Field required"),
        (("none.json",), 1, "Error: none.json cannot be read: No such file"),
        (("sample.json", "--parser", "custom", "--topic", "x/y"), 78, "Error: Which mapping is meant?"),
        (("sample.json", "--topic", "$sys/version/1/devices/h/x"), 1, "Error: The parser vmark does not read $sys"),
    ],
)
def test_an_error_says_what_to_do(site: GatewayProcess, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = site.neurogate("parser", "test", *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(words)


def test_an_error_as_json_is_the_document_that_the_api_answers_with(site: GatewayProcess) -> None:
    done = site.neurogate("parser", "test", "pack.json", "--topic", TOPIC, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["parser"], answer["error"]["code"]) == ("custom", "path_not_found")
    assert answer["error"]["hint"]


def test_every_parser_is_listed_with_its_topics(site: GatewayProcess) -> None:
    listed = {one["parser"]: one["topics"] for one in site.json("parser", "list")}
    assert listed == {
        "standard": [],
        "custom": ["factory/+/measurements"],
        "senml": [],
        "vmark": ["$sys/version/+/devices/#"],
    }
    assert "RFC 8428" in site.neurogate("parser", "list").stdout


def test_a_device_is_registered_with_what_its_messages_call_it(site: GatewayProcess) -> None:
    site.json("device", "add", "attic", "--hardware-id", "AA:01", "--hardware-id", "AA:02", "--serial-number", "S1")
    shown = site.json("device", "show", "attic")
    assert (shown["hardware_ids"], shown["serial_number"]) == (["AA:01", "AA:02"], "S1")
    taken = site.neurogate("device", "add", "cellar", "--hardware-id", "AA:02")
    assert (taken.returncode, taken.stderr.splitlines()[0]) == (
        1,
        "Error: Device attic of default has this hardware id or serial number.",
    )
    assert "hardware id   AA:02" in site.neurogate("device", "show", "attic").stdout


def test_a_route_is_shown_with_where_it_came_from(site: GatewayProcess) -> None:
    shown = site.neurogate("config", "show", "--origin").stdout.splitlines()
    routes = [line for line in shown if line.startswith("ingest.routes")]
    assert len(routes) == 9
    assert all("neurogate.toml" in line for line in routes)
