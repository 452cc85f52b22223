"""What one client may take of an HTTP port: its time, its connections, its room. Each is bounded, and counted."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.site import Site, running_site, until
from tests.web.api import asker

PATIENCE_S = 10.0
SOON = 0.3
"""A limit that is over soon."""


@asynccontextmanager
async def limited(folder: Path, **http: Any) -> AsyncIterator[Site]:
    async with running_site(folder / "data", http={"rate_limit_per_minute": 0} | http) as site:
        yield site


class Client:
    """A socket that says what it wants, as slowly as it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, site: Site, **options: Any) -> AsyncIterator["Client"]:
        client = cls(*await asyncio.open_connection("127.0.0.1", site.http_port, **options))
        try:
            yield client
        finally:
            client.writer.transport.abort()

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def head(self) -> str:
        """Return status and headers of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def is_closed(self) -> bool:
        """Whether the gateway closes it, in time."""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while await self.reader.read(65_536):
                    pass
        return True

    async def error(self) -> tuple[int, str, str]:
        """Return status, code and headers of an error in the documented shape."""
        head = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            body = json.loads(await self.reader.readexactly(length))
        return int(head.split(" ")[1]), body["error"]["code"], head


async def refused(site: Site, reason: str) -> float:
    return await site.metric(f'neurogate_front_door_refused_total{{reason="{reason}"}}')


def post(site: Site, length: int, **headers: str) -> str:
    fields = {
        "Host": "x",
        "x-api-key": site.kitchen.password,
        "Content-Type": "application/json",
        "Content-Length": str(length),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /api/v1/sensor-data HTTP/1.1\r\n{lines}\r\n"


# Time


@pytest.mark.parametrize("begun", ["GET /", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_headers_that_do_not_end_close_the_connection(tmp_path: Path, begun: str) -> None:
    async with limited(tmp_path, headers_timeout_s=SOON) as site, Client.connected(site) as client:
        client.send(begun)
        dripping = asyncio.create_task(drip(client))
        assert await client.is_closed()
        dripping.cancel()
        assert await refused(site, "slow_headers") == 1


async def drip(client: Client) -> None:
    while True:
        client.send("a")
        await asyncio.sleep(0.05)


async def test_headers_of_a_second_request_have_the_same_time(tmp_path: Path) -> None:
    async with limited(tmp_path, headers_timeout_s=SOON) as site, Client.connected(site) as client:
        client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert " 200 " in await client.head()
        client.send("GET /health HT")
        assert await client.is_closed()
        assert await refused(site, "slow_headers") == 1


async def test_a_connection_that_says_nothing_is_closed_and_is_nobodys_fault(tmp_path: Path) -> None:
    async with limited(tmp_path, keepalive_timeout_s=SOON, headers_timeout_s=SOON) as site:
        async with Client.connected(site) as client:
            assert await client.is_closed()
        async with Client.connected(site) as client:
            client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert " 200 " in await client.head()
            assert await client.is_closed()
        assert await refused(site, "slow_headers") == 0


async def test_a_body_that_does_not_come_is_408_and_the_connection_ends(tmp_path: Path) -> None:
    async with limited(tmp_path, body_timeout_s=SOON) as site, Client.connected(site) as client:
        client.send(post(site, 1_000) + '{"device_id"')
        status, code, head = await client.error()
        assert (status, code) == (408, "too_slow")
        assert "connection: close" in head.lower()
        assert await client.is_closed()
        assert await refused(site, "slow_body") == 1


@pytest.mark.parametrize("lost", [None, ConnectionResetError("reset"), OSError(113, "No route to host")])
async def test_who_leaves_in_the_middle_of_a_body_is_no_error_of_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, lost: Exception | None
) -> None:
    async with Client.connected(site) as client:
        client.send(post(site, 1_000) + "{")
        server = site.gateway._running.http._main._runner.server
        assert server is not None
        await until(lambda: any(one._current_request is not None for one in server.connections), "a request under way")
        (connection,) = (one for one in server.connections if one._current_request is not None)
        task = connection._task_handler
        assert task is not None
        assert connection.transport is not None
        if lost is None:
            client.writer.close()
        else:
            connection.transport._force_close(lost)  # type: ignore[attr-defined]  # as when a read fails
        await asyncio.wait([task], timeout=PATIENCE_S)
    assert not server.connections
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}]


async def test_the_rest_of_a_body_that_nobody_wants_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.server._LINGERING_S", SOON)
    async with limited(tmp_path) as site, Client.connected(site) as client:
        client.send(post(site, 100_000, x_api_key="wrong") + "{")
        assert (await client.error())[:2] == (401, "unauthorized")
        assert await client.is_closed()


async def test_an_answer_that_is_not_read_closes_the_connection(tmp_path: Path) -> None:
    async with limited(tmp_path, answer_timeout_s=SOON) as site, Client.connected(site, limit=1) as client:
        client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)
        await until(lambda: refusals(site, "slow_reader") == 1)


async def test_the_rest_of_an_answer_that_is_not_read_closes_it_too(tmp_path: Path) -> None:
    """Little is left to be read, and nothing more is asked: closed as it is, the connection would stay for ever."""
    async with limited(tmp_path, answer_timeout_s=SOON) as site, Client.connected(site, limit=1) as client:
        server = site.gateway._running.http._main._runner.server
        assert server is not None
        left = 0
        while not left:
            asked = server.requests_count
            client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda asked=asked: server.requests_count > asked)  # type: ignore[misc]
            await asyncio.sleep(0.01)  # what the kernel takes, it has taken
            (connection,) = server.connections
            left = 0 if connection.transport is None else connection.transport.get_write_buffer_size()
        assert left < 65_536
        await until(lambda: refusals(site, "slow_reader") == 1)
        await until(lambda: not server.connections)


def refusals(site: Site, reason: str) -> float:
    return site.gateway._metrics.refused.labels(reason)._value.get()  # type: ignore[no-any-return]


async def test_what_takes_too_long_is_503_and_is_done_all_the_same(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with limited(tmp_path, request_timeout_s=SOON) as site:
        member = await asker(site, "admin")
        real = site.gateway._running.messages.subscribe

        async def hang(*arguments: Any, **more: Any) -> Any:
            await released.wait()
            return await real(*arguments, **more)

        site.gateway._running.messages.subscribe = hang  # type: ignore[method-assign]
        status, answer = await member.post("/api/v1/mqtt-hybrid/subscribe", {"topics": ["devices/#"]})
        assert (status, answer["error"]["code"]) == (503, "took_too_long")
        assert await refused(site, "took_too_long") == 1
        released.set()
        await until(lambda: len(site.gateway._running.messages.subscriptions) == 1)


# Connections


async def test_an_address_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with limited(tmp_path, max_connections_per_address=3) as site:
        async with Client.connected(site) as one, Client.connected(site) as two, Client.connected(site) as three:
            for client in (one, two, three):
                client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert " 200 " in await client.head()
            async with Client.connected(site) as four:
                assert await four.is_closed()
        assert refusals(site, "too_many_of_address") == 1
        await until(lambda: not site.gateway._running.http._main._connections._of_address)
        async with Client.connected(site) as again:
            again.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert " 200 " in await again.head()


async def test_those_of_a_trusted_proxy_are_of_many_clients(tmp_path: Path) -> None:
    async with (
        limited(tmp_path, max_connections_per_address=1, trusted_proxies=["127.0.0.1"]) as site,
        Client.connected(site) as one,
        Client.connected(site) as two,
    ):
        for client in (one, two):
            client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert " 200 " in await client.head()


async def test_a_websocket_is_no_connection_of_its_address_any_more(tmp_path: Path) -> None:
    async with (
        limited(tmp_path, max_connections_per_address=1) as site,
        site.http.ws_connect(site.url("/ws"), headers={"x-api-key": site.kitchen.password}) as socket,
        Client.connected(site) as client,
    ):
        client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert " 200 " in await client.head()
        await socket.send_str('{"type":"unsubscribe"}')
        assert (await socket.receive_json(timeout=PATIENCE_S))["type"] == "unsubscribed"


async def test_all_connections_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http_listeners._CONNECTIONS_WITHOUT_MQTT", 1)
    async with (
        running_site(tmp_path / "data", mqtt={"max_connections": 1}) as site,
        Client.connected(site) as one,
        Client.connected(site) as two,
    ):
        for client in (one, two):
            client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert " 200 " in await client.head()
        async with Client.connected(site) as three:
            assert await three.is_closed()
        assert refusals(site, "too_many_http_connections") == 1


# Room


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (f"GET /{'x' * 9_000} HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
        (f"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 9_000}\r\n\r\n", 431, "headers_too_large"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n" + "X-Many: 1\r\n" * 100 + "\r\n", 400, "bad_request"),
        ("nonsense\r\n\r\n", 400, "bad_request"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400, "bad_request"),
    ],
)
async def test_what_is_no_http_is_told_in_the_documented_shape_and_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture, request_: str, status: int, code: str
) -> None:
    async with Client.connected(site) as client:
        client.send(request_)
        seen, told, head = await client.error()
        assert (seen, told) == (status, code)
        assert "X-Content-Type-Options: nosniff" in head
        assert "aiohttp" not in head
        assert await client.is_closed()
    assert refusals(site, "malformed_http") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_compressed_body_is_refused_before_it_is_unpacked(site: Site) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    headers = {
        "x-api-key": site.kitchen.password,
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
    }
    async with site.http.post(site.url("/api/v1/sensor-data"), data=bomb, headers=headers) as response:
        assert response.status == 415
        assert (await response.json())["error"]["code"] == "unsupported_encoding"


@pytest.mark.parametrize("path", ["/api/v1/sensor-data", "/api/v1/devices/metadata", "/api/v1/mqtt-listener"])
async def test_json_as_deep_as_the_body_may_be_long_is_400(site: Site, path: str) -> None:
    admin = await asker(site, "admin")
    headers = {"Content-Type": "application/json"}
    headers |= {"x-api-key": site.kitchen.password} if "sensor" in path else {"Authorization": f"Bearer {admin.token}"}
    for deep in (b"[" * 900_000, b'{"metadata":' * 80_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000):
        async with site.http.post(site.url(path), data=deep, headers=headers) as response:
            assert response.status == 400


async def test_a_body_without_a_length_ends_at_the_same_size(site: Site) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    headers = {"x-api-key": site.kitchen.password, "Content-Type": "application/json"}
    with suppress(ConnectionError, OSError):  # the rest is not waited for
        async with site.http.post(site.url("/api/v1/sensor-data"), data=endless(), headers=headers) as response:
            assert response.status == 413


@pytest.mark.parametrize(
    "bound",
    [
        test_a_body_that_does_not_come_is_408_and_the_connection_ends,
        test_an_answer_that_is_not_read_closes_the_connection,
        test_the_rest_of_an_answer_that_is_not_read_closes_it_too,
        test_an_address_has_so_many_connections_and_no_more,
        test_a_websocket_is_no_connection_of_its_address_any_more,
    ],
)
def test_they_hold_on_the_transports_of_uvloop_too(
    tmp_path: Path, bound: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    """A gateway runs on these."""
    uvloop.run(bound(tmp_path))
