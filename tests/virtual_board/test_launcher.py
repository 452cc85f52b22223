"""The launcher on a board: which starts are failed ones, and what a person sees of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.provisioning.firmware_files import fixed_files
from tests.virtual_board.conftest import mpremote, said
from tests.virtual_board.virtual_board import VirtualBoard

PROGRAM = """
import os, time

def run(safe):
    print("started", repr(safe))
    if "fails" in os.listdir("/"):
        raise ValueError("broken")
    while True:
        time.sleep_ms(50)
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[VirtualBoard]:
    """A board with the launcher and a program of four lines, that has run once."""
    tree = tmp_path / "tree"
    (tree / "slots" / "a" / "app").mkdir(parents=True)
    (tree / "slots" / "a" / "app" / "main.py").write_text(PROGRAM)
    for name in ("main.py", "board.py"):
        (tree / name).write_bytes(fixed_files()[name].read_bytes())
    with VirtualBoard(tmp_path / "board") as board:
        done = mpremote(board, "fs", "cp", "-r", *(str(path) for path in sorted(tree.iterdir())), ":")
        assert done.returncode == 0, done.stderr
        board.power_cycle()
        board.wait_for("started ''")
        yield board


def test_power_cuts_within_the_first_seconds_do_not_end_in_safe_mode(started: VirtualBoard) -> None:
    for _ in range(4):
        at = len(started.console())
        started.power_cycle()
        started.wait_for("started ''", after=at)


def test_starts_that_end_without_a_power_cut_do_and_so_do_crashes(started: VirtualBoard) -> None:
    for words in ("started ''", "started ''", "started '3 starts came to nothing'"):
        at = len(started.console())
        mpremote(started, "exec", "--no-follow", "import machine; machine.reset()")
        started.wait_for(words, after=at)
    said(started, "open('/fails', 'w').close()")
    at = len(started.console())
    started.power_cycle()
    started.wait_for("the program has ended", after=at)
    assert json.loads(said(started, "print(open('/slot.json').read())"))["crashed"] is True
    at = len(started.console())
    started.power_cycle()
    started.wait_for("started '3 starts came to nothing'", after=at)
