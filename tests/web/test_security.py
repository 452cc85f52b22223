"""Every answer says what a browser must not do with it, and nothing of what serves it."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from gateway.web.security import add_headers
from tests.site import PATIENCE_S, Site, running_site
from tests.tls.site import tls_site, trusting
from tests.web.api import asker

SAID = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "neurogate",
}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("HEAD", "/health", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/nothing", {}, 404),
        ("POST", "/health", {}, 405),
        ("TRACE", "/health", {}, 405),
        (
            "OPTIONS",
            "/api/v1/readings",
            {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"},
            405,
        ),
        ("GET", "/api/v1/readings", {"Origin": "https://evil.example"}, 401),
        ("GET", "/ws", {}, 400),
        ("GET", "/nothing", {"Expect": "a miracle"}, 417),
        ("GET", "/health", {"Expect": "a miracle"}, 417),
    ],
)
async def test_every_answer_has_the_headers_and_lets_no_other_origin_in(
    site: Site, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with site.http.request(method, site.url(path), headers=headers) as response:
        assert response.status == status
        assert {name: response.headers.get(name) for name in SAID} == SAID
        assert "Strict-Transport-Security" not in response.headers
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        if status >= 400:
            assert (await response.json())["error"]["code"]


async def test_an_answer_of_our_own_fault_has_them_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.gateway._running.messages, "subscriptions", None)
    admin = await asker(site, "admin")
    headers = {"Authorization": f"Bearer {admin.token}"}
    async with site.http.get(site.url("/api/v1/mqtt-broker/subscriptions"), headers=headers) as response:
        assert response.status == 500
        assert {name: response.headers.get(name) for name in SAID} == SAID
        assert (await response.json())["error"]["code"] == "internal_error"


def test_over_tls_it_stays_tls() -> None:
    answer = web.Response()
    add_headers(answer, is_secure=True)
    assert answer.headers["Strict-Transport-Security"] == "max-age=86400"


async def test_the_metrics_are_for_whom_the_settings_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    for networks, status in (
        ((), 403),
        (("10.0.0.0/8",), 403),
        (("127.0.0.1",), 200),
        (("::ffff:0:0/96", "127.0.0.0/8"), 200),
    ):
        folder = tmp_path_factory.mktemp("site")
        async with running_site(folder / "data", http={"metrics_from": networks}) as site:
            for path, expected in (("/metrics", status), ("/health", 200), ("/ready", 200)):
                async with site.http.get(site.url(path)) as response:
                    assert response.status == expected


async def test_over_tls_what_is_no_http_is_told_to_stay_there_too(tmp_path: Path) -> None:
    async with tls_site(tmp_path) as site:
        for port, tls in ((site.settings.http.tls_port, trusting(tmp_path)), (site.http_port, None)):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=tls, family=socket.AF_INET)
            writer.write(b"nonsense\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.transport.abort()
            assert head.split(" ")[1] == "400"
            assert ("Strict-Transport-Security: max-age=86400" in head) == (tls is not None)
