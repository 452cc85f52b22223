"""By which names and addresses this machine is reached: as Linux knows them, and as mDNS announces it."""

import array
import fcntl
import re
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_SIOCGIFCONF = 0x8912
_IFREQ_BYTES = 40 if struct.calcsize("P") == 8 else 32  # noqa: PLR2004 - struct ifreq on 64 and 32 bits
_MOST_INTERFACES = 100
_ADDRESS = slice(20, 24)  # in struct ifreq: 16 bytes name, then a sockaddr_in
_TEMPORARY = 0x01  # IFA_F_TEMPORARY: gone tomorrow
_LABEL_BYTES = 63 - len("-20")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


def host_label(gateway_id: str) -> str:
    """Return what the gateway is called before `.local`, unless another one is called so."""
    return re.sub(r"[^A-Za-z0-9-]", "-", f"neurogate-{gateway_id}")[:_LABEL_BYTES].rstrip("-").lower()


def machine_names() -> tuple[str, ...]:
    """Return host names, the addresses of every network, and localhost; link-local addresses are left out."""
    names = []
    host = socket.gethostname().partition(".")[0]
    if _HOST_NAME.fullmatch(host):
        names = [host, f"{host}.local"]
    if (whole := socket.gethostname()) != host and all(map(_HOST_NAME.fullmatch, whole.split("."))):
        names.append(whole)
    loopback = ["localhost", "127.0.0.1", "::1"]
    addresses: list[IPv4Address | IPv6Address] = [*_ipv4(), *_ipv6()]
    found = [str(one) for one in addresses if not one.is_loopback and not one.is_link_local]
    return tuple(dict.fromkeys([*names, *sorted(found), *loopback]))


def _ipv4() -> list[IPv4Address]:
    room = array.array("B", bytes(_IFREQ_BYTES * _MOST_INTERFACES))
    where, size = room.buffer_info()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        answer = fcntl.ioctl(one, _SIOCGIFCONF, struct.pack("iP", size, where))
        (used,) = struct.unpack_from("i", answer)
        content = room.tobytes()
        return [IPv4Address(content[at:][_ADDRESS]) for at in range(0, used, _IFREQ_BYTES)]
    return []


def _ipv6() -> list[IPv6Address]:
    with suppress(OSError, ValueError):
        lines = [line.split() for line in Path("/proc/net/if_inet6").read_text("ascii").splitlines()]
        return [IPv6Address(bytes.fromhex(line[0])) for line in lines if not int(line[4], 16) & _TEMPORARY]
    return []
