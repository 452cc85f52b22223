"""Packages of others, as if pip had installed them: their metadata is on the path, made from their own pyproject."""

import tomllib
from pathlib import Path

import pytest

OTHER_PACKAGE = Path(__file__).parent / "other_package"


def install(package: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package on the path, with the metadata that a build would have made of it in `folder`."""
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(about, "utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(groups), "utf-8")
    for path in (package, folder):
        monkeypatch.syspath_prepend(path)


def install_made_up(
    name: str, integrations: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, module: str = ""
) -> None:
    """Install a package of one module, which has this text."""
    package, metadata = folder / name, folder / f"{name}-metadata"
    package.mkdir()
    metadata.mkdir()
    (package / f"{name}.py").write_text(module, "utf-8")
    entries = "".join(f'{kind} = "{value}"\n' for kind, value in integrations.items())
    (package / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\n[project.entry-points."neurogate.integrations"]\n{entries}',
        "utf-8",
    )
    install(package, metadata, monkeypatch)
