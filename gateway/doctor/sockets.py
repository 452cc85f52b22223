"""Which ports are listened on, and by whom, as Linux tells it (proc(5), /proc/net/tcp)."""

import pwd
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

_LISTEN = "0A"
_SOMEWHERE = ("192.0.2.1", 9)  # for documentation (RFC 5737): asked for a route, nothing is sent


@dataclass(slots=True, frozen=True)
class Listening:
    """One socket that takes connections."""

    address: str
    port: int
    uid: int
    inode: str


def listening(proc: Path) -> list[Listening]:
    """Return every listening TCP socket of this network namespace."""
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with suppress(OSError):
            for line in (proc / "net" / name).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    found.append(Listening(_address(address, family), int(port, 16), int(fields[7]), fields[9]))
    return found


def _address(text: str, family: socket.AddressFamily) -> str:
    """Return an address of words of 32 bits, each in the machine's own order of bytes."""
    raw = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    if family == socket.AF_INET:
        return socket.inet_ntop(family, raw)
    return str(IPv6Address(raw))


def owner(one: Listening, proc: Path) -> tuple[int | None, str]:
    """Return the process that has the socket, if this user may see it, and words for who it is."""
    for fds in proc.glob("[0-9]*/fd"):
        with suppress(OSError):  # not ours to look into, or ended meanwhile
            if any(_target(fd) == f"socket:[{one.inode}]" for fd in fds.iterdir()):
                name = (fds.parent / "comm").read_text("utf-8").strip()
                return int(fds.parent.name), f"{name} (pid {fds.parent.name})"
    try:
        return None, f"a program of the user {pwd.getpwuid(one.uid).pw_name}"
    except KeyError:
        return None, f"a program of the user {one.uid}"


def _target(fd: Path) -> str:
    """Return what a descriptor is of; nothing if it has been closed since it was listed, as that of the listing is."""
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""


def own_address() -> str | None:
    """Return this machine's address in its network; None when it has no route to any."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_SOMEWHERE)
        return str(probe.getsockname()[0])
    return None
