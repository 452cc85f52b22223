"""A gateway in a thread of this process, on the same folder and with the same commands as one of its own process.

For tests of what is asked of a gateway: Python and all modules are there already. Signals, kills and what the gateway
writes about itself need a `GatewayProcess`.
"""

import asyncio
import os
from pathlib import Path
from threading import Event, Thread

import uvloop

from gateway.app import Gateway
from gateway.config import load
from tests.gateway_process import WAIT_S, GatewayProcess


class GatewayHere(GatewayProcess):
    """As GatewayProcess, but `start` starts no process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        ready = Event()
        self._thread = Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(WAIT_S)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Return when it has stopped, as by SIGTERM. Raises what it ended with."""
        if self._thread is None:
            return
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._thread = None
        if self._error is not None:
            raise self._error

    def kill(self) -> None:
        self.stop()

    def _run(self, ready: Event) -> None:
        try:
            uvloop.run(self._until_stopped(ready))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            self._error = error
        ready.set()

    async def _until_stopped(self, ready: Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("NEUROGATE_")}
        gateway = Gateway(load(self.folder / "neurogate.toml", environ).settings)

        def tell() -> None:
            self.mqtt_port, self.http_port = gateway._running.door.ports.mqtt, gateway._running.http.port
            ready.set()

        await gateway.run(self._stop, ready=tell)
