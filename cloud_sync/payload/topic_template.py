"""The topic of a reading: text with fields such as `{device_id}`, which are filled in."""

import re
from collections.abc import Sequence

from gateway.model.reading import StoredReading

READING_FIELDS = ("device_id", "organization_id", "gateway_id")

_FIELD = re.compile(r"\{([^{}]*)\}")


class TopicTemplate:
    """See the module's own words. Raises ValueError for a field that there is not, and for braces that are none."""

    def __init__(self, text: str, fields: Sequence[str] = READING_FIELDS) -> None:
        pieces = _FIELD.split(text)
        if not {*pieces[1::2]} <= {*fields} or any("{" in rest or "}" in rest for rest in pieces[::2]):
            raise ValueError(f"in braces there may be {', '.join(f'{{{one}}}' for one in fields)}.")
        self._text, self._constants, self._names = text, pieces[::2], pieces[1::2]
        self.example = "x".join(self._constants)
        """With every field filled in by one letter: what is wrong with it is wrong with all."""

    def has(self, *fields: str) -> bool:
        """Whether it has one of these fields."""
        return not {*fields}.isdisjoint(self._names)

    def may_match(self, topic_filter: str) -> bool:
        """Whether a topic that it may make matches a filter."""
        if self._text.startswith("$") and topic_filter[:1] in {"+", "#"}:
            return False
        levels, filters = self._text.split("/"), topic_filter.split("/")
        for index, part in enumerate(filters):
            if part == "#":
                return True
            if index >= len(levels):
                return False
            if "{sensor}" in levels[index]:  # as a device names it: it may have levels of its own
                return True
            pattern = "[^/]*".join(map(re.escape, _FIELD.split(levels[index])[::2]))
            if part != "+" and not re.fullmatch(pattern, part):
                return False
        return len(levels) == len(filters)

    def filled(self, reading: StoredReading, gateway_id: str, sensor: str = "") -> str:
        """Return the topic of a reading, or of what one of its sensors says."""
        values = {
            "device_id": reading.device_id,
            "organization_id": reading.organization_id,
            "gateway_id": gateway_id,
            "sensor": sensor,
        }
        filled = (values[name] + rest for name, rest in zip(self._names, self._constants[1:], strict=True))
        return self._constants[0] + "".join(filled)
