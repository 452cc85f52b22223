"""mqtt311.md names every normative statement of MQTT 3.1.1, and no test that does not exist."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STATEMENTS = {
    "1.5.3": 3,
    "2.2.2": 2,
    "2.3.1": 7,
    "3.1.0": 2,
    "3.1.2": 24,
    "3.1.3": 11,
    "3.1.4": 5,
    "3.2.0": 1,
    "3.2.2": 6,
    "3.3.1": 12,
    "3.3.2": 3,
    "3.3.4": 1,
    "3.3.5": 2,
    "3.6.1": 1,
    "3.8.1": 1,
    "3.8.3": 4,
    "3.8.4": 6,
    "3.9.3": 2,
    "3.10.1": 1,
    "3.10.3": 2,
    "3.10.4": 6,
    "3.12.4": 1,
    "3.14.1": 1,
    "3.14.4": 3,
    "4.1.0": 2,
    "4.3.1": 1,
    "4.3.2": 2,
    "4.3.3": 2,
    "4.4.0": 1,
    "4.5.0": 2,
    "4.6.0": 6,
    "4.7.1": 3,
    "4.7.2": 1,
    "4.7.3": 4,
    "4.8.0": 2,
    "6.0.0": 4,
    "7.0.0": 2,
    "7.1.1": 1,
    "7.1.2": 1,
}
"""How many each section has in appendix B, 141 in all; two of them are printed there with a slip in their number."""
ROWS = re.findall(r"^\| MQTT-(\S+) \| (.+) \| (.+) \|$", (HERE / "mqtt311.md").read_text("utf-8"), re.MULTILINE)
EXEMPT = "does not apply: "


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the tests in a file; none if there is no such file."""
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def named(proof: str) -> dict[str, bool]:
    """Return every test that is named, and whether it exists."""
    return {
        f"{file}::{test}": test in names_in((HERE / file).resolve())
        for file, test in re.findall(r"`(\S+)::(\S+)`", proof)
    }


def test_every_statement_stands_in_the_table_once() -> None:
    expected = [f"{section}-{number}" for section, count in STATEMENTS.items() for number in range(1, count + 1)]
    assert Counter(statement for statement, _, _ in ROWS) == Counter(expected)


@pytest.mark.parametrize(("statement", "proof"), [(statement, proof) for statement, _, proof in ROWS])
def test_every_statement_has_a_test_or_a_reason(statement: str, proof: str) -> None:
    tests = named(proof)
    missing = [test for test, is_there in tests.items() if not is_there]
    assert missing == [], f"{statement} names what does not exist"
    assert tests or (proof.startswith(EXEMPT) and len(proof) > len(EXEMPT) + 10), f"{statement} has no proof"
