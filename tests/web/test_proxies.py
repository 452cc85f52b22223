"""The client's address behind a proxy: believed as far as those who wrote it are trusted."""

from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config import Settings
from gateway.web.proxies import TrustedProxies
from tests.broker.raw import connect
from tests.broker.raw_websocket import WebSocketClient
from tests.site import Site, reading, running_site, until

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"])
XFF, FORWARDED = "X-Forwarded-For", "Forwarded"
SENSOR_DATA = "/api/v1/sensor-data"


def client(peer: str, *headers: tuple[str, str]) -> str:
    return PROXIES.client(peer, CIMultiDictProxy(CIMultiDict(headers)))


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("192.0.2.1", [(XFF, "198.51.100.7")], "192.0.2.1"),  # anybody may say so
        ("10.1.2.3", [(XFF, "198.51.100.7")], "198.51.100.7"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", [(XFF, "1.1.1.1, 198.51.100.7")], "198.51.100.7"),  # what it was told, it only passes on
        ("10.1.2.3", [(XFF, "1.1.1.1, 198.51.100.7, 10.9.9.9")], "198.51.100.7"),
        ("10.1.2.3", [(XFF, "1.1.1.1"), (XFF, "198.51.100.7")], "198.51.100.7"),
        ("10.1.2.3", [(XFF, "10.0.0.5, 10.0.0.6")], "10.0.0.5"),
        ("10.1.2.3", [(XFF, "198.51.100.7, unknown, 10.0.0.6")], "unknown"),
        ("10.1.2.3", [(XFF, "nonsense")], "unknown"),
        ("10.1.2.3", [(XFF, "198.51.100.7:4711")], "198.51.100.7"),
        ("::ffff:10.1.2.3", [(XFF, "::ffff:198.51.100.7")], "198.51.100.7"),
        ("2001:db8:1::5", [(XFF, "2001:db8:2::17")], "2001:db8:2::17"),
        ("10.1.2.3", [(FORWARDED, "for=198.51.100.7;proto=https;by=10.1.2.3")], "198.51.100.7"),
        ("10.1.2.3", [(FORWARDED, 'For="[2001:db8:cafe::17]:4711"')], "2001:db8:cafe::17"),
        ("10.1.2.3", [(FORWARDED, "for=1.1.1.1, for=198.51.100.7"), (FORWARDED, "for=10.2.2.2")], "198.51.100.7"),
        ("10.1.2.3", [(FORWARDED, 'for="_a,b;for=6.6.6.6", for=198.51.100.7')], "198.51.100.7"),
        ("10.1.2.3", [(FORWARDED, "for=198.51.100.7, proto=https")], "unknown"),
        ("10.1.2.3", [(FORWARDED, "for=_hidden")], "unknown"),
        ("10.1.2.3", [(XFF, "198.51.100.7"), (FORWARDED, "for=198.51.100.7")], "198.51.100.7"),
        ("10.1.2.3", [(XFF, "198.51.100.7"), (FORWARDED, "for=6.6.6.6")], "unknown"),  # one of them is forged
        ("10.1.2.3", [(XFF, "")], "unknown"),
        ("", [(XFF, "198.51.100.7")], ""),
    ],
)
def test_the_first_that_is_not_trusted_is_the_client(peer: str, headers: list[tuple[str, str]], expected: str) -> None:
    assert client(peer, *headers) == expected


def test_nobody_is_trusted_unless_it_is_said() -> None:
    assert Settings().http.trusted_proxies == ()
    headers = CIMultiDictProxy(CIMultiDict({XFF: "198.51.100.7"}))
    assert TrustedProxies(()).client("127.0.0.1", headers) == "127.0.0.1"


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "proxy.local", ""])
def test_what_is_no_network_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network"):
        Settings.model_validate({"http": {"trusted_proxies": [wrong]}})


async def failed(site: Site, **headers: str) -> None:
    async with site.http.post(site.url(SENSOR_DATA), data=b"", headers={"x-api-key": "wrong"} | headers) as response:
        assert response.status == 401


def failures(site: Site, address: str) -> int:
    delay = site.gateway._running.door.login_delay
    return delay._failures.get(("address", address), (0, 0))[0]


async def test_the_login_delay_is_the_clients_behind_a_trusted_proxy_only(tmp_path: Path) -> None:
    async with running_site(tmp_path / "trusting", http={"trusted_proxies": ["127.0.0.1"]}) as site:
        await failed(site, **{XFF: "198.51.100.7"})
        assert (failures(site, "198.51.100.7"), failures(site, "127.0.0.1")) == (1, 0)
        async with site.http.get(
            site.url("/api/v1/readings"), headers={XFF: "198.51.100.7", "Authorization": "Bearer x"}
        ):
            assert failures(site, "198.51.100.7") == 2
        headers = {"x-api-key": site.kitchen.password, "Content-Type": "application/json", XFF: "198.51.100.7"}
        async with site.http.post(site.url(SENSOR_DATA), data=reading(), headers=headers) as response:
            assert response.status == 202, "a body is read as ever"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await site.http.ws_connect(site.url("/ws"), headers={XFF: "198.51.100.7", "x-api-key": "wrong"})
        assert failures(site, "198.51.100.7") == 3
    async with running_site(tmp_path / "not") as site:
        await failed(site, **{XFF: "198.51.100.7"})
        assert (failures(site, "198.51.100.7"), failures(site, "127.0.0.1")) == (0, 1)


async def test_p8_a_client_that_a_proxy_hides_is_not_taken_for_the_proxy(tmp_path: Path) -> None:
    """A header that the proxy only passes on makes nobody one of the site, for whom the metrics are."""
    async with running_site(tmp_path, http={"trusted_proxies": ["127.0.0.1"]}) as site:
        for headers in ({XFF: "198.51.100.7", FORWARDED: "for=10.0.0.5"}, {XFF: "nonsense"}):
            async with site.http.get(site.url("/metrics"), headers=headers) as response:
                assert response.status == 403
            before = failures(site, "unknown")
            await failed(site, **headers)
            assert (failures(site, "unknown"), failures(site, "127.0.0.1")) == (before + 1, 0)
        async with site.http.get(site.url("/metrics")) as response:
            assert response.status == 200, "one that comes from there itself"


async def test_mqtt_over_websocket_comes_from_the_client_too(tmp_path: Path) -> None:
    async with running_site(tmp_path, http={"trusted_proxies": ["127.0.0.0/8"]}) as site:
        wrong = connect("kitchen", site.kitchen.username, "wrong")
        async with WebSocketClient.open(site, wrong, headers=(f"{XFF}: 198.51.100.7",)):
            await until(lambda: failures(site, "198.51.100.7") == 1)
        assert failures(site, "127.0.0.1") == 0
