"""Whether the data directory lies on a disk that keeps what is written, and how fast."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from gateway.daemon_thread import in_daemon_thread
from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.storage.data_dir import DataDir

_SYNCS = 5
_BLOCK = b"\0" * 4096
_SLOW_S = 0.25
_ELSEWHERE = "Set gateway.data_dir to a folder on a disk (ext4) of this machine."
_KINDS = {
    "tmpfs": broken("The data directory is in memory (tmpfs): a restart loses every reading.", _ELSEWHERE),
    "ramfs": broken("The data directory is in memory (ramfs): a restart loses every reading.", _ELSEWHERE),
    "overlay": warning(
        "The data directory is on an overlay: what is written leaves with the container, or at the next start.",
        "Mount a volume there; on a Raspberry Pi switch the overlay file system off (raspi-config).",
    ),
    "vfat": warning("The data directory is on FAT: keys are open to everybody, and a power cut tears it.", _ELSEWHERE),
    "exfat": warning(
        "The data directory is on exFAT: keys are open to everybody, and a power cut tears it.", _ELSEWHERE
    ),
    "nfs": warning("The data directory is on a network: databases break there when the network does.", _ELSEWHERE),
    "nfs4": warning("The data directory is on a network: databases break there when the network does.", _ELSEWHERE),
    "cifs": warning("The data directory is on a network: databases break there when the network does.", _ELSEWHERE),
    "9p": warning(
        "The data directory is shared with a host (9p): whether a sync reaches its disk is not sure.", _ELSEWHERE
    ),
}


async def disk(evidence: Evidence) -> list[Finding]:
    """Look at the file system, and write and sync a small file."""
    folder = evidence.data_dir.path
    if not folder.exists():
        return [warning(f"{folder} is not there yet.", "neurogate init makes it.")]
    found = []
    mounts = (evidence.machine.proc / "self/mountinfo").read_text("utf-8")
    kind, options = await in_daemon_thread(lambda: file_system(folder, mounts))
    if kind in _KINDS:
        found.append(_KINDS[kind])
    if "ro" in options:
        found.append(
            broken(
                "The disk is mounted read-only: nothing can be stored.",
                "Perhaps it is failing: see dmesg. sudo mount -o remount,rw, and copy what is on it.",
            )
        )
    try:
        took_s = await in_daemon_thread(lambda: sync_s(folder))
    except OSError as error:
        return [*found, _not_written(evidence.data_dir, error)]
    words = f"A write is on disk ({kind}) after {took_s * 1000:,.1f} ms."
    if took_s < _SLOW_S:
        return [*found, fine(words)]
    hint = "Boards are acknowledged that late. Use a better SD card (A2) or an SSD, or set storage.commit_max_delay_ms."
    return [*found, warning(words, hint)]


def _not_written(data_dir: DataDir, error: OSError) -> Finding:
    if isinstance(error, PermissionError):
        return broken(
            f"This user may not write to {data_dir.path}.",
            f"Run this as the gateway's user: sudo -u {data_dir.owner} neurogate doctor. If it is: chown the folder.",
        )
    return broken(
        f"Nothing can be written to {data_dir.path}: {error.strerror}.", "See dmesg, and free space on the disk."
    )


def sync_s(folder: Path) -> float:
    """Return how long it takes until 4 KiB are on disk, the median of a few. Raises OSError."""
    took = []
    with tempfile.TemporaryFile(prefix=".doctor-", dir=folder, buffering=0) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(_BLOCK)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return median(took)


def file_system(folder: Path, mountinfo: str) -> tuple[str, list[str]]:
    """Return the type of the file system that a folder is on, and its options (proc(5), mountinfo)."""
    path, best = str(folder.resolve()), ("unknown", list[str]())
    longest = -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        point = fields[4].encode().decode("unicode_escape")  # a space is written \040
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two at one place, the later covers the earlier
            longest, best = len(point), (kind[0], [*fields[5].split(","), *kind[2].split(",")])
    return best
