"""A virtual board never shows the files of the machine it runs on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.virtual_board.conftest import mpremote, said
from tests.virtual_board.virtual_board import ROOT, VirtualBoard


@pytest.mark.parametrize(
    "code",
    [
        "print(open('/etc/passwd').read())",
        "print(open('/../../../../etc/passwd').read())",
        "import io; print(io.open('/etc/passwd').read())",
        "import uos; print(uos.system('cat /etc/passwd'))",
        "import os; print(os.getenv('PATH'))",
        "import os; print(os.VfsPosix('/etc'))",
        "import vfs; print(vfs.VfsPosix('/etc'))",
        "import uvfs; print(uvfs.VfsPosix('/etc'))",
        "import machine; print(machine.mem8[0])",
        "real_os",
        "import vfs; vfs.umount('/'); print(open('/etc/passwd').read())",  # the last: nothing is mounted then
    ],
)
def test_no_way_leads_to_its_files(board: VirtualBoard, code: str) -> None:
    done = mpremote(board, "exec", code)
    assert done.returncode == 1
    assert "Error: " in done.stdout + done.stderr, "the board itself must have said no"
    assert "root:" not in done.stdout + done.stderr


def test_mpremote_sees_the_flash_alone(board: VirtualBoard) -> None:
    board.power_cycle()
    assert mpremote(board, "fs", "cat", ":/etc/passwd").returncode == 1
    assert said(board, "import os; print(os.listdir('/'))") == "[]"


def test_a_board_that_cannot_be_set_up_answers_nobody(tmp_path: Path) -> None:
    (tmp_path / "flash.img").mkdir()  # a folder where the flash should be
    command = [sys.executable, "-m", "tests.virtual_board.supervisor", str(tmp_path), "2048"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as supervisor:
        assert supervisor.stdout is not None
        port = supervisor.stdout.readline().strip()
        with open(port, "r+b", buffering=0) as line:  # noqa: PTH123 - a terminal, held open
            assert supervisor.stdin is not None
            supervisor.stdin.write("on\n")
            supervisor.stdin.flush()
            line.write(b"\r\x03\x01print(open('/etc/passwd').read())\x04")
            assert supervisor.wait(30) == 1
        assert supervisor.stderr is not None
        assert "could not be set up" in supervisor.stderr.read()
    assert b"root:" not in (tmp_path / "console.log").read_bytes()
