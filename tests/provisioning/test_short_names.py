"""Shorter names: the same program, of which a board has fewer names to keep."""

import ast
import re
from pathlib import Path

import pytest

from gateway.provisioning.firmware_files import slot_files
from gateway.provisioning.short_names import shortened

ONE = """
class Part:
    def __init__(self):
        self._clock = self._mine = 1
"""
OTHER = """
from one import Part

_LIMIT = 3


class Pump(Part):
    def __init__(self):
        super().__init__()
        self._pressure = {"_pressure_pa": _LIMIT}

    def _look(self):
        return self._clock, self._pressure, "_limit"
"""


def test_what_one_module_knows_gets_a_short_name_and_the_rest_keeps_its_own() -> None:
    files = shortened({"one.py": ONE, "other.py": OTHER})
    assert files["one.py"] == ONE, "it is inherited elsewhere"
    assert files["other.py"] == OTHER.replace("_LIMIT", "_a").replace("_pressure,", "_b,").replace(
        "_pressure =", "_b ="
    )


def test_a_name_that_is_taken_is_not_given_again() -> None:
    taken = "_a = 1\n_rest = 2\n"
    assert shortened({"x.py": taken, "y.py": "from x import _a\n"})["x.py"] == "_a = 1\n_b = 2\n"


def test_an_argument_gets_a_short_name_unless_it_means_something_else_too() -> None:
    free = "def f(radar, _, ms=3):\n    return lambda number: (radar.number_, number, ms)\n"
    short = "def f(_a, _, ms=3):\n    return lambda _b: (_a.number_, _b, ms)\n"
    assert shortened({"x.py": free})["x.py"] == short
    for more in ("x.radar = 1\n", "radar = 1\n", "import radar\n", "from radar import x\n", "f(radar=1)\n"):
        assert "radar" in shortened({"x.py": free + more})["x.py"].splitlines()[0], more
    assert "radar" in shortened({"x.py": free, "y.py": "f(radar=1)\n"})["x.py"], "given by its name elsewhere"
    assert shortened({"x.py": "def f(open):\n    return open\nopen(1)\n"})["x.py"].startswith("def f(open)")


def test_a_name_that_is_also_a_text_is_kept() -> None:
    sources = {"x.py": 'def f(x):\n    x._rest = getattr(x, "_rest") or getattr(x, "_most")\n', "y.py": "_most = 1\n"}
    assert shortened(sources) == sources


@pytest.fixture(scope="module")
def program() -> dict[str, tuple[str, str]]:
    sources = {path: Path(source).read_text("utf-8") for path, source in slot_files().items()}
    return {path: (sources[path], text) for path, text in shortened(sources).items()}


def test_the_program_of_a_board_differs_in_private_names_only_one_to_one(program: dict[str, tuple[str, str]]) -> None:
    for path, (before, after) in program.items():
        assert before.count("\n") == after.count("\n"), path
        pairs = {(_name(old), _name(new)) for old, new in zip(_nodes(before), _nodes(after), strict=True) if _name(old)}
        assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs}), path
        own = {node.arg for node in ast.walk(ast.parse(before)) if isinstance(node, ast.arg)}
        for old, new in pairs:
            assert old == new or ((old[0] == "_" or old in own) and re.fullmatch("_[a-z]{1,2}", new)), (path, old)
        assert _defined(before) == _defined(after), "tracebacks name functions"


def _nodes(source: str) -> list[ast.AST]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name | ast.Attribute | ast.arg)]


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", ""))


def _defined(source: str) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
