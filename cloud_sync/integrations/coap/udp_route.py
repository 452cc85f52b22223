"""By which of a host's addresses it is spoken to over UDP: one that does not answer is left for the next.

A UDP socket connects to anything, also where no way leads, as it is with IPv6 in many networks. So only whoever waits
for an answer knows, and says so; the next attempt, of anybody who shares the route, is by another address.
"""

import socket
from dataclasses import dataclass, field

from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_socket import open_socket


@dataclass(slots=True)
class UdpRoute:
    """See the module's own words."""

    host: str
    port: int
    egress: Egress
    turn: int = field(default=0, init=False)
    """How many addresses were left, from the first on and around."""

    async def open(self) -> socket.socket:
        """Return a socket by the address whose turn it is. Raises as `open_socket`."""
        return await open_socket(self.host, self.port, self.egress, socket.SOCK_DGRAM, turn=self.turn)

    def leave(self, turn: int) -> None:
        """Hear that nobody has answered in this turn; several may say so of one."""
        if turn == self.turn:
            self.turn += 1
