"""When something is the reason that connections end: when that happens at the same, and so often in a row."""

from cloud_sync.integrations.mqtt_client.suspect import Suspect


def test_only_endings_at_the_same_count() -> None:
    suspect = Suspect[str]()
    assert [suspect.ended_at(key) for key in "aabaaa"] == [False, False, False, False, False, True]


def test_only_endings_in_a_row_count() -> None:
    suspect = Suspect[str]()
    assert [suspect.ended_at("a"), suspect.ended_at("a")] == [False, False]
    suspect.answered("b")  # that says nothing of another
    assert suspect.key == "a"
    suspect.answered("a")
    assert [suspect.ended_at("a") for _ in range(3)] == [False, False, True]


def test_what_is_known_for_the_reason_is_suspected_no_more() -> None:
    suspect = Suspect[str]()
    assert [suspect.ended_at("a") for _ in range(6)] == [False, False, True] * 2
    assert suspect.key is None


def test_where_the_first_ending_says_less_it_takes_one_more() -> None:
    suspect = Suspect[str](endings=4)
    assert [suspect.ended_at("a") for _ in range(5)] == [False, False, False, True, False]
