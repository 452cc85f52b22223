"""What this process has open, and what it does at this moment."""

import asyncio
import resource
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

_SELF = Path("/proc/self")


def open_files() -> int:
    """Return how many descriptors are open; 0 where the system does not say."""
    with suppress(OSError):
        return sum(1 for _ in (_SELF / "fd").iterdir())
    return 0


def open_files_at_most() -> int:
    """Return how many may be."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def memory_bytes() -> int:
    """Return the resident memory; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int((_SELF / "statm").read_text("ascii").split()[1]) * resource.getpagesize()
    return 0


def tasks() -> list[str]:
    """Return the event loop's tasks by name, each with where it waits."""
    return sorted(_task(task) for task in asyncio.all_tasks())


def threads() -> list[str]:
    """Return each thread with its stack: places only, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        "\n".join([names.get(ident, "?"), *(_place(one) for one in traceback.extract_stack(frame))])
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - there is no other way to it
    ]


def _task(task: asyncio.Task[object]) -> str:
    frames = task.get_stack(limit=1)
    if not frames:
        return task.get_name()
    code = frames[0].f_code
    return f"{task.get_name()} at {code.co_filename}:{frames[0].f_lineno} {code.co_name}"


def _place(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} {frame.name}"
