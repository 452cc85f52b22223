"""`neurogate device logs`: the console of a board."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.virtual_board.conftest import mpremote
from tests.virtual_board.virtual_board import ROOT, VirtualBoard

COMMAND = (sys.executable, "-m", "gateway.cli", "device", "logs", "--port")


def test_it_shows_what_the_board_says_until_it_is_interrupted(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path / "board") as board:
        main = tmp_path / "main.py"
        board.wait_for_prompt()
        main.write_text("import time\nwhile True:\n print('still here')\n time.sleep_ms(100)\n")
        assert mpremote(board, "fs", "cp", str(main), ":main.py").returncode == 0
        board.power_cycle()
        with subprocess.Popen([*COMMAND, board.port], cwd=ROOT, stdout=subprocess.PIPE) as logs:
            assert logs.stdout is not None
            while b"still here" not in logs.stdout.readline():
                assert logs.poll() is None
            logs.send_signal(signal.SIGINT)
            assert logs.wait(30) == 130


def test_a_port_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "ttyUSB0")], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Is the board plugged in?" in done.stderr
    assert os.linesep not in done.stdout
