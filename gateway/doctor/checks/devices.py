"""Which devices have fallen silent, and which were never heard."""

from collections.abc import Iterable

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning
from gateway.model.reading import rfc3339
from gateway.operations.troubles import DeviceHealth

_AT_LEAST_MS = 15 * 60 * 1000
_AT_MOST_MS = 24 * 3600 * 1000
_USUALLY_MS = 60 * 60 * 1000
_TIMES = 10
_SHOWN = 10


async def devices(evidence: Evidence) -> list[Finding]:
    """Hold for each device the time since its last reading against how often it usually sends."""
    troubles = evidence.troubles
    if troubles is None:
        return []
    found = []
    silent = [one for one in troubles.devices if _is_silent(one, troubles.now_ms)]
    never = [one for one in troubles.devices if one.last_heard_ms is None and one.status == "active"]
    logged_in = [one for one in never if one.last_login_ms is not None]
    if silent:
        silent.sort(key=lambda one: one.last_heard_ms or 0, reverse=True)
        words = ", ".join(f"{one.device_id} ({_since(one)})" for one in silent[:_SHOWN])
        more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
        found.append(
            warning(
                f"Devices have fallen silent: {words}{more}.",
                "Look at their power and Wi-Fi. A V-Mark hub stops when it does not hear its reply: it must subscribe.",
            )
        )
    if logged_in:
        hint = "See where they publish (neurogate device show shows the topics) and what is in quarantine."
        found.append(warning(f"Devices log in, but no reading came: {_names(logged_in)}.", hint))
    if quiet := [one for one in never if one.last_login_ms is None]:
        hint = "Flash them with this gateway's address and their password; a new one: neurogate device rotate."
        found.append(warning(f"Devices were registered and never heard: {_names(quiet)}.", hint))
    if found or not troubles.devices:
        return found
    return [fine(f"All {len(troubles.devices)} devices were heard as often as usual.")]


def _is_silent(one: DeviceHealth, now_ms: int) -> bool:
    if one.last_heard_ms is None:
        return False
    usual_ms = _USUALLY_MS if one.usual_gap_ms is None else one.usual_gap_ms
    patience_ms = min(max(_TIMES * usual_ms, _AT_LEAST_MS), max(_AT_MOST_MS, 3 * usual_ms))
    return now_ms - one.last_heard_ms > patience_ms


def _since(one: DeviceHealth) -> str:
    connected = ", though connected" if one.connections else ""
    return f"since {rfc3339(one.last_heard_ms or 0)}{connected}"


def _names(some: Iterable[DeviceHealth]) -> str:
    names = [one.device_id for one in some]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
