"""P5 and P1 on a disk that fails: whichever write, sync or truncation it is, nothing acknowledged is lost.

And the writer neither ends nor hangs, and goes on by itself when the disk is well again. strace makes the calls fail.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.extent import much
from tests.promises.readings import integrity, missing, repeated, stored
from tests.promises.site import ROOT
from tests.promises.tough_writer import BOOT, DEVICE, READINGS

_POINTS = much(8, 20)
"""Of each kind of call and each error, spread over all the calls that are made."""
_LASTS = 12
"""Calls that fail one after another when the disk stays broken for a while."""
_AT_ONCE = 2
_PATIENCE_S = 30.0
_CHANGES = ("pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "unlink", "rename")
_HARMLESS = frozenset(
    {
        *("access", "close", "fchown", "fchmod", "fcntl", "flock", "fstat", "getcwd", "geteuid", "lseek", "lstat"),
        *("madvise", "mmap", "munmap", "newfstatat", "open", "openat", "pread64", "read", "readlink", "stat", "statfs"),
        *("statx", "chmod", "ioctl", "fstatfs", "getdents64", "rt_sigreturn", "mremap"),
    }
)
_CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed)")


@dataclass(slots=True, frozen=True)
class Told:
    """What a writer said before it ended."""

    code: int
    acked: set[int]
    delivered: set[int]
    """These may leave a disk that is full."""
    refused: int
    done: bool
    stderr: str


def run(folder: Path, *strace: str) -> Told:
    """Let a writer write to an empty folder; every call that matters is on these files."""
    folder.mkdir()
    databases = ("log.db", "log.db.building")  # a new log is built beside its name
    beside = ("", "-wal", "-shm", "-journal")
    files = [folder, folder / "ballast", *(folder / f"{name}{end}" for name in databases for end in beside)]
    paths = [word for file in files for word in ("-P", str(file))]
    command = ["strace", "-f", "--seccomp-bpf", "-qq", *paths, "-o", str(folder.with_suffix(".trace")), *strace]
    writer = [sys.executable, "-m", "tests.promises.tough_writer", str(folder / "log.db")]
    done = subprocess.run(
        [*command, *writer], cwd=ROOT, capture_output=True, timeout=_PATIENCE_S, check=False, text=True
    )
    lines = done.stdout.splitlines()
    acked = {int(line.split()[1]) for line in lines if line.startswith("acked ")}
    delivered = {int(line.split()[1]) for line in lines if line.startswith("delivered ")}
    refused = sum(line.startswith("refused ") for line in lines)
    return Told(done.returncode, acked, delivered, refused, "done" in lines, done.stderr)


def made(trace: Path) -> Iterator[tuple[str, str]]:
    """Yield thread and name of every call."""
    for line in trace.read_text(errors="replace").splitlines():
        if (match := _CALL.match(line)) and "resumed" not in match[0]:
            yield match[1], match[2]


@pytest.fixture(scope="module")
def most(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often one thread makes each call when nothing fails (strace counts by thread)."""
    folder = tmp_path_factory.mktemp("well") / "site"
    told = run(folder)
    assert told.done
    most: Counter[str] = Counter()
    for (_, call), times in Counter(made(folder.with_suffix(".trace"))).items():
        most[call] = max(most[call], times)
    return most


def test_p5_every_kind_of_call_that_changes_a_file_is_known(most: Counter[str]) -> None:
    assert set(most) - _HARMLESS <= set(_CHANGES)
    assert min(most["pwrite64"], most["fdatasync"]) > _POINTS


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("call", _CHANGES)
def test_p5_no_failing_call_loses_what_is_acknowledged(
    tmp_path: Path, most: Counter[str], call: str, error: str
) -> None:
    times = most[call]
    points = sorted({1 + index * times // _POINTS for index in range(_POINTS)}) if times else []
    faults = [f"{point}" for point in points] + [f"{point}..{point + _LASTS}" for point in points[:: _POINTS // 4]]
    with ThreadPoolExecutor(_AT_ONCE) as several:
        failed = list(several.map(lambda when: survives(tmp_path / when, call, error, when), faults))
    assert sum(failed) >= len(faults) // 2  # the last calls are not made every time


def survives(folder: Path, call: str, error: str, when: str) -> bool:
    """Check the promises; returns whether any call has failed."""
    told = run(folder, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")
    what = f"{call}, {error}, {when}: {told}"
    assert told.code == 0, what
    assert told.done, what
    assert "Traceback" not in told.stderr, what
    in_log = stored(folder / "log.db")
    assert told.acked == set(range(1, READINGS + 1)), what
    kept = told.acked if error == "EIO" else told.acked - told.delivered
    assert not missing({(DEVICE, BOOT): kept}, in_log), what
    assert told.delivered >= told.acked, what
    assert not repeated(in_log), what
    assert integrity(folder / "log.db") == "ok", what
    return "(INJECTED)" in folder.with_suffix(".trace").read_text(errors="replace")
