"""The house has floors: a room imports from its own floor or lower ones, never upwards.

The table of floors in CONTRIBUTING.md is the rule itself: this test reads it.
"""

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

HOUSE = Path(__file__).parent.parent
PACKAGES = ("gateway", "cloud_sync")
TABLE = re.findall(r"^\| (\d) \| (.*?) \|", (HOUSE / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
FLOOR = {room: int(floor) for floor, rooms in TABLE for room in re.findall(r"`(\w+/\w+)", rooms)}
FLOOR |= dict.fromkeys(PACKAGES, 0)  # the packages themselves: a version, nothing else
TRANSPORTS = FLOOR["gateway/web"]
STORAGE = FLOOR["gateway/storage"]


class Arrow(NamedTuple):
    """One import: the file and line where it stands, and the rooms at its ends."""

    place: str
    source: str
    target: str


def room_of(module: str) -> str:
    """`gateway.model.status` is in the room `gateway/model`."""
    return "/".join(module.split(".")[:2])


def arrows(house: Path) -> Iterator[Arrow]:
    for path in sorted(file for package in PACKAGES for file in (house / package).rglob("*.py")):
        file = path.relative_to(house)
        is_package = file.name == "__init__.py"
        package = ".".join(file.parent.parts)
        source = package if is_package else f"{package}.{file.stem}"
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for target in imported(node, package):
                    if target.split(".")[0] in PACKAGES:
                        yield Arrow(f"{file}:{node.lineno}", room_of(source), room_of(target))


def imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = resolve_name("." * node.level + (node.module or ""), package)
    if base not in PACKAGES:
        return [base]
    # `from gateway import clock` enters a room, `from gateway import __version__` does not
    return [base if alias.name.startswith("__") else f"{base}.{alias.name}" for alias in node.names]


def fault(arrow: Arrow) -> str | None:
    """Say what is wrong with an arrow."""
    for room in (arrow.source, arrow.target):
        if room not in FLOOR:
            return f"{room} is on no floor: add it to the table of floors in CONTRIBUTING.md"
    if arrow.source == arrow.target:
        return None
    source, target = FLOOR[arrow.source], FLOOR[arrow.target]
    where = f"{arrow.source} (floor {source}) imports {arrow.target} (floor {target})"
    if target > source:
        return f"{where}: an arrow that points up"
    if source == target == TRANSPORTS:
        return f"{where}: transports do not know each other, app hands them what they need"
    leaves_home = arrow.source.startswith("cloud_sync") and arrow.target.startswith("gateway")
    if leaves_home and target > STORAGE:
        return f"{where}: cloud_sync knows only floors 1 and 2 of gateway"
    return None


def faults(house: Path) -> list[str]:
    return [f"{arrow.place}: {words}" for arrow in arrows(house) if (words := fault(arrow))]


def test_no_arrow_points_up() -> None:
    found = faults(HOUSE)
    assert not found, "\n".join(found)


def test_every_room_is_on_a_floor() -> None:
    """Also a room that imports nothing and that nothing imports."""
    modules = [path for package in PACKAGES for path in (HOUSE / package).rglob("*.py")]
    rooms = {room_of(".".join(path.relative_to(HOUSE).with_suffix("").parts)) for path in modules}
    unknown = rooms - set(FLOOR) - {f"{package}/__init__" for package in PACKAGES}
    assert not unknown, f"add {', '.join(sorted(unknown))} to the table of floors in CONTRIBUTING.md"


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("gateway/storage/log.py", "from gateway.broker.door import Door", "points up"),
        ("gateway/ingest.py", "import gateway.app", "points up"),
        ("gateway/storage/log.py", "from ..parsers import standard", "points up"),
        ("gateway/storage/__init__.py", "from gateway import cli", "points up"),
        ("gateway/storage/__init__.py", "from ..parsers.standard import parse", "points up"),
        ("gateway/model/reading.py", "def late():\n    from gateway.storage import log", "points up"),
        ("gateway/web/server.py", "from gateway.app import Gateway", "points up"),
        ("gateway/web/server.py", "from gateway.broker import door", "do not know each other"),
        ("cloud_sync/integrations/webhook.py", "import cloud_sync.receiver", "do not know each other"),
        ("cloud_sync/forwarder.py", "from gateway.parsers import standard", "only floors 1 and 2"),
        ("gateway/attic.py", "import gateway.clock", "gateway/attic is on no floor"),
    ],
)  # fmt: skip
def test_a_bad_arrow_is_found(tmp_path: Path, file: str, line: str, words: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    found = faults(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{file}:")
    assert words in found[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("gateway/cli/main.py", "from gateway.app import Gateway"),
        ("gateway/app.py", "from cloud_sync.forwarder import Forwarder"),
        ("gateway/storage/log.py", "from . import cursors\nfrom .cursors import Cursor"),
        ("gateway/storage/__init__.py", "from .log import Log"),
        ("gateway/config/load.py", "from gateway.model.errors import ConfigError"),
        (
            "cloud_sync/forwarder.py",
            "from gateway.storage.log import Log\nfrom cloud_sync.contract import Ok",
        ),
        ("cloud_sync/integrations/webhook.py", "from gateway import __version__\nimport aiohttp"),
    ],
)
def test_a_good_arrow_is_none_of_our_business(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert faults(tmp_path) == []
