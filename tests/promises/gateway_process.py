"""`neurogate run` as a process of its own, that can be stopped, killed and started again on the same ports."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.promises.site import ROOT, Site

_START_S = 30.0
_STOP_S = 20.0

PRODUCT = ("-m", "gateway.cli")


class GatewayProcess:
    """An async context manager: what still runs at the end is killed."""

    def __init__(self, site: Site, *, program: Sequence[str] = PRODUCT, tracer: Sequence[str] = ()) -> None:
        self._site = site
        self._command = (*tracer, sys.executable, *program, "run", "--config", str(site.config))
        self._is_traced = bool(tracer)
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.said: list[dict[str, Any]] = []
        """Its log, as JSON objects."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, ValueError):  # it has just ended
                os.kill(self._pid(), signal.SIGKILL)
            await self._ended()

    async def start(self) -> None:
        """Start it; returns when its ports are open."""
        self._ready.clear()
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._site.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=asyncio.subprocess.PIPE,
            limit=1_000_000,
        )
        self._listener = asyncio.create_task(self._listen(process))
        await asyncio.wait_for(self._ready.wait(), _START_S)
        assert not self._listener.done(), self.said[-5:]

    async def kill(self) -> None:
        """kill -9; returns when it has been reaped."""
        os.kill(self._pid(), signal.SIGKILL)
        await self._ended()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        os.kill(self._pid(), number)
        return await self._ended()

    async def undelivered(self, destination: str) -> int:
        """Return how many readings are still to be delivered there."""
        url = f"http://127.0.0.1:{self._site.http_port}/ready"
        async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout(10)) as answer:
            status = await answer.json()
        counts: dict[str, int] = {one["name"]: one["undelivered"] for one in status["destinations"]}
        return counts[destination]

    async def everything_delivered(self, destination: str, patience_s: float) -> None:
        """Return when everything that is stored has been delivered there."""
        async with asyncio.timeout(patience_s):
            while await self.undelivered(destination):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)

    def _pid(self) -> int:
        """Return the gateway's own process id: behind a tracer, that of its child."""
        assert self._process is not None
        pid = self._process.pid
        if self._is_traced:
            return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        return pid

    async def _ended(self) -> int:
        assert self._process is not None
        assert self._listener is not None
        code = await asyncio.wait_for(self._process.wait(), _STOP_S)
        await asyncio.wait_for(self._listener, _STOP_S)
        self._process = None
        return code

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = {"message": line.decode().rstrip()}  # a traceback of Python itself
                self.said.append(event)
                if event["message"] == "gateway ready":
                    self._ready.set()
        finally:
            self._ready.set()
