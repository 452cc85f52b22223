"""Rights against brute force: every topic there could be is tried, and compared with what a filter is said to reach."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.rights import Rights, covers, device_rights, organization_rights, site_rights
from gateway.model.topics import is_topic_filter, matches

LEVELS = ("a", "b", "", "$x")
FRESH = "fresh"
"""A level that no filter names."""
DEEPEST = 4
TOPICS = ["/".join(levels) for depth in range(1, DEEPEST + 2) for levels in product((*LEVELS, FRESH), repeat=depth)]
TOPICS.remove("")

levels = st.sampled_from((*LEVELS, "+"))


@st.composite
def filters(draw: st.DrawFn) -> str:
    parts = draw(st.lists(levels, min_size=1, max_size=DEEPEST))
    if draw(st.booleans()):
        parts[-1] = "#"
    return "/".join(parts) or "+"


def matches_by_the_standard(topic: str, topic_filter: str) -> bool:
    """The rules of MQTT 3.1.1, 4.7, level by level and by recursion: another way than the one under test."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False

    def rest(names: list[str], wanted: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not names or not wanted:
            return not names and not wanted
        return wanted[0] in ("+", names[0]) and rest(names[1:], wanted[1:])

    return rest(topic.split("/"), topic_filter.split("/"))


@given(filters(), st.sampled_from(TOPICS))
def test_a_topic_matches_as_the_standard_says(topic_filter: str, topic: str) -> None:
    assert matches(topic, topic_filter) == matches_by_the_standard(topic, topic_filter)


@given(filters(), filters())
def test_a_filter_is_covered_exactly_when_everything_it_reaches_is(right: str, topic_filter: str) -> None:
    reached = [topic for topic in TOPICS if matches_by_the_standard(topic, topic_filter)]
    assert covers(right, topic_filter) == all(matches_by_the_standard(topic, right) for topic in reached)


@given(st.lists(filters(), max_size=3), filters())
def test_what_is_subscribed_to_is_never_more_than_may_be_heard(granted: list[str], topic_filter: str) -> None:
    rights = Rights((), tuple(granted))
    if rights.may_subscribe(topic_filter):
        assert all(rights.may_hear(topic) for topic in TOPICS if matches_by_the_standard(topic, topic_filter))


@given(st.text("ab+#/$", max_size=6))
def test_a_filter_is_one_as_the_standard_says(text: str) -> None:
    ends_well = "#" not in text[:-1] and (not text.endswith("#") or text == "#" or text.endswith("/#"))
    plus_alone = all(level == "+" or "+" not in level for level in text.split("/"))
    assert is_topic_filter(text) == (text != "" and ends_well and plus_alone)
    if not is_topic_filter(text):
        assert not Rights((), ("#", "$SYS/#")).may_subscribe(text)


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("neurobuild/sensors/kitchen/data", True),
        ("org_acme/devices/kitchen/#", True),
        ("devices/kitchen/+/x", True),
        ("devices/kitchen", True),
        ("devices/kitchen/#/x", False),
        ("devices/kitchenette/#", False),
        ("devices/+/status", False),
        ("devices/#", False),
        ("+/kitchen/#", False),
        ("org_other/devices/kitchen/#", False),
        ("$SYS/#", False),
        ("#", False),
    ],
)
def test_a_device_hears_its_own_topics_and_nothing_else(topic_filter: str, allowed: bool) -> None:
    assert device_rights("acme", "kitchen").may_subscribe(topic_filter) is allowed


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("org_acme/devices/#", True),
        ("org_acme/devices/+/telemetry", True),
        ("devices/#", True),
        ("neurobuild/sensors/+/data", True),
        ("neurobuild/sensors/kitchen/data", True),
        ("neurobuild/#", False),
        ("org_acme/#", False),
        ("org_other/devices/#", False),
        ("+/devices/#", False),
        ("$SYS/#", False),
        ("#", False),
    ],
)
def test_an_organisation_hears_its_devices_and_nothing_else(topic_filter: str, allowed: bool) -> None:
    assert organization_rights("acme").may_subscribe(topic_filter) is allowed


def test_a_site_hears_everything_and_speaks_only_to_devices() -> None:
    rights = site_rights()
    assert all(map(rights.may_subscribe, ("#", "+/#", "acme/devices/+/status", "$SYS/#", "$SYS/broker/uptime")))
    assert not any(map(rights.may_subscribe, ("$other/#", "a/#/b", "")))
    for topic in ("acme/devices/kitchen/commands/1", "acme/org_acme/devices/kitchen/config"):
        assert rights.may_publish(topic)
    for topic in ("acme/devices/kitchen/telemetry", "acme/neurobuild/sensors/kitchen/data", "$SYS/broker/uptime", "x"):
        assert not rights.may_publish(topic)
