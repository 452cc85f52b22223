"""The radar's frames: what they say, and that nothing on the line makes the reader miss a good one."""

import contextlib
import importlib.util
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aio_ld2410.protocol import Report as OracleReport
from aio_ld2410.protocol import ReportFrame
from hypothesis import given
from hypothesis import strategies as st

from gateway.parsers import ld2410
from gateway.parsers.ld2410 import FrameReader, Report

HERE = Path(__file__).parent
VECTORS: list[dict[str, Any]] = json.loads((HERE / "ld2410_reports.json").read_text())
FRAMES = [bytes.fromhex(vector["hex"]) for vector in VECTORS]
HEADER = b"\xf4\xf3\xf2\xf1"

good_frames = st.sampled_from(FRAMES)
flawed_frames = st.builds(
    lambda frame, at, new: frame[: at % len(frame)] + new + frame[at % len(frame) + 1 :],
    good_frames,
    st.integers(0, 100),
    st.binary(max_size=2),
)
pieces_of_a_line = st.one_of(
    good_frames,
    flawed_frames,
    st.binary(max_size=50),
    st.sampled_from([HEADER, HEADER[:2], HEADER + b"\x23\x00\x01\xaa", HEADER + b"\x0d\x00", b"\xf8\xf7\xf6\xf5"]),
)


def as_dict(report: Report) -> dict[str, Any]:
    told = {name: value for name, value in vars(report).items() if name not in {"moving", "stationary"}}
    return {name: list(value) if isinstance(value, bytes) else value for name, value in told.items()}


def read(*pieces: bytes) -> list[dict[str, Any]]:
    reader = FrameReader()
    return [as_dict(report) for piece in pieces for report in reader.feed(piece)]


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{index}" for index, _ in enumerate(VECTORS)])
def test_what_a_report_says(vector: dict[str, Any]) -> None:
    assert read(bytes.fromhex(vector["hex"])) == [vector["report"]]


@given(
    state=st.integers(0, 6),
    numbers=st.tuples(*[st.integers(0, 0xFFFF)] * 3),
    energies=st.lists(st.integers(0, 100), min_size=22, max_size=22),
    engineering=st.booleans(),
    gates=st.tuples(st.integers(2, 8), st.integers(2, 8)),
)
def test_a_report_says_what_the_independent_reader_says(
    state: int, numbers: tuple[int, int, int], energies: list[int], engineering: bool, gates: tuple[int, int]
) -> None:
    value = {
        "type": 1 if engineering else 2,
        "data": {
            "basic": {
                "target_status": state,
                "moving_distance": numbers[0],
                "moving_energy": energies[0],
                "static_distance": numbers[1],
                "static_energy": energies[1],
                "detection_distance": numbers[2],
            },
            "engineering": {
                "moving_max_distance_gate": gates[0],
                "static_max_distance_gate": gates[1],
                "moving_gate_energy": energies[2 : 3 + gates[0]],
                "static_gate_energy": energies[11 : 12 + gates[1]],
                "photosensitive_value": energies[20],
                "out_pin_status": 1,
            },
        },
    }
    frame = ReportFrame.build({"data": OracleReport.build(value)})
    (report,) = FrameReader().feed(frame)
    said = OracleReport.parse(ReportFrame.parse(frame).data).data
    assert report.state == int(said.basic.target_status)
    assert report.moving_distance_cm == said.basic.moving_distance
    assert report.moving_energy == said.basic.moving_energy
    assert report.stationary_distance_cm == said.basic.static_distance
    assert report.stationary_energy == said.basic.static_energy
    assert report.detection_distance_cm == said.basic.detection_distance
    if engineering:
        assert list(report.moving_gates) == said.engineering.moving_gate_energy
        assert list(report.stationary_gates) == said.engineering.static_gate_energy
        assert report.light == said.engineering.photosensitive_value
        assert report.out == 1


@given(st.lists(st.tuples(pieces_of_a_line, st.booleans())), st.data())
def test_however_the_bytes_are_split_the_same_is_found(line: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    stream = b"".join(piece for piece, _ in line)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == read(stream)


@given(st.lists(pieces_of_a_line), good_frames)
def test_after_whatever_came_the_next_good_frame_is_found_at_once(before: list[bytes], frame: bytes) -> None:
    assert read(*before, frame)[-1:] == read(frame)


@given(st.lists(st.one_of(good_frames, st.binary(max_size=50).filter(lambda junk: 0xF4 not in junk))))
def test_no_good_frame_is_missed_between_other_bytes(line: list[bytes]) -> None:
    expected = [report for piece in line if piece in FRAMES for report in read(piece)]
    assert read(b"".join(line)) == expected


@given(st.lists(pieces_of_a_line))
def test_every_byte_is_in_a_frame_or_skipped_or_waits_and_little_waits(line: list[bytes]) -> None:
    reader = FrameReader()
    used = 0
    for piece in line:
        for report in reader.feed(piece):
            used += 45 if report.moving_gates else 23
            if report.moving_gates:
                used += len(report.moving_gates) + len(report.stationary_gates) - 18
        assert len(reader._waiting) < 74
    assert used + reader.skipped + len(reader._waiting) == len(b"".join(line))


def test_a_frame_that_is_cut_does_not_eat_the_next() -> None:
    one, other = FRAMES[1], FRAMES[5]
    for length in range(len(one)):
        assert read(one[:length] + other) == read(other)


def test_a_broken_length_does_not_hold_back_the_next_frame() -> None:
    long = bytearray(FRAMES[4])
    long[4] = 64
    assert read(bytes(long), FRAMES[0]) == read(FRAMES[0])


def test_a_state_that_does_not_exist_is_no_report() -> None:
    frame = bytearray(FRAMES[0])
    frame[8] = 7
    assert read(bytes(frame)) == []


def test_while_it_measures_noise_it_says_nothing_of_anybody() -> None:
    frame = bytearray(FRAMES[3])
    frame[8] = 5
    (report,) = FrameReader().feed(bytes(frame))
    assert (report.is_measuring, report.moving, report.stationary) == (False, False, False)


@pytest.mark.skipif(
    importlib.util.find_spec("micropython_unix") is None, reason="no MicroPython for this machine on PyPI"
)
def test_micropython_reads_the_same_with_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2410)
    lines = []
    for _ in range(300):
        pieces = [rng.choice([rng.choice(FRAMES), rng.randbytes(9), HEADER]) for _ in range(6)]
        stream = b"".join(pieces)
        if rng.random() < 0.5:
            at = rng.randrange(len(stream))
            stream = stream[:at] + rng.randbytes(1) + stream[at + 1 :]
        cut = rng.randrange(len(stream))
        lines.append(f"{stream[:cut].hex()} {stream[cut:].hex()}\n")
    script = HERE / "ld2410_micropython.py"
    program = Path(sys.executable).with_name("micropython")
    house = HERE.parents[1]
    said = subprocess.run(  # a filter, without a shell
        [program, script], input="".join(lines), capture_output=True, text=True, cwd=house, timeout=60, check=False
    )
    assert said.stderr == ""
    monkeypatch.setitem(sys.modules, "ld2410", ld2410)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(compile(script.read_text(), str(script), "exec"), {})
    assert len(said.stdout.splitlines()) == len(lines)
    assert said.stdout == here.getvalue()
