"""Which boards have a wrong clock: their readings get the gateway's time, or worse, keep a wrong one of their own."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning
from gateway.operations.troubles import DeviceHealth

_SHOWN = 10
_QUARTER_S = 900
_ZONE_SLACK_S = 60
_NTP = "Let the board set its clock by NTP before it sends, or send age_ms, or no timestamp at all."


async def board_clocks(evidence: Evidence) -> list[Finding]:
    """Hold what the newest readings claim against when they came."""
    troubles = evidence.troubles
    if troubles is None or not evidence.clock.is_synced():  # whose clock is wrong is not known then
        return []
    found = []
    if unset := [one.device_id for one in troubles.devices if one.clock == "unset"]:
        words = (
            f"Boards send times from before 2020: {', '.join(unset[:_SHOWN])}. Their readings get the gateway's time."
        )
        found.append(warning(words, _NTP))
    for one in [one for one in troubles.devices if one.clock in {"ahead", "behind"}][:_SHOWN]:
        words = f"The clock of {one.device_id} is {one.clock} by {abs(one.clock_off_ms) / 1000:,.0f} s."
        found.append(warning(words, "It sends local time as UTC: correct that." if _is_zone(one) else _NTP))
    return found or ([fine("No board has a wrong clock.")] if troubles.devices else [])


def _is_zone(one: DeviceHealth) -> bool:
    """Whether it is off by the difference of some time zone."""
    beside = abs(one.clock_off_ms) / 1000 % _QUARTER_S
    return min(beside, _QUARTER_S - beside) < _ZONE_SLACK_S
