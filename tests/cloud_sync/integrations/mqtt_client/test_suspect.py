"""When something is the reason that connections end: when that happens at the same, and so often in a row."""

from cloud_sync.integrations.mqtt_client.suspect import Suspect


def test_only_endings_at_the_same_count() -> None:
    suspect = Suspect[str]()
    assert [suspect.ended_at(key) for key in "aabaa"] == [1, 2, 1, 1, 2]


def test_only_endings_in_a_row_count() -> None:
    suspect = Suspect[str]()
    assert [suspect.ended_at("a"), suspect.ended_at("a")] == [1, 2]
    suspect.answered("b")  # that says nothing of another
    assert suspect.ended_at("a") == 3
    suspect.answered("a")
    assert (suspect.key, suspect.ended_at("a")) == (None, 1)
