"""A command inside this process is what it is as a process of its own: what it says, and its exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import neurogate
from tests.gateway_process import ROOT


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config", "show"), 0),
        (("device", "show", "attic"), 1),
        (("device", "shwo"), 2),
        (("check", "-c", "nowhere.toml"), 78),
        (("secrets", "set", "KEY"), 0),
    ],
)
def test_it_is_what_it_is_as_a_process(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    here = neurogate(*arguments, folder=tmp_path, typed="ä secret".encode(), environ={"NEUROGATE_LOG__LEVEL": "debug"})
    alone = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NEUROGATE_LOG__LEVEL": "debug"},
        input="ä secret",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (here.returncode, here.stdout, here.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert here.returncode == code
    assert len(here.stdout + here.stderr) > 20
