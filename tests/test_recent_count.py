"""What happened lately, and no longer."""

from gateway.recent_count import WINDOW_MS, RecentCount


def test_it_counts_this_window_and_the_one_before() -> None:
    count = RecentCount()
    for at in (0, 1, WINDOW_MS - 1):
        count.add(at)
    assert count.count(WINDOW_MS - 1) == 3
    count.add(WINDOW_MS)
    assert count.count(WINDOW_MS) == 4
    assert count.count(2 * WINDOW_MS - 1) == 4
    assert count.count(2 * WINDOW_MS) == 1
    assert count.count(3 * WINDOW_MS) == 0


def test_after_a_long_silence_it_begins_anew() -> None:
    count = RecentCount()
    count.add(5)
    count.add(100 * WINDOW_MS)
    assert count.count(100 * WINDOW_MS) == 1
