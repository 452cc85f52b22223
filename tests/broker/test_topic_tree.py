"""A tree of topics finds exactly what one comparison after another would."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.topic_tree import TopicTree
from gateway.model.topics import matches

LEVELS = st.sampled_from(["", "a", "b", "$SYS", "+"])
TOPICS = st.lists(st.sampled_from(["", "a", "b", "$SYS"]), min_size=1, max_size=4).map("/".join)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, "#"] if rest or not levels else levels),
    st.lists(LEVELS, max_size=4),
    st.booleans(),
)


@given(st.lists(FILTERS), st.lists(FILTERS), TOPICS)
def test_the_filters_that_match_a_topic_are_found(added: list[str], removed: list[str], topic: str) -> None:
    tree = TopicTree()
    for name in added:
        tree.add(name)
    for name in removed:
        tree.remove(name)
    left = set(added) - set(removed)
    assert sorted(tree.filters_for(topic)) == sorted(name for name in left if matches(topic, name))


@given(st.lists(TOPICS), st.lists(TOPICS), FILTERS)
def test_the_topics_that_a_filter_matches_are_found(added: list[str], removed: list[str], topic_filter: str) -> None:
    tree = TopicTree()
    for name in added:
        tree.add(name)
    for name in removed:
        tree.remove(name)
    left = set(added) - set(removed)
    assert sorted(tree.topics_for(topic_filter)) == sorted(name for name in left if matches(name, topic_filter))


@given(st.lists(FILTERS))
def test_what_is_removed_leaves_nothing_behind(names: list[str]) -> None:
    tree = TopicTree()
    for name in names:
        tree.add(name)
    for name in names:
        tree.remove(name)
    assert not tree._root.children


def test_a_topic_of_any_depth_is_walked() -> None:
    tree = TopicTree()
    deep = "/".join("a" * 30_000)
    tree.add(deep)
    tree.add("a/#")
    assert set(tree.filters_for(deep)) == {deep, "a/#"}
    assert list(tree.topics_for("#")) != []
    tree.remove(deep)
