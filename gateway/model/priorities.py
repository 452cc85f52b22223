"""How urgent something is: the words of the API, in their order."""

from typing import Literal, get_args

Priority = Literal["low", "medium", "high", "critical"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The least urgent first."""


def rank_of(priority: Priority) -> int:
    """Return a number that grows with the urgency."""
    return PRIORITIES.index(priority)
