"""Bundles of modules: one file on a board, whose lines and imports are still those of its modules."""

import ast

import pytest

from gateway.provisioning.bundles import BUNDLES, bundled, redirected, shown
from gateway.provisioning.firmware_files import slot_files


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {path.removesuffix(".py"): source.read_text("utf-8") for path, source in slot_files().items()}


def test_every_module_is_in_one_place_with_its_lines(sources: dict[str, str]) -> None:
    program = bundled(sources)
    assert len(program) == len(sources) - sum(map(len, BUNDLES.values())) + len(BUNDLES)
    for bundle, modules in BUNDLES.items():
        for number, module in enumerate(modules):
            for old in ast.parse(sources[module]).body:
                if isinstance(old, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    line = program[bundle].splitlines()[number * 1_000 + old.lineno - 1]
                    assert line.replace(f"_{number}(", "(") == sources[module].splitlines()[old.lineno - 1]


def test_nothing_imports_a_module_that_is_no_file_any_more(sources: dict[str, str]) -> None:
    program = bundled(sources)
    for path, text in program.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module in {"app", "drivers"}:
                names = [f"{node.module}/{one.name}" for one in node.names if one.name not in {"VERSION", "RadarError"}]
            elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in {"app", "drivers"}:
                names = [str(node.module).replace(".", "/")]
            else:
                continue
            assert set(names) <= program.keys(), path
            assert path not in names, f"{path} imports itself"


def test_what_has_been_imported_from_a_module_comes_from_its_bundle() -> None:
    before = "from app.wifi import (\n    Wifi,\n    backoff_ms,\n)\nfrom app import VERSION, files\nx = 1\n"
    after = "from app.link import Wifi; from app.link import backoff_ms\n\n\n\n"
    after += "from app import base as files; from app import VERSION\nx = 1\n"
    assert redirected(before) == after
    assert redirected("def f():\n    from app.mqtt import Message\n", "app/link") == "def f():\n    pass\n"
    with pytest.raises(SyntaxError, match="by `from` only"):
        redirected("import app.files\n")
    with pytest.raises(SyntaxError, match="same bundle"):
        redirected("from app import files\n", "app/base")


def test_what_two_modules_call_the_same_is_kept_apart(sources: dict[str, str]) -> None:
    one = "_most = 1\ndef _look(x):\n    return x._look() + _most\n"
    text = bundled({**sources, "app/within": one, "app/clock": one})["app/base"]
    tree = ast.parse(text)
    assert {"_look", "_look_4"} <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "return x._look_4() + _most_4" in text
    with pytest.raises(SyntaxError, match="sleep of app/clock is there twice"):
        bundled({**sources, "app/within": "sleep = 1\n", "app/clock": "sleep = 2\n"})


def test_a_traceback_names_the_modules() -> None:
    assert shown("app/base").startswith("files+mqtt_codec+")
    assert shown("app/spill_file") == "app.spill_file"


def test_another_program_is_left_as_it_is() -> None:
    assert bundled({"app/main": "from app.files import read\n"}) == {"app/main": "from app.files import read\n"}
