"""libcoap's own server and client, of Debian's package libcoap3-bin: what others make of what we speak."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

KEY = "planted in a test: a shared key"


class CoapServer:
    """A server with resources that come to be as they are written to; its log says what it got."""

    def __init__(self, log: Path) -> None:
        self.port = 0
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on its old port if it had one."""
        plain = self.port - 1 if self.port else free_port()
        self.port = plain + 1  # so it does, by itself
        command = ["coap-server-openssl", "-d", "100", "-A", "127.0.0.1", "-p", str(plain), "-k", KEY, "-v", "7"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def pause(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def posted(self) -> list[str]:
        """The lines about requests that it got."""
        return re.findall(r"v:1 t:CON c:POST i:.*", self._log.read_text(errors="replace"))


@contextmanager
def coap_server(folder: Path) -> Iterator[CoapServer]:
    server = CoapServer(folder / "coap.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def coap_client(port: int, path: str, body: str, *, identity: str, key: str) -> str:
    """POST by libcoap's client; returns what it says."""
    url = f"coaps://127.0.0.1:{port}/{path}"
    command = ["-m", "post", "-t", "50", "-e", body, "-B", "3", "-u", identity, "-k", key, "-v", "7", url]
    process = await asyncio.create_subprocess_exec(
        "coap-client-openssl", *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return said.decode(errors="replace")
