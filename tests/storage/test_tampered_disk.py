"""What the simulated power cut relies on: the order in which SQLite, as it is here, writes and syncs."""

import subprocess
import sys
from pathlib import Path

from tests.promises.site import ROOT
from tests.promises.system_calls import calls, tracer

_WAL_HEADER_BYTES = 32
_PATIENCE_S = 60.0


def test_the_header_of_a_write_ahead_log_is_synced_before_its_first_frame(tmp_path: Path) -> None:
    """By a writer whose few commits make it begin the write-ahead log anew."""
    trace = tmp_path / "trace"
    writer = (sys.executable, "-m", "tests.promises.tough_writer", str(tmp_path / "log.db"))
    subprocess.run([*tracer(trace), *writer], cwd=ROOT, check=True, capture_output=True, timeout=_PATIENCE_S)
    made = list(calls(trace))
    headers = [index for index, call in enumerate(made) if len(call.data) == _WAL_HEADER_BYTES]
    assert len(headers) > 1, "the write-ahead log was not begun anew"
    for index in headers:
        header, sync, frame, *_ = made[index:]
        assert (sync.name, sync.file) == ("fdatasync", header.file)
        assert header.ended < sync.began
        assert (frame.name, frame.file) == ("pwrite64", header.file)
        assert sync.ended < frame.began
