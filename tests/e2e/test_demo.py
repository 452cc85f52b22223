"""`neurogate demo`: the whole job, from simulated boards to the webhook receiver, and an honest account of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.promises.site import ROOT

_SUMMARY = re.compile(
    r"(?P<stored>[\d,]+) readings stored, (?P<delivered>[\d,]+) delivered, (?P<duplicates>[\d,]+) duplicates, "
    r"(?P<undelivered>[\d,]+) undelivered\. The receiver counted (?P<received>[\d,]+) different readings and "
    r"(?P<bad_signatures>[\d,]+) bad signatures\."
)


def test_the_demo_delivers_what_it_stores_and_says_so(tmp_path: Path) -> None:
    options = ("--for", "8", "--sensors", "3", "--mqtt-port", "0", "--http-port", "0")
    demo = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "\x1b" not in demo.stdout
    (account,) = _SUMMARY.finditer(demo.stdout)
    counts = {name: int(count.replace(",", "")) for name, count in account.groupdict().items()}
    assert counts["stored"] >= 3
    assert counts["stored"] == counts["delivered"] == counts["received"]
    assert (counts["undelivered"], counts["bad_signatures"]) == (0, 0)
