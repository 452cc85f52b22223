"""Timestamps as boards send them."""

from datetime import UTC, datetime

FIRST_CREDIBLE_MS = 1_577_836_800_000
"""2020-01-01: a board before NTP counts from 1970 or 2000."""
LAST_CREDIBLE_MS = 7_258_118_400_000
"""2200-01-01: beyond, it is a wrong unit, not a time."""

_MILLISECONDS_FROM = 100_000_000_000  # as seconds this would be the year 5138, as milliseconds it is 1973


def text_ms(text: str) -> int | None:
    """Return unix milliseconds of an RFC 3339 text (UTC where it names no zone); None when it is no time."""
    try:
        moment = datetime.fromisoformat(text)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def number_ms(number: float) -> int:
    """Return unix milliseconds of a number of seconds, or of milliseconds when it is too large for seconds."""
    return round(number if number >= _MILLISECONDS_FROM else number * 1000)


def unix_ms(timestamp: object) -> int | None:
    """Return unix milliseconds of an RFC 3339 text (UTC where it names no zone) or a number of seconds or milliseconds.

    None when it is not a time, or not one at which a board of ours could have measured.
    """
    ms: int | None
    if isinstance(timestamp, str):
        ms = text_ms(timestamp)
    elif isinstance(timestamp, int | float) and 0 < timestamp < LAST_CREDIBLE_MS and not isinstance(timestamp, bool):
        ms = number_ms(timestamp)
    else:
        return None
    return ms if ms is not None and FIRST_CREDIBLE_MS <= ms <= LAST_CREDIBLE_MS else None
