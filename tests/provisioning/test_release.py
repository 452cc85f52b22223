"""What goes onto a board: whole, compiled, small, and in the wheel as well."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.model.errors import NeurogateError
from gateway.provisioning.bundles import BUNDLES
from gateway.provisioning.firmware_files import fixed_files, slot_files
from gateway.provisioning.release import compiled
from tests.gateway_process import ROOT
from tests.provisioning.stand_in import firmware

MOST_BYTES = 10_000


def test_the_firmware_compiles_into_small_files() -> None:
    files = compiled()
    assert {"/boot.py", "/main.py", "/board.mpy"} < files.keys()
    bundled = sum(len(modules) - 1 for modules in BUNDLES.values())
    assert len(files) == len(slot_files()) + len(fixed_files()) - bundled
    too_big = {path: len(content) for path, content in files.items() if len(content) > MOST_BYTES}
    assert not too_big


def test_a_source_that_does_not_compile_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeurogateError, match=r"app/main.py does not compile: (.|\n)*SyntaxError"):
        compiled(firmware(tmp_path, "def run(:\n"))


def test_a_source_that_is_missing_is_named(tmp_path: Path) -> None:
    firmware(tmp_path)
    (tmp_path / "boot.py").unlink()
    with pytest.raises(NeurogateError, match=r"boot.py is missing"):
        compiled(tmp_path)


NO_UTF8 = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""As a machine whose locale has another encoding."""


def test_the_wheel_has_the_sources_where_they_are_looked_for(tmp_path: Path) -> None:
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    name = subprocess.run(
        [sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    with zipfile.ZipFile(tmp_path / name.stdout.strip().splitlines()[-1]) as wheel:
        wheel.extractall(tmp_path / "installed")
    show = "from gateway.provisioning.release import compiled; import gateway; print(gateway.__file__, *compiled())"
    done = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")} | NO_UTF8,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    place, *files = done.stdout.split()
    assert place.startswith(str(tmp_path))
    assert sorted(files) == sorted(compiled())
