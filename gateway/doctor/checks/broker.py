"""Whether the broker works and keeps its rights, tried as its clients do."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding


async def broker(evidence: Evidence) -> list[Finding]:
    """Let the running gateway try it; a credential of its own lives as long as that."""
    return [] if evidence.try_broker is None else await evidence.try_broker()
