# The machine's sockets, with the ESP32's getaddrinfo: an address shows itself as ("1.2.3.4", port). Names are those of
# the file names ("gateway.local 127.0.0.1", one a line) and nothing else: a virtual board asks no one outside.
from socket import *

_get = control["get"]


class _Address(bytes):
    def __getitem__(self, index):
        _, address, port = real_socket.sockaddr(bytes(self))
        return (".".join([str(byte) for byte in address]), port)[index]


def _resolved(name):
    if _get("wifi_down", None) is not None:
        raise OSError(-202)
    for line in ("localhost 127.0.0.1\n" + _get("names", "")).split("\n"):
        if line.split()[:1] == [name]:
            return line.split()[1]
    if all(part.isdigit() for part in name.split(".")):
        return name
    raise OSError(-202)


def getaddrinfo(name, port, family=0, kind=0, protocol=0, flags=0):
    found = real_socket.getaddrinfo(_resolved(name), port, 0, kind or real_socket.SOCK_STREAM)
    return [one[:4] + (_Address(one[4]),) for one in found]
