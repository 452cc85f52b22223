"""Where the way to a server ends is found and said: real names, real sockets, real certificates."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from cloud_sync.egress import Egress
from cloud_sync.integrations.http import reach as reaching
from cloud_sync.integrations.http.reach import Reached, reach
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from gateway.model.finding import Finding
from tests.cloud_sync.integrations.certificates import Authority, serving
from tests.cloud_sync.samples import ANYWHERE
from tests.ports import free_port


def now() -> ManualClock:
    return ManualClock(time.time_ns() // 1_000_000)


def last(reached: Reached, level: str, *, is_connected: bool = False) -> Finding:
    found = reached.findings[-1]
    assert (found.level, reached.is_connected) == (level, is_connected), reached
    assert (level == "ok") == (found.hint == "")
    return found


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A CA that this machine trusts for the test."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


async def plain(host: str, port: int, egress: Egress = ANYWHERE) -> Reached:
    return await reach(host, port, egress, now(), uses_tls=False)


async def secure(port: int, clock: ManualClock | None = None, host: str = "127.0.0.1") -> Reached:
    return await reach(host, port, ANYWHERE, clock or now(), uses_tls=True)


async def test_a_name_that_nobody_has_is_said() -> None:
    found = last(await plain("nobody.invalid", 443), "broken")
    assert "nobody.invalid cannot be resolved" in found.words


async def test_a_name_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    assert "no name server has answered" in last(await plain("slow.example.com", 443), "broken").words


async def test_an_address_that_egress_forbids_is_not_connected_to() -> None:
    async with serving(None) as port:
        found = last(await plain("127.0.0.1", port, Egress(EgressSettings(policy="lan"))), "broken")
    assert 'egress.allow = ["127.0.0.1"]' in found.hint


async def test_a_port_where_nobody_listens_is_said() -> None:
    assert "refuses connections" in last(await plain("127.0.0.1", free_port()), "broken").words


async def test_a_server_that_takes_no_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "_PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = []  # what fills its queue: the kernel drops what comes then
        for _ in range(4):
            one = socket.socket()
            one.settimeout(0)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        found = last(await plain("127.0.0.1", port), "broken")
        for one in waiting:
            one.close()
    assert "does not answer" in found.words


async def test_another_address_of_the_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(None) as port:
        both = [(0, 0, 0, "", ("127.0.0.2", port)), (0, 0, 0, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        reached = await plain("two.example.com", port)
    assert [finding.level for finding in reached.findings] == ["warning", "ok"]


async def test_a_good_certificate_is_told_with_its_end(authority: Authority) -> None:
    async with serving(authority.server("127.0.0.1", begins_days=-1, ends_days=90)) as port:
        found = last(await secure(port), "ok", is_connected=True)
    assert "is good until" in found.words
    assert "TLSv1." in found.words


async def test_a_certificate_that_ends_soon_is_warned_of(authority: Authority) -> None:
    async with serving(authority.server("127.0.0.1", begins_days=-1, ends_days=5)) as port:
        last(await secure(port), "warning", is_connected=True)


async def test_an_expired_certificate_is_told_with_its_dates(authority: Authority) -> None:
    async with serving(authority.server("127.0.0.1", begins_days=-30, ends_days=-2)) as port:
        found = last(await secure(port), "broken")
    assert "has expired (it is valid from" in found.words
    assert "renew" in found.hint


async def test_a_certificate_of_the_future_is_the_clocks_fault_where_nobody_sets_it(authority: Authority) -> None:
    async with serving(authority.server("127.0.0.1", begins_days=2, ends_days=90)) as port:
        found = last(await secure(port, ManualClock(now().now, synced=False)), "broken")
    assert "is not valid yet" in found.words
    assert "clock is not synchronised" in found.hint


async def test_a_certificate_for_another_name_is_said(authority: Authority) -> None:
    async with serving(authority.server("other.example.com", begins_days=-1, ends_days=90)) as port:
        assert last(await secure(port), "broken").words == "The certificate is not for 127.0.0.1."
        by_name = await secure(port, host="localhost")
        assert last(by_name, "broken").words == "The certificate is not for localhost."


async def test_a_certificate_of_nobody_known_is_said(tmp_path: Path) -> None:
    async with serving(Authority(tmp_path).server("127.0.0.1", begins_days=-1, ends_days=90)) as port:
        assert "nobody that this machine trusts" in last(await secure(port), "broken").words


async def test_a_server_that_speaks_no_tls_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with serving(None, http) as port:
        assert "TLS with 127.0.0.1 fails" in last(await secure(port), "broken").words
    monkeypatch.setattr(reaching, "_PATIENCE_S", 0.3)
    async with serving(None) as port:
        assert "no answer" in last(await secure(port), "broken").words
