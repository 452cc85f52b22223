"""A process that is measured or helps with it: how it starts and ends, and what Linux says of it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_START_S = 60
_STOP_S = 20


def cpu_seconds(pid: int) -> float:
    """Return the processor time it has used, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return its resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def own_memory_mb(pid: int) -> float:
    """Return the memory that is its alone (USS): the part that goes when it ends."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024 / 1e6


def written_bytes(pid: int) -> int:
    """Return what it has given to the disk, in whole pages, counted when they are written to in the page cache."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.removeprefix("write_bytes: ")) for line in lines if line.startswith("write_bytes: "))


def sockets(pid: int) -> int:
    """Return how many sockets it holds, listening ones included."""
    return sum(str(one.readlink()).startswith("socket:") for one in Path(f"/proc/{pid}/fd").iterdir())


@asynccontextmanager
async def listening(module: str, *arguments: object) -> AsyncIterator[int]:
    """Run a module of ours that says in a line of JSON when it is ready, and where; yields its port."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *map(str, arguments)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        line = await asyncio.wait_for(running.stdout.readline(), _START_S)
        yield json.loads(line)["listening"]
    finally:
        await stop(running)


async def stop(process: asyncio.subprocess.Process) -> None:
    """End it, by force if it does not listen."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.communicate(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
