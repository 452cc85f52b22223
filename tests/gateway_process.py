"""A gateway as its own process, and the commands beside it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from gateway.config import Settings, load
from tests.command_line import neurogate

ROOT = Path(__file__).parents[1]
WAIT_S = 30
CONNACK = b"\x20\x02\0\0"

CONFIG = """
[gateway]
data_dir = "data"
[mqtt]
host = "127.0.0.1"
port = 0
websocket_port = 0
tls_port = 0
[http]
host = "127.0.0.1"
port = 0
tls_port = 0
rate_limit_per_minute = 0
[log]
format = "json"
"""


class GatewayProcess:
    """A folder with a configuration; a gateway runs on it between `start` and `stop` or `kill`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.socket = self.data_dir / "control.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.tracer: tuple[str, ...] = ()
        """A command that runs the gateway, under the same pid."""
        self.mqtt_port = 0
        self.http_port = 0
        (folder / "neurogate.toml").write_text(CONFIG)

    @property
    def settings(self) -> Settings:
        return load(self.folder / "neurogate.toml", {}).settings

    def popen(self, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEUROGATE_")}
        return subprocess.Popen(
            [*(self.tracer if arguments[0] == "run" else ()), sys.executable, "-m", "gateway.cli", *arguments],
            cwd=self.folder,
            env=inherited | {"PYTHONPATH": str(ROOT)},
            **pipes,
        )

    def neurogate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return neurogate(*arguments, folder=self.folder)

    def json(self, *arguments: str) -> Any:
        done = self.neurogate(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def start(self) -> None:
        self.process = self.popen("run", stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line)
            if event["message"] == "gateway ready":
                self.mqtt_port, self.http_port = event["mqtt_port"], event["http_port"]
                return
        raise AssertionError("the gateway did not start")

    def stop(self) -> None:
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.communicate(timeout=WAIT_S)
            self.process = None

    def post(self, password: str, *readings: dict[str, Any]) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/api/v1/sensor-data",
            json.dumps({"readings": readings}).encode(),
            {"x-api-key": password, "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return int(answer.status)

    def mqtt(self, username: str, password: str) -> socket.socket:
        """Return a connection on which the board has logged in."""
        connection = socket.create_connection(("127.0.0.1", self.mqtt_port), timeout=WAIT_S)
        connection.sendall(connect_packet(username, password))
        answer = connection.recv(4)
        if answer != CONNACK:
            connection.close()
            raise ConnectionRefusedError(answer)
        return connection


def connect_packet(username: str, password: str) -> bytes:
    fields = (b"board", username.encode(), password.encode())
    body = b"\0\4MQTT\4\xc2\0\0" + b"".join(len(one).to_bytes(2, "big") + one for one in fields)
    return bytes([0x10, len(body)]) + body


def reading(device_id: str, seq: int) -> dict[str, Any]:
    return {"device_id": device_id, "boot_id": "b", "seq": seq, "sensors": {"pir": {"motion_detected": True}}}
