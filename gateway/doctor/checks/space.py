"""Whether the disk has the room that the settings promise, and whether readings were lost for want of it."""

import os

from gateway.daemon_thread import in_daemon_thread
from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.model.reading import rfc3339

_FILES_LEFT = 1_000
_FREE_IT = "Free space on it (journalctl --vacuum-size=100M, apt-get clean), or use a larger disk."


async def space(evidence: Evidence) -> list[Finding]:
    """Hold what is free against max_bytes and min_free_bytes."""
    return [*await in_daemon_thread(lambda: _room(evidence)), *_losses(evidence)]


def _room(evidence: Evidence) -> list[Finding]:
    folder, limits = evidence.data_dir.path, evidence.settings.storage
    place = next(one for one in (folder, *folder.parents) if one.exists())
    left = os.statvfs(place)
    free = left.f_bavail * left.f_frsize
    words = f"{_mb(free)} are free"
    found = []
    if free < limits.min_free_bytes:
        what = "the oldest readings leave" if limits.overflow == "drop_oldest" else "no reading is taken in"
        found.append(
            broken(f"Only {words}, less than storage.min_free_bytes ({_mb(limits.min_free_bytes)}): {what}.", _FREE_IT)
        )
    else:
        used = sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) if folder.exists() else 0
        room = used + free - limits.min_free_bytes
        if room < limits.max_bytes:
            hint = "Use a larger disk, or set storage.max_bytes to what is there, to know when it is full."
            found.append(
                warning(f"{words}: the log may grow to {_mb(room)}, not to max_bytes ({_mb(limits.max_bytes)}).", hint)
            )
        else:
            found.append(fine(f"{words}; the log may grow to max_bytes ({_mb(limits.max_bytes)})."))
    if left.f_files and left.f_favail < _FILES_LEFT:
        found.append(broken(f"The disk has room for {left.f_favail} more files only.", "Remove some: df -i."))
    return found


def _losses(evidence: Evidence) -> list[Finding]:
    places = [] if evidence.buffer is None else evidence.buffer.destinations
    return [
        warning(
            f"{one.title} will never get {one.lost.readings:,} readings: no room since {rfc3339(one.lost.since_ms)}.",
            "Bring the destination back sooner, or give storage.max_bytes more room.",
        )
        for one in places
        if one.lost is not None
    ]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
