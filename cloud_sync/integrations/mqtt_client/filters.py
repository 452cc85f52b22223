"""Topic filters as people write them down."""

from typing import Any

from gateway.model.topics import is_topic_filter


def listed(topics: Any) -> Any:  # noqa: ANN401 - what stands in the file
    """Return a list of what may be a text with commas."""
    return [one.strip() for one in topics.split(",")] if isinstance(topics, str) else topics or ()


def checked_filters(topics: tuple[str, ...]) -> tuple[str, ...]:
    """Return them. Raises ValueError for what is no topic filter."""
    for one in topics:
        if not is_topic_filter(one):
            raise ValueError(f"{one[:100]!r} is no topic filter.")
    return topics
