"""A command inside this process: what it says and its exit code are those of `neurogate`, without a start of Python.

Of each command one test at least starts a process: tests/promises/test_p7 runs them all.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from unittest import mock

from gateway.cli import main

_ONE_AT_A_TIME = threading.Lock()  # arguments, folder and streams are the process's


def neurogate(
    *arguments: str, folder: Path, typed: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as `cd folder; neurogate ARGUMENTS`; of NEUROGATE_… it knows only `environ`. Not in a loop."""
    assert asyncio._get_running_loop() is None, "a command has its own event loop: call it in a thread"
    known = {name: value for name, value in os.environ.items() if not name.startswith("NEUROGATE_")}
    with (
        _ONE_AT_A_TIME,
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, known | dict(environ or {}), clear=True),
        mock.patch.object(sys, "argv", ["neurogate", *arguments]),
    ):
        stdin.write(typed)
        stdin.seek(0)
        with (
            mock.patch.object(sys, "stdin", open(stdin.fileno(), encoding="utf-8", closefd=False)),
            mock.patch.object(sys, "stdout", _text(out)),
            mock.patch.object(sys, "stderr", _text(err)),
        ):
            code = _exit_code()
            sys.stdout.flush()
            sys.stderr.flush()
        return subprocess.CompletedProcess(arguments, code, _said(out), _said(err))


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    return 0


def _text(file: IO[bytes]) -> IO[str]:
    return open(file.fileno(), "w", encoding="utf-8", errors="surrogateescape", closefd=False)


def _said(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
