"""The firmware's types fit each other and the ESP32's own modules: pyright, with the stubs of the ESP32 port."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from gateway.provisioning.firmware_files import fixed_files, slot_files

STUBS = ("micropython-esp32-stubs", "micropython-stdlib-stubs")
WRONG = """
import machine
machine.Pin(2).on()
machine.Pin(2).onn()
print(machine.unique_id() + 1)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alone in a folder: among the installed packages, those would be taken for the board's."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in STUBS:
        for file in distribution(name).files or ():
            if file.suffix == ".pyi":
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), folder / file)
    return folder


def pyright(folder: Path, stubs: Path) -> list[str]:
    """Return what it complains about in the sources of a folder."""
    config = {"include": ["."], "extraPaths": ["."], "typeshedPath": str(stubs), "stubPath": str(stubs)}
    (folder / "pyrightconfig.json").write_text(json.dumps({**config, "reportMissingModuleSource": False}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--project", folder],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},  # or it asks whether there is a newer one
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] == len(list(folder.rglob("*.py")))
    return [
        f"{Path(one['file']).name}:{one['range']['start']['line']} {one.get('rule')}"
        for one in said["generalDiagnostics"]
    ]


def test_pyright_has_nothing_to_say(stubs: Path, tmp_path: Path) -> None:
    """But of what is wrong on purpose: that it looks at all, and knows what a board's modules have."""
    folder, wrong = tmp_path / "board", tmp_path / "wrong"
    wrong.write_text(WRONG)
    for path, source in {**slot_files(), **fixed_files(), "wrong.py": wrong}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / path)
    assert pyright(folder, stubs) == [
        "wrong.py:3 reportAttributeAccessIssue",
        "wrong.py:4 reportOperatorIssue",
    ]
