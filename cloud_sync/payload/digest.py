"""Many notifications in one message, for people: what happened how often, the most urgent first.

What a person would not read is not in it: 20 kinds of lines at most, and it says how many more there are. Programs
find all of them in `parts`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cloud_sync.contract import Notification
from gateway.model.priorities import PRIORITIES, rank_of
from gateway.model.reading import rfc3339

KIND = "digest"
_LINES = 20
_LINE_CHARACTERS = 200


def digest(message_id: str, parts: Sequence[Notification]) -> Notification:
    """Return one notification of several, which are sorted: the most urgent first."""
    first = parts[0]
    lines = Counter((one.priority, _line(one)) for one in parts)
    ranked = sorted(lines.items(), key=lambda item: (-rank_of(item[0][0]), -item[1]))  # equal ones as they came
    shown = [
        f"{count} x [{priority}] {line}" if count > 1 else f"[{priority}] {line}"
        for (priority, line), count in ranked[:_LINES]
    ]
    rest = sum(count for _, count in ranked[_LINES:])
    if rest:
        shown.append(f"… and {rest} more, of {len(ranked) - _LINES} kinds.")
    since, until = min(one.at_ms for one in parts), max(one.at_ms for one in parts)
    subject = f"{len(parts)} more: {_counted(parts)}"
    times = f"From {rfc3339(since)} to {rfc3339(until)}; each is in the notification log."
    return replace(
        first,
        id=message_id,
        kind=KIND,
        subject=subject,
        message="\n".join([*shown, "", times]),
        at_ms=since,
        data={"count": len(parts)},
        parts=tuple(parts),
    )


def _line(one: Notification) -> str:
    text = one.subject or one.message.strip().splitlines()[0]
    return text if len(text) <= _LINE_CHARACTERS else text[: _LINE_CHARACTERS - 1] + "…"


def _counted(parts: Sequence[Notification]) -> str:
    counts = Counter(one.priority for one in parts)
    return ", ".join(f"{counts[one]} {one}" for one in reversed(PRIORITIES) if counts[one])
