"""The client's address behind a proxy that is trusted (NGINX, Kong), from `X-Forwarded-For` or `Forwarded` (RFC 7239).

Anybody can send these headers, so they are read from the right, where the nearest proxy has written, and only as far as
those who wrote are trusted: the first address that is none of theirs is the client's. A word that is no address
(`unknown`, `_hidden`) ends the search: whose request it is, is not known. Nor is it where both headers are there and do
not agree: a proxy that knows one of them passes the other on as it came. Such a client has no address (`UNKNOWN`), and
not the proxy's: that is on the site, where more may be asked for.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDictProxy

UNKNOWN = "unknown"
"""Of a client whose address a trusted proxy has not told, or not in a way that can be believed."""

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


class TrustedProxies:
    """Addresses and networks whose word on a client's address is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[_Network, ...] = tuple(ip_network(one, strict=False) for one in networks)

    def client(self, peer: str, headers: CIMultiDictProxy[str]) -> str:
        """Return the address of the client whose request came from `peer`; UNKNOWN if only a proxy knows it."""
        nearest = _address(peer)
        if nearest is None or not self._trusts(nearest):
            return peer
        told = (_x_forwarded_for(headers), _forwarded(headers))
        found = {self._first_untrusted(hops) for hops in told if hops}
        if not found:
            return peer
        return found.pop() if len(found) == 1 else UNKNOWN

    def trusts(self, address: str) -> bool:
        """Whether it is one of theirs."""
        found = _address(address)
        return found is not None and self._trusts(found)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)

    def _first_untrusted(self, hops: list[str]) -> str:
        """Return the client of a chain that is not empty: the first that is none of theirs, else where it begins."""
        client = UNKNOWN
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                return UNKNOWN
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def middleware(self) -> Middleware:
        """Return what lets a request come from its client (`request.remote`)."""

        @web.middleware
        async def from_client(request: web.Request, handler: Handler) -> web.StreamResponse:
            client = self.client(request.remote or "", request.headers)
            return await handler(request if client == (request.remote or "") else request.clone(remote=client))

        return from_client


def _x_forwarded_for(headers: CIMultiDictProxy[str]) -> list[str]:
    return [hop.strip() for line in headers.getall("X-Forwarded-For", ()) for hop in line.split(",")]


def _forwarded(headers: CIMultiDictProxy[str]) -> list[str]:
    """Return what each element of `Forwarded` says of its `for`; an element without one says nothing."""
    return [
        next(_values(element, "for"), "") for line in headers.getall("Forwarded", ()) for element in _split(line, ",")
    ]


def _values(element: str, wanted: str) -> Iterator[str]:
    for pair in _split(element, ";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == wanted:
            yield value.strip().strip('"')


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator is not inside quotes."""
    parts, is_quoted = [""], False
    for character in text:
        if character == '"':
            is_quoted = not is_quoted
        if character == separator and not is_quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _address(text: str) -> _Address | None:
    """Return the address in `192.0.2.43`, `192.0.2.43:4711`, `2001:db8::17` or `[2001:db8::17]:4711`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
