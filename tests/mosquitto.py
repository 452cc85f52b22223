"""A real mosquitto, as somebody else's broker."""

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cloud_sync.integrations.certificates import Authority
from tests.ports import free_port

WAIT_S = 30


@dataclass(frozen=True)
class Mosquitto:
    """One that runs."""

    ports: Mapping[str, int]
    """By `mqtt`, `ws`, `mqtts`, `wss`, and `mutual`: TLS with a certificate of the client's."""
    log: Path
    ca: str
    identity: tuple[str, str]
    """A certificate for `mutual`, and its key."""


@contextmanager
def broker(folder: Path, *, username: str, password: str, readable: str = "#") -> Iterator[tuple[int, int, Path]]:
    """Run one with one user, who may read what a filter matches; yield its ports (TCP, WebSocket) and its log."""
    rights = f"user {username}\ntopic read {readable}\n"
    listeners = {"mqtt": "", "ws": "protocol websockets\n"}
    with _running(folder, {username: password}, rights, listeners) as (ports, log):
        yield ports["mqtt"], ports["ws"], log


@contextmanager
def mosquitto(folder: Path, *, users: Mapping[str, str], rights: str, more: str = "") -> Iterator[Mosquitto]:
    """Run one by all transports, with these users and their passwords, and rights as its `acl_file` says them."""
    authority = Authority(folder)
    certificate, key = authority.identity("127.0.0.1")
    (folder / "server.crt").write_text(certificate)
    (folder / "server.key").write_text(key)
    tls = f"certfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
    mutual = f"{tls}cafile {authority.file}\nrequire_certificate true\n"
    websocket = "protocol websockets\n"
    listeners = {"mqtt": "", "ws": websocket, "mqtts": tls, "wss": tls + websocket, "mutual": mutual}
    with _running(folder, users, rights, listeners, more) as (ports, log):
        yield Mosquitto(ports, log, authority.file.read_text(), authority.identity("gateway"))


@contextmanager
def _running(
    folder: Path, users: Mapping[str, str], rights: str, listeners: Mapping[str, str], more: str = ""
) -> Iterator[tuple[dict[str, int], Path]]:
    ports = {name: free_port() for name in listeners}
    (folder / "users").touch(mode=0o600)
    for username, password in users.items():
        command = ["mosquitto_passwd", "-b", str(folder / "users"), username, password]
        subprocess.run(command, check=True, timeout=WAIT_S)
    (folder / "acl").write_text(rights)
    (folder / "mosquitto.conf").write_text(
        "".join(f"listener {ports[name]} 127.0.0.1\n{said}" for name, said in listeners.items())
        + f"allow_anonymous false\npassword_file {folder}/users\nacl_file {folder}/acl\n"
        f"persistence_location {folder}/\n"
        "user root\n"  # or root becomes one of its own, who may not look into the folder; others stay who they are
         + more
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf"), "-v"], stdout=log, stderr=log)
    try:
        for port in ports.values():
            await_port(port)
        yield ports, folder / "log"
    finally:
        process.terminate()
        process.wait(WAIT_S)


def await_port(port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
