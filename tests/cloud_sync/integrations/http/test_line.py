"""By a proxy, with a CA of one's own, with a certificate of ours: real sockets, real TLS."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from cloud_sync.contract import AuthFailed, NotConnected, Ok, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import Exchange, outcome_of
from cloud_sync.integrations.http.line import DIRECT, HttpConfig, Line
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.integrations.http.serving import proxy, serving, takes
from tests.cloud_sync.samples import ANYWHERE, NOW_MS


def line(**settings: Any) -> Line:
    return HttpConfig.model_validate({"type": "any", "name": "test"} | settings).line()


async def asked(url: str, way: Line = DIRECT, egress: Egress = ANYWHERE) -> object:
    host = URL(url).host or ""
    async with Exchange(host, ManualClock(NOW_MS), egress, timeout_s=5, private=[], line=way) as exchange:
        return outcome_of(await exchange.ask("POST", URL(url), body=b"{}"))


async def test_an_authority_of_ones_own_is_trusted_instead_of_the_machines(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(takes, authority.server("127.0.0.1")) as url:
        assert await asked(url, line(ca=authority.file.read_text())) == Ok()
        refused = await asked(url)
    assert isinstance(refused, NotConnected)
    assert "certificate" in refused.reason


async def test_a_certificate_of_ours_says_who_we_are(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.file)
    certificate, key = authority.identity("gateway.example.com")
    settings = line(ca=authority.file.read_text())
    async with serving(takes, tls) as url:
        ours = Line(ca=settings.ca, client_cert=certificate, client_key=key)
        assert await asked(url, ours) == Ok()
        assert isinstance(await asked(url, settings), NotConnected)


async def test_tls_goes_through_a_proxy_that_alone_knows_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(takes, authority.server("nobody.invalid")) as url, proxy(url, "me:secret") as (seen, address):
        ca = authority.file.read_text()
        assert await asked("https://nobody.invalid/", line(ca=ca, proxy=address, proxy_credentials="me:secret")) == Ok()
        refused = await asked("https://nobody.invalid/", line(ca=ca, proxy=address, proxy_credentials="me:wrong"))
    assert seen.asked == [b"CONNECT nobody.invalid:443 HTTP/1.1"] * 2
    assert isinstance(refused, WrongAddress)
    assert "proxy_credentials" in refused.reason


async def test_what_is_not_tls_goes_by_it_too() -> None:
    async with serving(takes) as url, proxy(url) as (seen, address):
        assert await asked("http://nobody.invalid/x", line(proxy=address)) == Ok()
    assert seen.asked == [b"POST http://nobody.invalid/x HTTP/1.1"]


async def test_a_proxy_that_is_away_is_named() -> None:
    async with serving(takes) as url:
        gone = url
    outcome = await asked("https://nobody.invalid/", line(proxy=gone))
    assert isinstance(outcome, NotConnected)
    assert outcome.reason.startswith("cannot connect to the proxy 127.0.0.1")
    assert not outcome.sent


async def test_p9_a_proxy_leads_around_no_egress_that_is_certain() -> None:
    public = Egress(EgressSettings(policy="public", allow=("127.0.0.1",)))
    async with serving(takes) as url, proxy(url) as (seen, address):
        assert isinstance(await asked("http://169.254.169.254/", line(proxy=address), public), WrongAddress)
        assert isinstance(await asked("http://localhost/", line(proxy="http://10.0.0.1:1"), public), WrongAddress)
        assert seen.asked == []
        assert await asked("http://nobody.invalid/", line(proxy=address), public) == Ok()


async def test_p9_what_egress_allows_is_the_proxy() -> None:
    by_name = Egress(EgressSettings(policy="public", allow=("localhost",)))
    async with serving(takes) as url, proxy(url) as (_, address):
        here = line(proxy=address.replace("127.0.0.1", "localhost"))
        assert await asked("http://nobody.invalid/", here, by_name) == Ok()
        assert isinstance(await asked("http://nobody.invalid/", line(proxy=address), by_name), WrongAddress)


async def test_a_status_means_the_same_everywhere() -> None:
    async def refuses(_: web.Request) -> web.Response:
        return web.Response(status=401, text="no")

    async with serving(refuses) as url:
        assert await asked(url) == AuthFailed("HTTP 401 no")


def test_nothing_of_a_key_or_of_proxy_credentials_is_shown() -> None:
    way = Line(proxy_headers={"proxy-authorization": "Basic hidden"}, client_key="hidden")
    assert "hidden" not in repr(way)


@pytest.mark.parametrize("wrong", [{"client_cert": "x", "client_key": "y"}, {"ca": "x"}])
def test_what_is_no_certificate_is_said(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        Line(**wrong).tls()  # type: ignore[arg-type]
