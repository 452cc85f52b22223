"""mDNS, with another multicast DNS on the loopback interface as whoever looks for a gateway."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import ifaddr
import pytest
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from gateway import __version__, mdns
from gateway.config import Settings
from gateway.machine_names import host_label
from gateway.mdns import Addresses, Announced, Announcer, announced, local_addresses
from tests.gateway_process import GatewayProcess
from tests.site import until

PATIENCE_S = 20.0
TYPES = ["_mqtt._tcp.local.", "_secure-mqtt._tcp.local.", "_http._tcp.local."]
LOOPBACK = frozenset({"127.0.0.1"})
NUMBERS = count()


class Network:
    """The addresses that a machine has, as a test sets them."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Addresses = frozenset(addresses)

    def __call__(self) -> Addresses:
        return self.addresses


class Browser:
    """Whoever looks for gateways."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.seen: set[str] = set()
        self.zeroconf: Zeroconf

    def heard(self, *, service_type: str, name: str, state_change: ServiceStateChange, zeroconf: Zeroconf) -> None:
        del service_type, zeroconf
        if name.startswith(self.label):
            (self.seen.discard if state_change is ServiceStateChange.Removed else self.seen.add)(name)

    async def info(self, name: str) -> AsyncServiceInfo:
        await until(lambda: name in self.seen, f"{name} seen", patience_s=PATIENCE_S)
        info = AsyncServiceInfo(name.partition(".")[2], name)
        assert await info.async_request(self.zeroconf, 3_000)
        return info


@asynccontextmanager
async def browsing(label: str) -> AsyncIterator[Browser]:
    browser = Browser(label)
    browser_zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"])
    browser.zeroconf = browser_zeroconf.zeroconf
    async with AsyncServiceBrowser(browser.zeroconf, TYPES, handlers=[browser.heard]):
        yield browser
    await browser_zeroconf.async_close()


@asynccontextmanager
async def running(announcer: Announcer) -> AsyncIterator[None]:
    task = asyncio.create_task(announcer.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def label() -> str:
    return f"neurogate-test-{next(NUMBERS)}"


def services(*, secure: int = 0) -> list[Announced]:
    return announced(Settings(), mqtt_port=1883, http_port=8080, secure_mqtt_port=secure)


async def test_whoever_looks_finds_address_port_and_what_it_is_until_it_goes(label: str) -> None:
    async with browsing(label) as browser:
        async with running(Announcer(label, services(secure=8883), Network("127.0.0.1"))):
            for service, port in (("_mqtt", 1883), ("_secure-mqtt", 8883), ("_http", 8080)):
                info = await browser.info(f"{label}.{service}._tcp.local.")
                assert (info.port, info.parsed_addresses(), info.server) == (port, ["127.0.0.1"], f"{label}.local.")
                path = {"path": "/api/v1"} if service == "_http" else {}
                assert info.decoded_properties == {"id": "site-1", "version": __version__} | path
        await until(lambda: not browser.seen, "a goodbye", patience_s=PATIENCE_S)


async def test_without_a_tls_port_no_secure_mqtt_is_told(label: str) -> None:
    assert [one.type for one in services()] == ["_mqtt._tcp.local.", "_http._tcp.local."]
    async with browsing(label) as browser, running(Announcer(label, services(), Network("127.0.0.1"))):
        await browser.info(f"{label}._http._tcp.local.")
        assert browser.seen == {f"{label}._mqtt._tcp.local.", f"{label}._http._tcp.local."}


async def test_a_network_that_comes_goes_and_changes_is_followed(label: str) -> None:
    network = Network()
    announcer = Announcer(label, services(), network, look_every_s=0.05)
    name = f"{label}._mqtt._tcp.local."
    async with browsing(label) as browser, running(announcer):
        await asyncio.sleep(0.3)
        assert (browser.seen, announcer.name) == (set(), "")
        network.addresses = LOOPBACK
        assert (await browser.info(name)).parsed_addresses() == ["127.0.0.1"]
        network.addresses = frozenset()
        await until(lambda: not browser.seen, "a goodbye", patience_s=PATIENCE_S)
        network.addresses = LOOPBACK | {"127.0.0.2"}
        assert sorted((await browser.info(name)).parsed_addresses()) == ["127.0.0.1", "127.0.0.2"]


async def test_two_of_one_name_are_told_apart_and_said(label: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Announcer(label, services(), Network("127.0.0.1")) for _ in range(2))
    async with browsing(label) as browser, running(first):
        await browser.info(f"{label}._mqtt._tcp.local.")
        async with running(second):
            info = await browser.info(f"{label}-2._mqtt._tcp.local.")
            assert info.server == f"{label}-2.local."
            await until(lambda: second.name == f"{label}-2.local.", patience_s=PATIENCE_S)
    assert "give each an id of its own (gateway.id)" in caplog.text


async def test_where_multicast_is_impossible_it_is_said_once(
    label: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def impossible(**_: object) -> AsyncZeroconf:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mdns, "AsyncZeroconf", impossible)
    monkeypatch.setattr(mdns, "_TRY_AGAIN_S", 0.0)
    caplog.set_level(logging.DEBUG)
    async with running(Announcer(label, services(), Network("192.0.2.7"), look_every_s=0.01)):
        monkeypatch.setattr(mdns, "_TRY_AGAIN_S", 0.02)
        await until(lambda: tries > 3)
    assert caplog.text.count("the network is not told") == 1


def test_nothing_is_told_that_others_cannot_reach() -> None:
    inside = Settings.model_validate({"mqtt": {"host": "127.0.0.1"}, "http": {"host": "192.0.2.7"}})
    mqtt, http = announced(inside, mqtt_port=1883, http_port=8080)
    network = frozenset({"192.0.2.7", "192.0.2.8"})
    assert (mqtt.reachable_at(network), http.reachable_at(network)) == ([], ["192.0.2.7"])
    named = Settings.model_validate({"mqtt": {"host": "localhost"}})
    assert [one.type for one in announced(named, mqtt_port=1883, http_port=0)] == []
    assert not LOOPBACK & local_addresses([])
    assert local_addresses(["lo"]) >= LOOPBACK


@pytest.mark.parametrize(
    "name", ["docker0", "br-1f", "wg0", "wg-home", "tun0", "tap3", "tailscale0", "ztabcdef12", "eth0", "wlan0", "br0"]
)
def test_bridges_of_containers_and_tunnels_are_told_nothing_unless_they_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = ifaddr.Adapter(name, name, [ifaddr.IP("192.0.2.7", 24, name)])
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [adapter])
    told = name in {"eth0", "wlan0", "br0"}
    assert local_addresses([]) == ({"192.0.2.7"} if told else set())
    assert local_addresses([name]) == {"192.0.2.7"}
    assert local_addresses(["eth7"]) == set()


@pytest.mark.parametrize(
    ("gateway_id", "label"),
    [("site-1", "neurogate-site-1"), ("Hall_2.west", "neurogate-hall-2-west"), ("x" * 64, "neurogate-" + "x" * 50)],
)
def test_every_id_makes_a_host_name(gateway_id: str, label: str) -> None:
    assert host_label(gateway_id) == label
    assert len(f"{label}-20") <= 63


async def test_a_whole_gateway_is_found_and_one_that_is_told_not_to_is_not(tmp_path: Path) -> None:
    """On the loopback interface, since that was named; and as it is run, on uvloop."""
    label = "neurogate-e2e"
    for enabled in ("false", "true"):
        folder = tmp_path / enabled
        folder.mkdir()
        gateway = GatewayProcess(folder)
        config = folder / "neurogate.toml"
        config.write_text(
            config.read_text().replace("[gateway]", '[gateway]\nid = "e2e"')
            + f'[mdns]\nenabled = {enabled}\ninterfaces = ["lo"]\n'
        )
        async with browsing(label) as browser:
            await asyncio.to_thread(gateway.start)
            try:
                if enabled == "true":
                    info = await browser.info(f"{label}._mqtt._tcp.local.")
                    assert (info.port, info.parsed_addresses()) == (gateway.mqtt_port, ["127.0.0.1"])
                    assert (await browser.info(f"{label}._http._tcp.local.")).port == gateway.http_port
                else:
                    await asyncio.sleep(1)
                    assert browser.seen == set()
            finally:
                await asyncio.to_thread(gateway.stop)
            await until(lambda: not browser.seen, "a goodbye", patience_s=PATIENCE_S)
