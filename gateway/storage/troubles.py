"""What the log holds that its owner should look at, by kind: never what a reading says."""

from dataclasses import dataclass

from gateway.storage.log_reader import LogReader

_QUARANTINE = """WITH kinds AS (SELECT count(*) AS count, max(id) AS newest FROM quarantine GROUP BY code)
    SELECT q.code, k.count, q.reason, q.source, q.organization_id, q.device_id, q.received_at_ms
    FROM kinds k JOIN quarantine q ON q.id = k.newest ORDER BY k.count DESC"""
_DEAD_LETTERS = """SELECT destination, reason, count(*) AS count, max(last_at_ms) FROM dead_letters
    WHERE provisional = 0 GROUP BY destination, reason ORDER BY count DESC, destination LIMIT 100"""


@dataclass(slots=True, frozen=True)
class QuarantineKind:
    """Input that could not be used for one kind of reason; the words are those of the newest."""

    code: str
    count: int
    reason: str
    source: str
    organization_id: str
    device_id: str
    last_ms: int


@dataclass(slots=True, frozen=True)
class RefusedKind:
    """What one destination has refused for one reason."""

    destination: str
    reason: str
    """In the destination's words."""
    count: int
    last_ms: int


async def quarantine_kinds(log: LogReader) -> list[QuarantineKind]:
    """Return what is in quarantine, the most frequent kind first."""
    return [QuarantineKind(*row) for row in await log.fetch(_QUARANTINE)]


async def refused_kinds(log: LogReader) -> list[RefusedKind]:
    """Return the dead letters by destination and reason, the most frequent first."""
    return [RefusedKind(*row) for row in await log.fetch(_DEAD_LETTERS)]
