"""How long a topic or a topic filter may be, as its client knows it: each level that is kept costs memory."""

from gateway.config import MqttSettings


def too_long(name: str, settings: MqttSettings) -> str:
    """Return what of a topic or a filter is too long; empty when nothing is."""
    if (levels := name.count("/") + 1) > settings.max_topic_levels:
        return f"{levels} levels"
    if (size := len(name.encode())) > settings.max_topic_bytes:
        return f"{size} bytes"
    return ""
