"""What destinations have refused, and why mostly."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning
from gateway.model.reading import rfc3339

_HINT = "Correct what it complains of, then: neurogate buffer replay --all. Or give them up: neurogate buffer drop."


async def dead_letters(evidence: Evidence) -> list[Finding]:
    """Name for each destination how many there are, and the most frequent reason."""
    if evidence.troubles is None:
        return []
    by_destination: dict[str, int] = {}
    for kind in evidence.troubles.refused:
        by_destination[kind.destination] = by_destination.get(kind.destination, 0) + kind.count
    found = []
    for destination, count in by_destination.items():
        worst = next(one for one in evidence.troubles.refused if one.destination == destination)
        words = f"{destination} has refused {count:,} readings, mostly (last {rfc3339(worst.last_ms)}): {worst.reason}"
        found.append(warning(words, _HINT))
    return found or [fine("No destination has refused a reading for good.")]
