"""Where the gateway may connect to: a decision about one address, made when it is about to be connected to.

- by the address, not by the name in a URL: a name leads where its owner wants, and elsewhere the next time
- an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as that IPv4 address
- addresses at which clouds hand credentials to their machines are nobody's destination, in no network: only `any`, or
  an entry of their own, lets them through
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.config import EgressSettings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LAN: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # shared addresses (RFC 6598): carriers, and overlay networks such as Tailscale
    IPv6Network("fc00::/7"),
)
_METADATA = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
_LOCALHOST = ("127.0.0.1", "::1")  # where that name leads, whoever is asked (RFC 6761, 6.3)
_UNICAST_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class Egress:
    """See the module's own words."""

    def __init__(self, settings: EgressSettings) -> None:
        self._policy = settings.policy
        self._networks = [network for entry in settings.allow if (network := _network(entry)) is not None]
        self._names = {_plain(entry) for entry in settings.allow if _network(entry) is None}

    def allows(self, host: str, address: str) -> bool:
        """Whether to connect to `address`, which `host` has led to: a name, or the address itself."""
        found = _inner(ip_address(address.partition("%")[0]))  # behind % is an interface
        if self._policy == "any" or _plain(host) in self._names or any(found in network for network in self._networks):
            return True
        if found in _METADATA:
            return False
        return _is_public(found) or (self._policy == "lan" and any(found in network for network in _LAN))

    def certainly_forbids(self, host: str) -> bool:
        """Whether it is known without a connection that none is allowed: the host is an address, or `localhost`."""
        addresses = _LOCALHOST if _plain(host) == "localhost" else (host.strip("[]"),)
        try:
            return not any(self.allows(host, address) for address in addresses)
        except ValueError:  # a name: what counts is where it leads by then
            return False


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST_V6:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _network(entry: str) -> Network | None:
    """Return the network, or the single address as one; None for a name."""
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _plain(host: str) -> str:
    return host.lower().rstrip(".")
