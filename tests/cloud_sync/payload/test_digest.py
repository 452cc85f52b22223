"""Many notifications in one message: what a person reads, and what a program finds."""

from cloud_sync.payload.digest import digest
from gateway.model.priorities import Priority
from tests.cloud_sync.samples import notification


def test_it_says_what_happened_how_often_the_most_urgent_first() -> None:
    wanted: list[tuple[str, Priority, int]] = [("Fire", "critical", 1), ("Door", "low", 3), ("Pump", "low", 40)]
    parts = [
        notification(subject=subject, priority=priority) for subject, priority, count in wanted for _ in range(count)
    ]
    made = digest("5a5a", parts)
    assert made.message.splitlines()[:3] == ["[critical] Fire", "40 x [low] Pump", "3 x [low] Door"]
    assert made.subject == "44 more: 1 critical, 43 low"
    assert (made.id, made.kind, made.priority, made.data) == ("5a5a", "digest", "critical", {"count": 44})
    assert list(made.parts) == parts


def test_it_is_short_however_many_there_are_and_says_how_many_are_left_out() -> None:
    made = digest("5a5a", [notification(subject=f"{n % 300} " + "x" * 500) for n in range(1_000)])
    lines = made.message.splitlines()
    assert len(lines) == 20 + 3
    assert all(len(line) <= 230 for line in lines)
    shown = sum(int(line.split()[0]) for line in lines[:20])
    assert lines[20] == f"… and {1_000 - shown} more, of 280 kinds."


def test_without_a_subject_the_first_line_says_what_it_is() -> None:
    made = digest(
        "5a5a",
        [notification(subject="", message="\nDoor 1\nis open"), notification(subject="", message="Door 1\nagain")],
    )
    assert made.message.startswith("2 x [high] Door 1\n")
