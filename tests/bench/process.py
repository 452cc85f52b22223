"""What Linux says of a process that is measured."""

import asyncio
import os
import signal
from pathlib import Path

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


def sockets(pid: int) -> int:
    """Return how many sockets it holds, listening ones included."""
    return sum(str(one.readlink()).startswith("socket:") for one in Path(f"/proc/{pid}/fd").iterdir())


async def stop(process: asyncio.subprocess.Process) -> None:
    """End it, by force if it does not listen."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.communicate(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
