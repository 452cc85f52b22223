"""A real mosquitto, as somebody else's broker."""

import getpass
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

WAIT_S = 30


@contextmanager
def broker(folder: Path, *, username: str, password: str, readable: str = "#") -> Iterator[tuple[int, int, Path]]:
    """Run one with one user, who may read what a filter matches; yield its ports (TCP, WebSocket) and its log."""
    mqtt, websocket = free_port(), free_port()
    users = folder / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), username, password], check=True, timeout=WAIT_S)
    (folder / "acl").write_text(f"user {username}\ntopic read {readable}\n")
    (folder / "mosquitto.conf").write_text(
        f"listener {mqtt} 127.0.0.1\nlistener {websocket} 127.0.0.1\nprotocol websockets\nallow_anonymous false\n"
        f"password_file {users}\nacl_file {folder}/acl\n"
        f"user {getpass.getuser()}\n"  # or it becomes one of its own, who may not look into the folder
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf"), "-v"], stdout=log, stderr=log)
    try:
        for port in (mqtt, websocket):
            _await(port)
        yield mqtt, websocket, folder / "log"
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _await(port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
