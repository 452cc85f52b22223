"""Who reconnects all the time, and whose password is wrong."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning

_MANY = 10
_SHOWN = 10
_RECONNECT = (
    "Look at their Wi-Fi and power, and the reasons in the gateway's log (connection closed: …)."
    " Two clients with one client id throw each other out (taken_over): give each its own."
)


async def logins(evidence: Evidence) -> list[Finding]:
    """Look at the last ten to twenty minutes."""
    vitals = evidence.vitals
    if vitals is None:
        return []
    found = []
    restless = sorted((one for one in vitals.logins if one.logins >= _MANY), key=lambda one: -one.logins)
    refused = sorted((one for one in vitals.logins if one.refused), key=lambda one: -one.refused)
    if restless:
        words = ", ".join(f"{one.username} ({one.logins} times)" for one in restless[:_SHOWN])
        found.append(warning(f"Clients reconnect all the time: {words}.", _RECONNECT))
    if refused:
        words = ", ".join(f"{one.username} ({one.refused} times)" for one in refused[:_SHOWN])
        found.append(
            warning(
                f"Clients fail to log in with a wrong password: {words}.",
                "Give the board the right one; a new one: neurogate device rotate, neurogate credential rotate.",
            )
        )
    known = sum(one.refused for one in refused)
    elsewhere = sorted(vitals.failing_addresses, key=lambda one: -one.failures)
    if sum(one.failures for one in elsewhere) > known + _MANY:
        words = ", ".join(f"{one.address} ({one.failures} times)" for one in elsewhere[:_SHOWN])
        found.append(
            warning(
                f"Logins fail from: {words}.",
                "A board there has a username that is not registered, or a token is wrong: neurogate device list.",
            )
        )
    for reason, times in _full(vitals.metrics):
        found.append(
            warning(
                f"{times:,.0f} connections were refused or closed since the start ({reason}).",
                "See the limits in [mqtt].",
            )
        )
    return found or [fine("Nobody fails to log in, or reconnects all the time.")]


def _full(metrics: str) -> list[tuple[str, float]]:
    """Return what was refused for want of room."""
    return [
        (sample.labels["reason"], sample.value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "neurogate_front_door_refused_total"
        and sample.labels["reason"] in {"too_many_connections", "buffers_full", "store_full"}
        and sample.value
    ]
