"""How real deliveries go: what the forwarders say, and what waits."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.status import DestinationStatus
from gateway.operations.buffer import Place

_LONG_S = 3600
_HINTS = (
    (
        ("HTTP 401", "HTTP 403"),
        "It does not accept who we are: correct auth_token, api_key or the signing secret, on both sides.",
    ),
    (("HTTP 404", "HTTP 405", "redirect"), "Correct its url and method."),
    (("certificate",), "See the check destinations, and the clock."),
    (("egress",), "Allow the address: egress.allow."),
    (("HTTP 4",), "It refuses the content: its own log says why. Does its payload_template fit?"),
)


async def delivery(evidence: Evidence) -> list[Finding]:
    """Tell for each destination whether it gets its readings."""
    if evidence.status is not None:
        return [_running(one) for one in evidence.status.destinations]
    return [_stopped(one) for one in ([] if evidence.buffer is None else evidence.buffer.destinations)]


def _running(one: DestinationStatus) -> Finding:
    waiting = f"{one.undelivered:,} readings wait"
    if one.state == "error" or one.delivery == "stopped":
        return broken(
            f"{one.title} does not take readings: {one.last_error}. {waiting}; none is lost yet.",
            _hint(one),
        )
    if one.failures:
        words = f"{one.title} fails since {one.failures} attempts: {one.last_error}. {waiting}."
        return warning(words, f"It is tried again by itself. {_hint(one)}")
    if one.oldest_seconds > _LONG_S:
        hint = "It catches up; if the number grows, raise rate_limit_per_minute, or send it less (report, sensors)."
        return warning(f"{one.title}: {waiting}, the oldest for {one.oldest_seconds / 3600:.1f} h.", hint)
    return fine(f"{one.title} got {one.delivered:,} readings since the start; {one.undelivered:,} are on their way.")


def _hint(one: DestinationStatus) -> str:
    return next(
        (hint for marks, hint in _HINTS if any(mark in one.last_error for mark in marks)), "See the check destinations."
    )


def _stopped(one: Place) -> Finding:
    if not one.undelivered:
        return fine(f"{one.title} has got everything.")
    return warning(f"{one.title} still has to get {one.undelivered:,} readings.", "They go out when the gateway runs.")
