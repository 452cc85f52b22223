"""Where a reader of the log stands, and what it is sending."""

from dataclasses import dataclass

_BACKLOG = "/backlog"  # no destination's name has a slash


def backlog_of(destination: str) -> str:
    """Return the name of the cursor of a destination's backlog."""
    return destination + _BACKLOG


def destination_of(cursor: str) -> str:
    """Return whose cursor that is."""
    return cursor.removesuffix(_BACKLOG)


def other_cursor(cursor: str) -> str:
    """Return the name of the destination's other cursor: its backlog's, or the one behind that."""
    return destination_of(cursor) if cursor.endswith(_BACKLOG) else backlog_of(cursor)


@dataclass(slots=True, frozen=True)
class Attempt:
    """A batch frozen on disk before its first byte leaves, so that a retry is the same batch, also after a restart.

    What it contains follows from the rows it covers, which are never rewritten, and from `epochs`. The hash proves it.
    """

    destination: str
    """Or rather the cursor: a destination may have two."""
    batch_id: str
    after_row: int
    """Exclusive."""
    last_row: int
    """Inclusive."""
    readings: int
    """How many the log has there, sent or not."""
    body_sha256: str
    """Hexadecimal."""
    created_at_ms: int
    epochs: str = "{}"
    """What was known of the gateway's clock (JSON, epoch by boot): what is learned later does not change the batch."""
    historical_until: int = 0
    """Readings up to this row go out as `historical`."""
    chosen: str | None = None
    """The rows that are sent (JSON); None: all."""


@dataclass(slots=True, frozen=True)
class Cursor:
    """A named position: the last row its reader has dealt with."""

    name: str
    position: int
    attempt: Attempt | None
    """What was under way when the position was stored last."""
    until: int | None = None
    """The last row it is to deal with, of a backlog; None: whatever comes."""
