"""`scripts/virtual-board`: what a person says to the board happens."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.virtual_board.__main__ import obey
from tests.virtual_board.virtual_board import ROOT, VirtualBoard


@pytest.mark.parametrize(
    ("line", "name", "text"),
    [("motion on", "pin27", "1"), ("motion off", "pin27", "0"), ("gas 900000", "adc34", "900000")],
)
def test_an_input_is_set(board: VirtualBoard, line: str, name: str, text: str) -> None:
    assert obey(board, line) == "ok"
    assert board.get(name) == text


def test_a_person_moves_and_the_power_goes(board: VirtualBoard) -> None:
    assert obey(board, "person 150") == "ok"
    assert (board.radar.radar.state, board.radar.radar.distance_cm) == (1, 150)
    obey(board, "still 80")
    assert (board.radar.radar.state, board.radar.radar.stationary_cm) == (2, 80)
    obey(board, "nobody")
    assert board.radar.radar.state == 0
    at = len(board.console())
    obey(board, "power off")
    obey(board, "power on")
    board.wait_for("POWERON_RESET", after=at)


@pytest.mark.parametrize("line", ["person", "person x", "gas -1", "power", "what"])
def test_anything_else_shows_what_there_is(board: VirtualBoard, line: str) -> None:
    assert "person 150" in obey(board, line)


def test_it_says_how_to_flash_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.virtual_board", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, input="person 1\nquit\n", capture_output=True, text=True, timeout=60, check=True
    )
    assert "device flash --port /dev/pts/" in done.stdout
    assert done.stdout.count("> ok") == 1
