"""Matching topics against filters, as MQTT 3.1.1, 4.7, has it; its own examples first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.topics import is_topic_filter, matches

LEVEL = st.text("abA é\u0301\ufeff", max_size=3)


@pytest.mark.parametrize(
    ("topic_filter", "hits", "misses"),
    [
        ("sport/tennis/player1/#", ["sport/tennis/player1", "sport/tennis/player1/score/x"], ["sport/tennis/player12"]),
        ("sport/#", ["sport", "sport/", "sport/a/b"], ["sports", "Sport", "/sport"]),
        ("#", ["a", "/", "a/b/c"], ["$SYS", "$SYS/x"]),
        ("sport/tennis/+", ["sport/tennis/a", "sport/tennis/"], ["sport/tennis", "sport/tennis/a/b"]),
        ("+", ["finance", "ACCOUNTS"], ["/finance", "$x"]),
        ("+/+", ["/finance", "a/b"], ["a", "a/b/c", "$SYS/a"]),
        ("/+", ["/finance"], ["finance", "//"]),
        ("+/monitor/Clients", ["x/monitor/Clients"], ["$SYS/monitor/Clients"]),
        ("$SYS/#", ["$SYS", "$SYS/x"], ["SYS/x"]),
        ("$SYS/monitor/+", ["$SYS/monitor/Clients"], ["$SYS/monitor"]),
        ("ACCOUNTS", ["ACCOUNTS"], ["Accounts", "ACCOUNTS/"]),
        ("a b/ ", ["a b/ "], ["a b/", "ab/ "]),
        ("caf\u00e9", ["caf\u00e9"], ["cafe\u0301", "cafe"]),
        ("\ufeffa", ["\ufeffa"], ["a"]),
    ],
)
def test_what_a_filter_matches(topic_filter: str, hits: list[str], misses: list[str]) -> None:
    assert [topic for topic in hits + misses if matches(topic, topic_filter)] == hits


@given(st.lists(LEVEL, min_size=1, max_size=5), st.integers(0, 4))
def test_a_topic_matches_itself_and_with_any_level_left_open(levels: list[str], at: int) -> None:
    topic = "/".join(levels)
    at %= len(levels)
    for topic_filter in (topic, "/".join([*levels[:at], "+", *levels[at + 1 :]]), "/".join([*levels[:at], "#"])):
        assert matches(topic, topic_filter)
        assert is_topic_filter(topic_filter) or not topic_filter


@pytest.mark.parametrize(
    "text", ["", "a#", "#a", "a/#/b", "#/", "##", "a+", "+a", "a/b+/c", "a/++", "+#", "/#x", "a\0b"]
)
def test_a_wildcard_that_does_not_stand_alone_makes_no_filter(text: str) -> None:
    assert not is_topic_filter(text)
