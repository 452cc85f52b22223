"""One pin map: the firmware's board file, the wiring, the drawings, the parts and the documents say what it says."""

import csv
import hashlib
import os
import re
import struct
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HARDWARE = ROOT / "hardware"
PINMAP: dict[str, Any] = tomllib.loads((HARDWARE / "pinmap.toml").read_text("utf-8"))
PINS: dict[str, dict[str, Any]] = {pin["name"]: pin for pin in PINMAP["pin"]}
ENCLOSURE = HARDWARE / "enclosure"
WIRING: dict[str, Any] = yaml.safe_load((HARDWARE / "wiring" / "board.yml").read_text("utf-8"))

FLASH = {6, 7, 8, 9, 10, 11}
INPUT_ONLY = {34, 35, 36, 39}
ADC1 = {32, 33, 34, 35, 36, 39}
STRAPPING = {0, 2, 5, 12, 15}


def board_file() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec((ROOT / "firmware" / "board.py").read_text("utf-8"), names)
    return names


def wires() -> dict[tuple[str, str], set[tuple[str, str]]]:
    """What each pin of a part is connected to, with the colour."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in WIRING["connections"]:
        ends = [next(iter(step.items())) for step in row]
        for (part, pins), (cable, numbers), (other, others) in [tuple(ends)]:
            colours = WIRING["cables"][cable]["colors"]
            for pin, number, far in zip(pins, numbers, others, strict=True):
                found.setdefault((part, pin), set()).add((f"{other}:{far}", colours[number - 1]))
                found.setdefault((other, far), set()).add((f"{part}:{pin}", colours[number - 1]))
    return found


def test_the_board_file_has_the_pins_of_the_map() -> None:
    board = board_file()
    assert {name: board[name.upper()] for name in PINS} == {name: pin["gpio"] for name, pin in PINS.items()}
    assert board["RADAR_UART"] == PINMAP["board"]["radar_uart"]
    assert board["NAME"] == PINMAP["board"]["name"]
    divider = PINMAP["divider"]
    assert (board["DIVIDER_TOP_OHM"], board["DIVIDER_BOTTOM_OHM"]) == (divider["top_ohm"], divider["bottom_ohm"])


def test_every_pin_can_do_what_it_is_used_for() -> None:
    gpios = [pin["gpio"] for pin in PINS.values()]
    assert len(set(gpios)) == len(gpios)
    assert not FLASH & set(gpios)
    assert all(pin["direction"] == "in" for pin in PINS.values() if pin["gpio"] in INPUT_ONLY)
    assert PINS["gas"]["gpio"] in ADC1
    assert {name for name, pin in PINS.items() if pin["gpio"] in STRAPPING} == {"led", "button"}


def test_the_divider_keeps_the_converter_within_its_range() -> None:
    divider = PINMAP["divider"]
    share = divider["bottom_ohm"] / (divider["top_ohm"] + divider["bottom_ohm"])
    assert PINMAP["board"]["supply_mv"] * share <= divider["adc_max_mv"]
    assert f"AOUT * {share:.3f}" in (HARDWARE / "assembly.md").read_text("utf-8")


def test_the_wires_are_those_of_the_map() -> None:
    connected = wires()
    far_end = {
        "radar_rx": "RADAR:TX",
        "radar_tx": "RADAR:RX",
        "radar_out": "RADAR:OUT",
        "pir": "PIR:OUT",
        "gas": "DIVIDER:MID",
    }
    for name, far in far_end.items():
        assert connected["ESP32", f"GPIO{PINS[name]['gpio']}"] == {(far, PINS[name]["colour"])}
    labels = {label for label in WIRING["connectors"]["ESP32"]["pinlabels"] if label.startswith("GPIO")}
    assert labels == {f"GPIO{PINS[name]['gpio']}" for name in far_end}


def test_every_part_is_supplied_and_the_divider_lies_between() -> None:
    connected = wires()
    for part in ("RADAR", "PIR", "GAS"):
        assert connected[part, "VCC"] == {("ESP32:5V", "RD")}
        assert connected[part, "GND"] == {("ESP32:GND", "BK")}
    assert connected["DIVIDER", "GND"] == {("ESP32:GND", "BK")}
    assert {far for far, _ in connected["GAS", "AOUT"]} == {"DIVIDER:IN"}
    for part, connector in WIRING["connectors"].items():
        assert {(part, label) for label in connector["pinlabels"]} <= set(connected), f"{part} has a loose pin"


def test_the_drawings_are_those_of_the_sources(tmp_path: Path) -> None:
    (tmp_path / "board.yml").write_text((HARDWARE / "wiring" / "board.yml").read_text("utf-8"), "utf-8")
    wireviz = Path(sys.executable).with_name("wireviz")
    any_locale = os.environ | {"PYTHONUTF8": "1"}
    draw = [str(wireviz), "-f", "s", "board.yml"]
    subprocess.run(draw, cwd=tmp_path, env=any_locale, check=True, capture_output=True, timeout=60)
    assert texts(tmp_path / "board.svg") == texts(HARDWARE / "wiring" / "board.svg")
    (tmp_path / "wiring").mkdir()
    (tmp_path / "pinmap.toml").write_text((HARDWARE / "pinmap.toml").read_text("utf-8"), "utf-8")
    (tmp_path / "wiring" / "divider.py").write_text((HARDWARE / "wiring" / "divider.py").read_text("utf-8"), "utf-8")
    subprocess.run([sys.executable, tmp_path / "wiring" / "divider.py"], check=True, timeout=60)
    assert texts(tmp_path / "wiring" / "divider.svg") == texts(HARDWARE / "wiring" / "divider.svg")


def texts(svg: Path) -> list[str]:
    """What is written in a drawing; where it stands differs between versions of the tools."""
    return sorted(re.sub(r"\s+", " ", text).strip() for text in re.findall(r">([^<>]+)<", svg.read_text("utf-8")))


def test_the_table_of_the_readme_is_the_map() -> None:
    readme = (HARDWARE / "README.md").read_text("utf-8")
    for pin in PINS.values():
        assert f"| {pin['name']} | {pin['gpio']} | {pin['direction']} | {pin['wire']} | {pin['why']} |" in readme
    assert len(re.findall(r"^\| \w+ \| \d+ \|", readme, re.MULTILINE)) == len(PINS)


def test_the_parts_are_those_that_are_wired() -> None:
    with (HARDWARE / "bom.csv").open(encoding="utf-8", newline="") as file:
        parts = {row["ref"]: row for row in csv.DictReader(file, strict=True)}
    refs = list(parts)
    assert len(refs) == len(set(refs))
    assert all(float(row["price_eur"]) > 0 and int(row["quantity"]) > 0 for row in parts.values())
    divider = PINMAP["divider"]
    assert parts["R1"]["part"].startswith(f"{divider['top_ohm'] / 1000:g} kΩ")
    assert parts["R2"]["part"].startswith(f"{divider['bottom_ohm'] / 1000:g} kΩ")
    assert parts["C1"]["part"].startswith(f"{divider['filter_nf']} nF")
    for connector, ref in {"RADAR": "A2", "PIR": "A3", "GAS": "A4"}.items():
        assert parts[ref]["part"].startswith(WIRING["connectors"][connector]["type"][:6])


@pytest.mark.parametrize("part", ["box", "lid"])
def test_the_enclosure_is_of_its_source_and_a_solid_that_can_be_printed(part: str) -> None:
    """Of the mesh: OpenSCAD itself would bring a quarter of a gigabyte of packages to the tests."""
    mesh = (ENCLOSURE / f"{part}.stl").read_bytes()
    source = hashlib.sha256((ENCLOSURE / "enclosure.scad").read_bytes()).hexdigest()
    assert mesh[:80].startswith(f"enclosure.scad {source}".encode()), "run hardware/enclosure/render"
    triangles = [values[3:12] for values in struct.iter_unpack("<12fH", mesh[84:])]
    assert len(triangles) == int.from_bytes(mesh[80:84], "little") > 100
    corners = [(one[:3], one[3:6], one[6:]) for one in triangles]
    edges = Counter(edge for a, b, c in corners for edge in ((a, b), (b, c), (c, a)))
    assert set(edges.values()) == {1}, "a face lies there twice"
    assert all((end, start) in edges for start, end in edges), "it has a hole"
    volume = sum(float(dot(a, cross(b, c))) for a, b, c in corners) / 6
    assert 5_000 < volume < 60_000, "cubic millimetres of plastic; less than none if it is inside out"


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def cross(one: Sequence[float], other: Sequence[float]) -> Sequence[float]:
    (a, b, c), (x, y, z) = one, other
    return b * z - c * y, c * x - a * z, a * y - b * x


def test_links_lead_somewhere() -> None:
    for document in ("README.md", "assembly.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (HARDWARE / document).read_text("utf-8")):
            if not link.startswith("http"):
                assert (HARDWARE / link).exists(), link


def test_test_steps_are_numbered_through() -> None:
    steps = [
        int(step) for step in re.findall(r"^\| (\d+) \|", (HARDWARE / "assembly.md").read_text("utf-8"), re.MULTILINE)
    ]
    assert all(after == before + 1 for before, after in pairwise(steps))
