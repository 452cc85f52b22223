"""Whether memory is left, and whether the system has killed for want of it."""

from contextlib import suppress
from pathlib import Path

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning

_TIGHT_SHARE = 0.1
_TIGHT_BYTES = 50_000_000
_LOOK = "See who has it: ps aux --sort=-rss. Lower mqtt.buffers_max_bytes, or stop what is not needed."


async def memory(evidence: Evidence) -> list[Finding]:
    """Read what the kernel says."""
    proc = evidence.machine.proc
    figures = _figures(proc / "meminfo")
    total, free = figures.get("MemTotal", 0) * 1024, figures.get("MemAvailable", 0) * 1024
    if not total:
        return []
    words = f"{free / 1e6:,.0f} of {total / 1e6:,.0f} MB are free"
    if evidence.vitals is not None and evidence.vitals.memory_bytes:
        words += f"; the gateway has {evidence.vitals.memory_bytes / 1e6:,.0f} MB"
    if free < _TIGHT_BYTES:
        found = [broken(f"{words}: the system will end programs.", _LOOK)]
    elif free < total * _TIGHT_SHARE:
        found = [warning(f"{words}.", _LOOK)]
    else:
        found = [fine(f"{words}.")]
    if killed := _figures(proc / "vmstat").get("oom_kill", 0):
        hint = (
            "Which: journalctl -k --grep 'Out of memory'. If it was the gateway: neurogate diag collects what we need."
        )
        found.append(warning(f"The system has ended {killed} programs for want of memory since it started.", hint))
    return found


def _figures(file: Path) -> dict[str, int]:
    """Return the numbers of a file of lines `name: number unit` or `name number`; nothing if there is none."""
    figures = {}
    with suppress(OSError):
        for line in file.read_text("ascii").splitlines():
            name, *rest = line.replace(":", " ").split()
            with suppress(ValueError, IndexError):
                figures[name] = int(rest[0])
    return figures
