"""Whether the gateway may open as many sockets as it has to."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning

_NEARLY = 0.8
_SPARE = 500
_HINT = "Raise it: LimitNOFILE= in the service's unit, or ulimit -n, and restart the gateway."


async def open_files(evidence: Evidence) -> list[Finding]:
    """Hold what is open, and what may have to be, against the limit."""
    vitals = evidence.vitals
    if vitals is None or not vitals.open_files:
        return []
    most = vitals.open_files_at_most
    words = f"{vitals.open_files:,} of {most:,} files and sockets are open"
    if vitals.open_files > most * _NEARLY:
        return [broken(f"{words}: soon nobody can connect.", _HINT)]
    wanted = evidence.settings.mqtt.max_connections + _SPARE
    if most < wanted:
        return [warning(f"{words}; mqtt.max_connections needs {wanted:,}.", _HINT)]
    return [fine(f"{words}.")]
