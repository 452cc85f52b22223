"""Every test of a pure module once more, by the interpreter of the boards."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.firmware.conftest import SLOT

HERE = Path(__file__).parent
FILES = sorted((HERE / "pure").glob("test_*.py"))
MICROPYTHON = Path(sys.executable).with_name("micropython")


def _tests(file: Path) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    names = [node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, kinds)]
    return [name for name in names if name.startswith("test_")]


@cache
def _run(file: Path) -> dict[str, str | None]:
    runner = HERE / "run_under_micropython.py"
    done = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=160k", runner, SLOT, file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=SLOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return dict(json.loads(line.removeprefix("RESULT ")) for line in lines)


@pytest.mark.parametrize(
    ("file", "test"), [pytest.param(file, test, id=f"{file.stem}:{test}") for file in FILES for test in _tests(file)]
)
def test_it_holds_under_micropython(file: Path, test: str) -> None:
    failure = _run(file)[test]
    assert failure is None, failure
