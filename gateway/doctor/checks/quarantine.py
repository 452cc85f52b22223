"""What could not be read, and why mostly: a wrong format, or a device that nobody has registered."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning
from gateway.model.reading import rfc3339

_SHOWN = 3
_LATELY_MS = 24 * 3600 * 1000
_HINTS = {
    "no_device": "Let the route's mapping find the device id, or send with the device's own password.",
    "foreign_device": "A hub needs an organisation's credential: neurogate credential add. Or register the name: "
    "neurogate device add NAME --hardware-id ID.",
    "invalid_device_id": "Register it under another name: neurogate device add NAME --hardware-id ID.",
}
_TRY = (
    "See what came: neurogate buffer quarantine --json. Does the parser of the topic's route fit the device? "
    "Try a sample: neurogate parser test FILE --topic TOPIC."
)


async def quarantine(evidence: Evidence) -> list[Finding]:
    """Name the most frequent kinds, and of each the newest words."""
    troubles = evidence.troubles
    if troubles is None:
        return []
    if not troubles.quarantine:
        return [fine("Everything that came in could be read.")]
    found = []
    for kind in troubles.quarantine[:_SHOWN]:
        who = f"{kind.device_id}, " if kind.device_id else ""
        words = (
            f"{kind.count:,} messages are in quarantine ({kind.code}), the last of {rfc3339(kind.last_ms)}"
            f" ({who}{kind.source}): {kind.reason}"
        )
        is_old = troubles.now_ms - kind.last_ms > _LATELY_MS
        found.append(fine(words) if is_old else warning(words, _HINTS.get(kind.code, _TRY)))
    return found
