"""Builds the wheel, looks for wheels of all that it needs on the machines it is for, and installs it here with pipx.

A Pi must compile nothing: for Debian 12 (glibc 2.36, Python 3.11) on 64-bit ARM and on x86-64 every dependency, those
of the extra `golioth` too, has to have a wheel, or this ends with exit code 1. What 32-bit ARM lacks is only said:
Raspberry Pi OS takes it from piwheels, which is not asked here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
MACHINES = {"aarch64": 17, "x86_64": 5}
"""With the oldest glibc 2 that wheels for it are made for."""
ONLY_SAID = {"armv7l": 17}
_GLIBC = 36
_PYTHON = "3.11"
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_TIMEOUT_S = 600
_CONFIG = "neurogate.toml"


class Needed(NamedTuple):
    """A dependency."""

    name: str
    """With its version, as pip takes it."""
    is_pure: bool
    """Whether its wheel is the same for every machine."""


def main() -> None:
    """Do it all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        print(f"{wheel.name} is built.", flush=True)
        needed: list[Needed] = []
        for machine, oldest in MACHINES.items():
            needed = resolved([f"{wheel}[golioth]"], platforms(machine, oldest))
            print(f"{machine}: {len(needed)} dependencies, each has a wheel.", flush=True)
        for machine, oldest in ONLY_SAID.items():
            lacking = without_wheel([one.name for one in needed if not one.is_pure], platforms(machine, oldest))
            print(f"{machine} (32 bit; not promised, piwheels not asked): {_listed(lacking)}", flush=True)
        try_with_pipx(wheel, folder)
    print("pipx installs it; neurogate --version, init and check work.")


def build(folder: Path) -> Path:
    """Return the wheel of this checkout."""
    run("pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("neurogate-*.whl")
    return wheel


def platforms(machine: str, oldest: int) -> list[str]:
    """Return the tags of wheels that Debian 12 can use there."""
    tags = [f"manylinux_2_{glibc}_{machine}" for glibc in range(_GLIBC, oldest - 1, -1)]
    return tags + [f"{name}_{machine}" for glibc, name in _LEGACY.items() if glibc >= oldest]


def resolved(requirements: Sequence[str], tags: Sequence[str]) -> list[Needed]:
    """Return what would be installed with them. Ends the program when something has no wheel."""
    found = report(requirements, tags)
    if isinstance(found, str):
        sys.exit(f"Not everything has a wheel for {tags[0]}:\n{found}")
    return found


def without_wheel(requirements: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Return which of them have no wheel."""
    return [one for one in requirements if isinstance(report([one], tags, "--no-deps"), str)]


def report(requirements: Sequence[str], tags: Sequence[str], *options: str) -> list[Needed] | str:
    """Return what pip would install, or its complaint."""
    with tempfile.TemporaryDirectory() as target:
        done = pip(
            "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--report", "-",
            "--target", target, "--python-version", _PYTHON, "--implementation", "cp", *options,
            *(f"--platform={tag}" for tag in tags), *requirements,
        )  # fmt: skip
    if done.returncode:
        return "\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR"))
    return sorted(
        Needed(f"{one['metadata']['name']}=={one['metadata']['version']}", "-none-any." in one["download_info"]["url"])
        for one in json.loads(done.stdout)["install"]
        if one["metadata"]["name"] != "neurogate"
    )


def try_with_pipx(wheel: Path, folder: Path) -> None:
    """Install it for nobody else, and use it. Ends the program when something fails."""
    homes = {
        "PIPX_HOME": str(folder / "pipx"),
        "PIPX_BIN_DIR": str(folder / "bin"),
        "PIPX_MAN_DIR": str(folder / "man"),
    }
    run("pipx", "install", "--python", sys.executable, str(wheel), environ=homes)
    program = str(folder / "bin/neurogate")
    for arguments in (["--version"], ["init", "--dir", str(folder)], ["check", "--config", str(folder / _CONFIG)]):
        execute([program, *arguments])


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)


def run(module: str, *arguments: str, environ: dict[str, str] | None = None) -> None:
    """Run a module of this Python."""
    execute([sys.executable, "-m", module, *arguments], environ)


def execute(command: Sequence[str], environ: dict[str, str] | None = None) -> None:
    """Run a program. Ends this one when it fails."""
    done = subprocess.run(
        command, env=os.environ | (environ or {}), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _listed(lacking: Sequence[str]) -> str:
    return f"no wheel of {', '.join(lacking)}" if lacking else "everything has a wheel"


if __name__ == "__main__":
    main()
