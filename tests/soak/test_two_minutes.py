"""P1, P2 and P5 through two minutes of bad weather, another one every time; `--soak-s` makes them shorter or longer."""

import subprocess
import sys

import pytest

from tests.promises.site import ROOT

_START_AND_STOP_S = 60.0


@pytest.mark.slow
@pytest.mark.timeout(0)  # the process has a bound of its own
def test_every_promise_is_kept_in_bad_weather(pytestconfig: pytest.Config) -> None:
    seconds = float(pytestconfig.getoption("--soak-s"))
    command = [sys.executable, "-m", "tests.soak", "--minutes", str(seconds / 60)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + _START_AND_STOP_S,
        check=False,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout.splitlines()[-5:]
