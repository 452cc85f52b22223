"""The firmware's types, and the example's, fit the ESP32's own modules: pyright, with the stubs of the ESP32 port."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.provisioning.firmware_files import fixed_files, slot_files, sources

STUBS = Path(sys.prefix) / "board-stubs"
"""Made by scripts/venv."""
EXAMPLE = sources() / "examples" / "micropython" / "main.py"
WRONG = """
import machine
machine.Pin(2).on()
machine.Pin(2).onn()
print(machine.unique_id() + 1)
"""


def pyright(folder: Path) -> list[str]:
    """Return what it complains about in the sources of a folder."""
    config = {"include": ["."], "extraPaths": ["."], "typeshedPath": str(STUBS), "stubPath": str(STUBS)}
    (folder / "pyrightconfig.json").write_text(json.dumps({**config, "reportMissingModuleSource": False}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--project", folder],
        capture_output=True,
        encoding="utf-8",
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


def test_pyright_has_nothing_to_say(tmp_path: Path) -> None:
    """But of what is wrong on purpose: that it looks at all, and knows what a board's modules have."""
    folder, wrong = tmp_path / "board", tmp_path / "wrong"
    wrong.write_text(WRONG)
    for path, source in {**slot_files(), **fixed_files(), "example.py": EXAMPLE, "wrong.py": wrong}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / path)
    assert pyright(folder) == [
        "wrong.py:3 reportAttributeAccessIssue",
        "wrong.py:4 reportOperatorIssue",
    ]
