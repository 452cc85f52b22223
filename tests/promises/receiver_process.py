"""`python -m cloud_sync.receiver` as a process of its own, that can be stopped and started again on the same port."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.promises.readings import Stored, Stream
from tests.promises.site import ROOT

_START_S = 30.0
_STOP_S = 10.0


@dataclass(slots=True, frozen=True)
class Request:
    """One that the receiver has answered with success."""

    webhook_id: str
    readings: list[tuple[str, str, str, int]]
    """Reading id, device, boot_id, seq."""


class ReceiverProcess:
    """An async context manager: what still runs at the end is killed."""

    def __init__(self, port: int, secret: Path, record: Path) -> None:
        self._port = port
        self._record = record
        options = ("--port", str(port), "--secret-file", str(secret), "--record", str(record))
        self._command = (sys.executable, "-m", "cloud_sync.receiver", *options)
        self._process: asyncio.subprocess.Process | None = None
        self.counted: Counter[str] = Counter()
        """Its counts, summed up over restarts; see `count`."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def start(self) -> None:
        """Start it; returns when it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _START_S)
        assert json.loads(line) == {"listening": self._port}

    async def stop(self) -> None:
        """Count, and stop it."""
        assert self._process is not None
        await self.count()
        self._process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self._process.wait(), _STOP_S) == 0
        self._process = None

    async def count(self) -> None:
        """Add what it has counted since it was started to `counted`."""
        url = f"http://127.0.0.1:{self._port}/stats"
        async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout(10)) as answer:
            stats: dict[str, Any] = await answer.json()
        self.counted.update(stats)

    def recorded(self) -> Iterator[dict[str, Any]]:
        """Yield every batch it ever recorded, as it was written down."""
        with self._record.open("rb") as lines:
            yield from map(json.loads, lines)

    def requests(self) -> list[Request]:
        """Return everything it ever recorded."""
        requests = []
        for recorded in self.recorded():
            readings = [(one["id"], one["device_id"], one["boot_id"], one["seq"]) for one in recorded["readings"]]
            requests.append(Request(recorded["webhook_id"], readings))
        return requests


def delivered(requests: Iterable[Request]) -> Stored:
    """Return which readings have arrived, and how often."""
    found: dict[Stream, list[int]] = defaultdict(list)
    for request in requests:
        for _, device, boot_id, seq in request.readings:
            found[device, boot_id].append(seq)
    return found
