"""What a check has found: one sentence, and what to do next. Said by `neurogate doctor` and by integrations."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "broken"]


@dataclass(slots=True, frozen=True)
class Finding:
    """Whole sentences, without secrets."""

    level: Level
    """`ok`, `warning` (it works, but not for ever or not well) or `broken` (something does not work)."""
    words: str
    hint: str = ""
    """What to do next; nothing where nothing is to be done."""


def fine(words: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding("ok", words)


def warning(words: str, hint: str) -> Finding:
    """Return a finding of something that works, and had better be looked at."""
    return Finding("warning", words, hint)


def broken(words: str, hint: str) -> Finding:
    """Return a finding of something that does not work."""
    return Finding("broken", words, hint)
