"""Whether this machine's time can be believed. A Pi without a battery starts in the past; certificates need a date."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import rfc3339
from gateway.parsers.timestamp import FIRST_CREDIBLE_MS

_JUMP_MS = 5_000
_SYNC_HINT = "Let it be set by NTP: timedatectl set-ntp true, and see timedatectl timesync-status."


async def clock(evidence: Evidence) -> list[Finding]:
    """Look at the time, its source, and whether it was set while the gateway ran."""
    now_ms, synced = evidence.clock.now_ms(), evidence.clock.is_synced()
    found = []
    newest_ms = _newest_heard_ms(evidence)
    if now_ms < FIRST_CREDIBLE_MS:
        found.append(
            broken(
                f"The clock says {rfc3339(now_ms)}: no certificate is accepted and receivers refuse signatures.",
                _SYNC_HINT,
            )
        )
    elif synced:
        found.append(fine(f"The clock is synchronised, and says {rfc3339(now_ms)}."))
    else:
        found.append(
            warning(
                f"The clock is not synchronised; it says {rfc3339(now_ms)}. Boards' own times are believed.",
                _SYNC_HINT,
            )
        )
    if newest_ms is not None and newest_ms > now_ms + _JUMP_MS:
        found.append(broken(f"The clock is behind the newest reading, which came at {rfc3339(newest_ms)}.", _SYNC_HINT))
    moved_ms = 0 if evidence.vitals is None else evidence.vitals.clock_moved_ms
    if abs(moved_ms) >= _JUMP_MS:
        found.append(_moved(moved_ms, synced=synced))
    if not any((evidence.machine.sys / "class/rtc").glob("rtc*")):
        words = "This machine has no clock with a battery: after a power cut its time is wrong until NTP sets it."
        found.append(fine(words) if synced else warning(words, "See that it reaches a time server, or fit a DS3231."))
    return found


def _moved(moved_ms: int, *, synced: bool) -> Finding:
    way = "forward" if moved_ms > 0 else "back"
    words = f"Since the gateway started, the clock was set {way} by {abs(moved_ms) / 1000:,.0f} s."
    if synced:
        return fine(f"{words} Times of readings from before are corrected.")
    return warning(words, "Nobody vouches for it. " + _SYNC_HINT)


def _newest_heard_ms(evidence: Evidence) -> int | None:
    if evidence.troubles is None:
        return None
    return max((one.last_heard_ms for one in evidence.troubles.devices if one.last_heard_ms is not None), default=None)
