"""A path leads to one value of a JSON document, or says how far it led."""

from typing import Any

import pytest

from gateway.model.json_path import PathNotFound, parse_path

MESSAGE: dict[str, Any] = {"a": {"b": [{"c": 1}, None]}, "a key": {"x.y": 2}, "it's": 3, "n-1": 4, "": 5}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b[0].c", 1),
        ("$.a.b[0].c", 1),
        ("a.b[1]", None),
        ("a.b[-2].c", 1),
        ("['a key']['x.y']", 2),
        ('["it\'s"]', 3),
        ("n-1", 4),
        ("['']", 5),
        ("$", MESSAGE),
        ("$['n-1']", 4),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: Any) -> None:
    assert parse_path(path).find(MESSAGE) == value


@pytest.mark.parametrize(
    "path", ["", "a..b", "a[", "a[x]", "a.", ".", "a b", "a[0", "['a'", "a$", "$a", "a]", "a['b']c"]
)
def test_what_is_no_path_is_called_that(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("x", "x was not found: the message is an object without x"),
        ("a.b[7].c", "a.b[7].c was not found: a.b is an array of 2 without [7]"),
        ("a.b.c", "a.b is an array of 2 without c"),
        ("a.b[1].c", "a.b[1] is null without c"),
        ("['a key'].z", "['a key'] is an object without z"),
        ("n-1[0]", "n-1 is a number without [0]"),
    ],
)
def test_what_is_not_there_is_told_by_how_far_the_path_led(path: str, words: str) -> None:
    with pytest.raises(PathNotFound) as raised:
        parse_path(path).find(MESSAGE)
    assert words in str(raised.value)
