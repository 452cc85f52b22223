"""Tells the local network where this gateway is (multicast DNS, RFC 6762; service discovery, RFC 6763).

- `_mqtt._tcp`, `_secure-mqtt._tcp` and `_http._tcp`, as `neurogate-ID.local`; the name of the machine is left to
  whoever tells that already (Avahi would take two tellers for two machines)
- a network that comes, goes or gets other addresses is noticed within seconds
- a name that another gateway has is followed by a number, and that is said
- where multicast is impossible, as in most containers, that is logged once and costs nothing further

It announces only what others can reach: nothing that listens on this machine alone, no bridge of containers; and only
to the local network: nothing through a tunnel (VPN), unless that is named.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import ifaddr
from zeroconf import Error as MdnsError
from zeroconf import NonUniqueNameException, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from gateway import __version__
from gateway.config import Settings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
_TRY_AGAIN_S = 60.0
_GOODBYE_S = 3.0
_NAMES = 20
_INTERNAL = r"lo\d*|docker\d*|br-.*|veth.*|virbr\d*|lxc.*|lxdbr\d*|cni\d*|flannel.*|podman\d*"
"""Interfaces behind which there is only this machine."""
_TUNNELS = r"wg.*|tun.*|tap.*|tailscale.*|zt.*"
"""Interfaces behind which there is somebody else's network (WireGuard, OpenVPN, Tailscale, ZeroTier)."""
_NOT_LOCAL = re.compile(f"{_INTERNAL}|{_TUNNELS}")

Addresses = frozenset[str]


@dataclass(slots=True, frozen=True)
class Announced:
    """One service of this gateway."""

    type: str
    port: int
    host: str
    """The address that it listens on; `0.0.0.0` and `::` are all."""
    properties: dict[str, str] = field(default_factory=dict)

    def reachable_at(self, addresses: Addresses) -> list[str]:
        """Return at which of the machine's addresses."""
        return sorted(addresses if ip_address(self.host).is_unspecified else addresses & {self.host})


def announced(settings: Settings, *, mqtt_port: int, http_port: int, secure_mqtt_port: int = 0) -> list[Announced]:
    """Return what a gateway offers; a port of 0 is none."""
    about = {"id": settings.gateway.id, "version": __version__}
    services = [
        Announced("_mqtt._tcp.local.", mqtt_port, settings.mqtt.host, about),
        Announced("_secure-mqtt._tcp.local.", secure_mqtt_port, settings.mqtt.host, about),
        Announced("_http._tcp.local.", http_port, settings.http.host, about | {"path": "/api/v1"}),
    ]
    return [service for service in services if service.port and _is_address(service.host)]


def local_addresses(interfaces: Sequence[str]) -> Addresses:
    """Return the addresses of the interfaces, or of all behind which there may be others of the local network."""
    return frozenset(
        str(ip.ip if ip.is_IPv4 else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if (adapter.name in interfaces if interfaces else not _NOT_LOCAL.fullmatch(str(adapter.name)))
        and (ip.is_IPv4 or not ip_address(ip.ip[0]).is_link_local)  # it would need the asker's own name for the link
    )


class Announcer:
    """See the module's own words. `run` announces until it is cancelled, and then says goodbye."""

    def __init__(
        self,
        label: str,
        services: Sequence[Announced],
        addresses: Callable[[], Addresses],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._label = label
        self._services = services
        self._addresses = addresses
        self._look_every_s = look_every_s
        self._told = ""
        self.name = ""
        """How the gateway is called on the network now, with `.local.`; empty while it is not announced."""

    async def run(self) -> None:
        """Announce, for ever."""
        logging.getLogger("zeroconf").setLevel(logging.ERROR)  # it warns of every interface that goes away
        while True:
            addresses = self._look()
            if any(service.reachable_at(addresses) for service in self._services):
                try:
                    async with self._announced(addresses):
                        await self._until_changed(addresses)
                except (TimeoutError, OSError, MdnsError) as error:
                    self._say("the network is not told where this gateway is (mDNS): %s", error)
                    await self._until_changed(addresses, for_s=_TRY_AGAIN_S)
            else:
                await self._until_changed(addresses)

    async def _until_changed(self, addresses: Addresses, *, for_s: float = float("inf")) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + for_s
        while self._look() == addresses and loop.time() < until:  # noqa: ASYNC110 - the kernel calls nobody back
            await asyncio.sleep(self._look_every_s)

    def _look(self) -> Addresses:
        try:
            return self._addresses()
        except OSError as error:
            self._say("this machine's addresses are not known, so nobody is told them (mDNS): %s", error)
            return frozenset()

    @asynccontextmanager
    async def _announced(self, addresses: Addresses) -> AsyncIterator[None]:
        interfaces = sorted(one for one in addresses if ip_address(one).version == 4) or sorted(addresses)  # noqa: PLR2004 - IPv4
        mdns = AsyncZeroconf(interfaces=interfaces)
        try:
            self.name = await self._register(mdns, addresses)
            self._say("the network is told where this gateway is (mDNS): %s", self.name.rstrip("."), logging.INFO)
            yield
        finally:
            self.name = ""
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await mdns.async_close()
            except OSError as error:  # the network has gone before
                logger.debug("no goodbye: %s", error)

    async def _register(self, mdns: AsyncZeroconf, addresses: Addresses) -> str:
        """Return the name under which the services are announced: the first that nobody else has."""
        for number in range(1, _NAMES + 1):
            label = self._label if number == 1 else f"{self._label}-{number}"
            try:
                for service in self._services:
                    if reachable := service.reachable_at(addresses):
                        info = ServiceInfo(
                            service.type,
                            f"{label}.{service.type}",
                            port=service.port,
                            parsed_addresses=reachable,
                            properties=service.properties,
                            server=f"{label}.local.",
                        )
                        await (await mdns.async_register_service(info))
            except NonUniqueNameException:
                await mdns.async_unregister_all_services()
                self._say("another gateway is called %s: give each an id of its own (gateway.id)", label)
            else:
                return f"{label}.local."
        raise MdnsError(f"{_NAMES} gateways are called {self._label}")

    def _say(self, words: str, what: object, level: int = logging.WARNING) -> None:
        """Say it, unless it was the last that was said."""
        if self._told != (told := words % what):
            self._told = told
            logger.log(level, words, what)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
