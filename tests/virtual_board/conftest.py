"""One board for the tests of a file; each leaves it as it likes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.virtual_board.virtual_board import VirtualBoard

MPREMOTE = Path(sys.executable).with_name("mpremote")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    with VirtualBoard(tmp_path_factory.mktemp("board")) as board:
        board.wait_for_prompt()
        yield board


def mpremote(board: VirtualBoard, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would; `resume`, as the end of a process is the end of its memory here."""
    arguments = [str(MPREMOTE), "connect", board.port, "resume", *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def said(board: VirtualBoard, code: str) -> str:
    """Return what code prints on the board."""
    done = mpremote(board, "exec", code)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
