"""Every way a receiver can behave, against real sockets on this machine."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.integrations.http.exchange import _patience_s
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.signing import body_hmac, standard_webhooks
from gateway import __version__
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, PLAIN_SECRET, STANDARD_SECRET, batch, stored

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def config(url: object, **settings: Any) -> Webhook.Config:
    return Webhook.Config.model_validate({"type": "webhook", "name": "test", "url": str(url)} | settings)


async def send(url: object, *, clock: ManualClock | None = None, **settings: Any) -> Outcome:
    async with Webhook(config(url, **settings), clock or ManualClock(NOW_MS), ANYWHERE) as webhook:
        return await webhook.send(batch(), webhook.encode(batch()))


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    async with server:
        yield server


@asynccontextmanager
async def raw_server(handler: RawHandler) -> AsyncIterator[str]:
    ended = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(done := asyncio.Event())
        with suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        done.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for done in ended:
            await done.wait()


async def outcome_of(
    status: int, *, text: str = "no", headers: dict[str, str] | None = None, **settings: Any
) -> Outcome:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    async with serving(answer) as server:
        return await send(server.make_url("/hook"), **settings)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_delivered(status: int) -> None:
    assert await outcome_of(status, text="") == Ok()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Rejected("HTTP 400 no")),
        (401, AuthFailed("HTTP 401 no")),
        (403, AuthFailed("HTTP 403 no")),
        (404, WrongAddress("HTTP 404 no")),
        (405, WrongAddress("HTTP 405 no")),
        (408, NotConnected("HTTP 408 no")),
        (410, Gone("HTTP 410 no")),
        (413, TooLarge("HTTP 413 no")),
        (422, Rejected("HTTP 422 no")),
        (429, RetryAfter(None, "HTTP 429 no")),
        (500, NotConnected("HTTP 500 no")),
        (502, NotConnected("HTTP 502 no")),
        (503, RetryAfter(None, "HTTP 503 no")),
        (599, NotConnected("HTTP 599 no")),
    ],
)
async def test_a_refusal_is_classified(status: int, expected: Outcome) -> None:
    assert await outcome_of(status) == expected


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, 86_400.0),
        (formatdate(NOW_MS / 1000 + 90, usegmt=True), 90.0),
        (formatdate(NOW_MS / 1000 - 90, usegmt=True), 0.0),
        (formatdate(NOW_MS / 1000 + 90_000_000, usegmt=True), 86_400.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(status: int, header: str, seconds: float | None) -> None:
    answered = formatdate(NOW_MS / 1000, usegmt=True)
    outcome = await outcome_of(status, headers={"Retry-After": header, "Date": answered})
    assert isinstance(outcome, RetryAfter)
    assert outcome.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("ours", [0, NOW_MS - 86_400_000, NOW_MS + 86_400_000])
async def test_p10_a_wrong_clock_of_ours_does_not_change_how_long_we_are_asked_to_wait(ours: int) -> None:
    """By a clock that begins in 1970, every date is half a century away: the longest wait there is."""
    dates = {"Retry-After": formatdate(NOW_MS / 1000 + 90, usegmt=True), "Date": formatdate(NOW_MS / 1000, usegmt=True)}
    outcome = await outcome_of(503, headers=dates, clock=ManualClock(ours, synced=False))
    assert isinstance(outcome, RetryAfter)
    assert outcome.seconds == 90


@pytest.mark.parametrize(("synced", "seconds"), [(True, 89.75), (False, None)])
def test_p10_without_the_other_sides_time_only_a_synchronised_clock_tells_how_long(
    synced: bool, seconds: float | None
) -> None:
    headers = {"retry-after": formatdate(NOW_MS / 1000 + 90, usegmt=True)}
    assert _patience_s(headers, ManualClock(NOW_MS, synced=synced)) == seconds


@pytest.mark.parametrize("date", ["", "soon", "0"])
def test_a_date_that_is_none_asks_for_nothing(date: str) -> None:
    headers = {"retry-after": formatdate(NOW_MS / 1000 + 90, usegmt=True), "date": date}
    assert _patience_s(headers, ManualClock(NOW_MS)) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    paths = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with serving(answer) as server:
        assert isinstance(await send(server.make_url("/hook")), WrongAddress)
    assert paths == ["/hook"]


async def test_what_is_sent_is_signed_both_ways_over_the_very_bytes() -> None:
    received: list[tuple[web.Request, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        received.append((request, await request.read()))
        return web.Response(status=204)

    async with serving(answer) as server:
        assert await send(f"{server.make_url('/')}a%2Fb/%41?x=%2B", secret=STANDARD_SECRET) == Ok()
    [(request, body)] = received
    key = standard_webhooks.parse_secret(STANDARD_SECRET)
    assert request.method == "POST"
    assert request.raw_path == "/a%2Fb/%41?x=%2B"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["user-agent"] == f"neurogate/{__version__}"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["webhook-timestamp"] == str(NOW_MS // 1000)
    assert standard_webhooks.verify(key, request.headers, body, now_s=NOW_MS // 1000)
    assert body_hmac.verify(STANDARD_SECRET, request.headers["X-Webhook-Signature"], body)


async def test_without_a_secret_nothing_is_signed() -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=204)

    async with serving(answer) as server:
        assert await send(server.make_url("/")) == Ok()
    assert not {"webhook-signature", "X-Webhook-Signature"} & seen[0].headers.keys()
    assert seen[0].headers["webhook-id"] == "msg_1"


async def test_a_receiver_that_hangs_is_left_after_timeout_s() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(hang) as url, asyncio.timeout(20):
        assert await send(url, timeout_s=0.1) == NotConnected("no answer within 0.1 s")


async def test_a_refusal_stands_when_the_rest_of_the_answer_hangs() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 100\r\n\r\n")
        await reader.read()

    async with raw_server(half) as url:
        assert await send(url, timeout_s=0.2) == Gone("HTTP 410")


async def test_a_connection_reset_in_the_middle_is_not_connected() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.transport.abort()

    async with raw_server(reset) as url:
        assert isinstance(await send(url), NotConnected)


@pytest.mark.parametrize("garbage", [b"\x00\xff\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 20 Ok\r\n\r\n", b""])
async def test_an_answer_that_is_not_http_is_not_connected(garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)

    async with raw_server(answer) as url:
        assert isinstance(await send(url), NotConnected)


async def test_a_closed_port_an_unknown_name_and_no_tls_are_not_connected() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(close) as url:
        assert isinstance(await send(url.replace("http:", "https:")), NotConnected)
    refused = await send(url)
    assert isinstance(refused, NotConnected)
    assert "cannot connect to 127.0.0.1" in refused.reason
    unknown = await send("http://gateway.invalid/hook")
    assert unknown == NotConnected("the name gateway.invalid cannot be resolved")
    assert isinstance(await send("http://gateway..invalid/hook"), NotConnected)


@pytest.mark.parametrize(
    "text",
    [
        STANDARD_SECRET,
        STANDARD_SECRET.removeprefix("whsec_"),
        "Cannot POST /T012/B34/xWvmbTz9nRq4kEo2uAq0pXyZ",
        "key s3cr3t",
    ],
)
async def test_p7_a_reason_repeats_no_secret(text: str) -> None:
    async def echo(_: web.Request) -> web.Response:
        return web.Response(status=400, text=f"no: {text}")

    async with serving(echo) as server:
        url = server.make_url("/T012/B34/xWvmbTz9nRq4kEo2uAq0pXyZ?key=s3cr3t")
        assert await send(url, secret=STANDARD_SECRET) == Rejected(
            "HTTP 400 (its answer repeats a secret and is withheld)"
        )


async def test_a_reason_is_one_short_line() -> None:
    outcome = await outcome_of(400, text="\x1b[31mbad\r\nthing\u2028" + "x" * 5000)
    assert outcome == Rejected("HTTP 400 " + ("[31mbad  thing " + "x" * 5000)[:199])


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def answer(_: web.Request) -> web.Response:
        bomb = gzip.compress(b"x" * 10_000_000)
        return web.Response(status=400, body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(answer) as server:
        assert await send(server.make_url("/")) == Rejected("HTTP 400")


async def test_an_endless_answer_is_not_read() -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536

    async with raw_server(flood) as url:
        assert await send(url) == Rejected("HTTP 400 " + "x" * 200)
    assert written < 50_000_000


def test_the_body_is_a_batch_of_readings_in_the_documented_shape() -> None:
    webhook = Webhook(config("http://127.0.0.1/"), ManualClock(), ANYWHERE)
    body = webhook.encode(batch(1))
    assert json.loads(body) == {
        "type": "readings.batch",
        "gateway_id": "site-1",
        "readings": [
            {
                "id": "site-1:log-1:1",
                "organization_id": "default",
                "device_id": "esp32-kitchen",
                "time": "2026-11-20T12:00:00.250Z",
                "time_source": "device",
                "received_at": "2026-11-20T12:00:00.270Z",
                "late": False,
                "historical": False,
                "boot_id": "9f3a61c2",
                "seq": 1,
                "sensors": {"pir": {"motion_detected": True}},
                "health": {},
                "device_metadata": {"location": "kitchen"},
            }
        ],
    }
    assert webhook.encode(batch(1)) == body


def test_p4_whatever_json_a_device_sent_can_be_encoded() -> None:
    webhook = Webhook(config("http://127.0.0.1/"), ManualClock(), ANYWHERE)
    deep: dict[str, Any] = {}
    for _ in range(198):
        deep = {"a": deep}
    odd = {"sensors": deep, "big": 10**30, "text": "\x00\U0001f600", "huge": float("inf")}
    [reading] = json.loads(webhook.encode(Batch("msg_1", [stored(1, odd)], "site-1", "log-1")))["readings"]
    assert (reading["big"], reading["text"], reading["huge"]) == (10**30, "\x00\U0001f600", None)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"url": "ftp://example.com/"}, "scheme"),
        ({"url": "https://ann:s3cr3t-password@example.com/"}, "Use `secret`"),
        ({"secret": "s3cr3t-too-short"}, "24 to 64"),
        ({"secret": "whsec_s3cr3t!"}, "base64"),
        ({"sceret": "s3cr3t"}, "Extra inputs"),
    ],
)
def test_p7_a_refused_configuration_says_why_without_its_secrets(settings: dict[str, str], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint) as caught:
        config(settings.pop("url", "https://example.com/"), **settings)
    assert "s3cr3t" not in str(caught.value)


def test_p7_a_configuration_shows_no_secret() -> None:
    shown = config("https://example.com/", secret=PLAIN_SECRET)
    assert PLAIN_SECRET not in repr(shown)
    assert PLAIN_SECRET not in shown.model_dump_json()
