"""Paths into a JSON value, as a configuration names them: `station.values[0].t`, `['a key']`, `$` for the whole.

A small part of JSONPath (RFC 9535): names and indices, one result. There are no wildcards, filters or functions.
"""

import re
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.?(?P<name>[^\s.\[\]'"$]+) | \[(?P<index>-?\d{1,9})\] | \['(?P<single>[^']*)'\] | \["(?P<double>[^"]*)"\]""",
    re.VERBOSE,
)


class PathNotFound(LookupError):
    """There is nothing at a path; says how far it led."""


@dataclass(slots=True, frozen=True)
class JsonPath:
    """A path that has been understood."""

    text: str
    from_root: bool
    """Whether it begins with `$`: at the whole value, wherever one stands."""
    steps: tuple[str | int, ...]

    def find(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """Return what the path leads to. Raises PathNotFound."""
        for count, step in enumerate(self.steps):
            try:
                value = _enter(value, step)
            except LookupError:
                before = "".join(map(_shown, self.steps[:count])).lstrip(".")
                where = f"{before} is {_kind(value)}" if before else f"the message is {_kind(value)}"
                raise PathNotFound(f"{self.text} was not found: {where} without {_shown(step).lstrip('.')}") from None
        return value


def parse_path(text: str) -> JsonPath:
    """Understand a path. Raises ValueError, with words for whoever wrote it."""
    from_root = text.startswith("$")
    rest, position, steps = text[from_root:], 0, list[str | int]()
    while position < len(rest):
        step = _STEP.match(rest, position)
        if step is None or (rest[position] != "." and rest[position] != "[" and (position > 0 or from_root)):
            raise ValueError(f"{text!r} is no path: it reads like station.values[0].t or ['a key'].t")
        index = step["index"]
        steps.append(
            int(index) if index is not None else next(part for part in step.group(1, 3, 4) if part is not None)
        )
        position = step.end()
    if not steps and not from_root:
        raise ValueError("a path names at least one key; $ is the whole message")
    return JsonPath(text, from_root, tuple(steps))


def _enter(value: Any, step: str | int) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict) and isinstance(step, str):
        return value[step]
    if isinstance(value, list) and isinstance(step, int):
        return value[step]
    raise LookupError


def _shown(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _STEP.fullmatch(step) else f"['{step}']"


def _kind(value: Any) -> str:  # noqa: ANN401 - JSON
    match value:
        case None:
            return "null"
        case dict():
            return "an object"
        case list():
            return f"an array of {len(value)}"
        case bool():
            return "a boolean"
        case str():
            return "a text"
        case _:
            return "a number"
