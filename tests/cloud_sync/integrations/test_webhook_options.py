"""What a webhook can be told to do, as a real receiver sees it, and what it is not allowed to."""

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from multidict import CIMultiDictProxy
from standardwebhooks.webhooks import Webhook as Oracle
from standardwebhooks.webhooks import WebhookVerificationError

from cloud_sync.contract import Ok, Outcome, Rejected
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.payload.readings_batch import readings_batch
from cloud_sync.registry import load_config
from cloud_sync.signing import body_hmac
from gateway.clock import ManualClock
from gateway.config import IntegrationTable
from gateway.model.errors import ConfigError
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, PLAIN_SECRET, STANDARD_SECRET, append, batch
from tests.cloud_sync.site import Site, running, until

NEW_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@dataclass
class Request:
    """As it came over the wire."""

    method: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class Receiver:
    """Takes everything and keeps it, nothing unpacked."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: tuple[int, str] = (204, "")

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(Request(request.method, request.headers, await request.read()))
        status, text = self.answer
        return web.Response(status=status, text=text or None)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", receiver.take)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook"
    yield receiver
    await runner.cleanup()


def config(url: str = "https://example.com/", **settings: Any) -> Webhook.Config:
    return Webhook.Config.model_validate({"type": "webhook", "name": "test", "url": url} | settings)


async def send(receiver: Receiver, *, readings: int = 3, now_ms: int = NOW_MS, **settings: Any) -> Outcome:
    async with Webhook(config(receiver.url, **settings), ManualClock(now_ms), ANYWHERE) as webhook:
        return await webhook.send(batch(readings), webhook.encode(batch(readings)))


async def request(receiver: Receiver, **settings: Any) -> Request:
    assert await send(receiver, **settings) == Ok()
    return receiver.requests[-1]


def complaint(**settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(
            IntegrationTable.model_validate({"type": "webhook", "name": "api", "url": "https://x.org"} | settings)
        )
    return str(raised.value)


# How it is sent


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_method_is_as_configured(receiver: Receiver, method: str) -> None:
    got = await request(receiver, method=method, secret=STANDARD_SECRET)
    assert got.method == method
    assert got.body == readings_batch(batch())
    assert body_hmac.verify(STANDARD_SECRET, got.headers["X-Webhook-Signature"], got.body)


async def test_the_content_type_is_as_configured(receiver: Receiver) -> None:
    assert (await request(receiver)).headers["content-type"] == "application/json"
    got = await request(receiver, content_type="application/vnd.site+json; charset=utf-8")
    assert got.headers.getall("content-type") == ["application/vnd.site+json; charset=utf-8"]


@pytest.mark.parametrize(
    "headers", [{"X-Site": "roof 7", "user-agent": "site"}, '{"X-Site": "roof 7", "user-agent": "site"}']
)
async def test_custom_headers_are_a_table_or_the_documented_text(receiver: Receiver, headers: object) -> None:
    got = await request(receiver, custom_headers=headers)
    assert got.headers["X-Site"] == "roof 7"
    assert got.headers.getall("user-agent") == ["site"]


async def test_who_we_are_is_a_bearer_token_or_an_api_key(receiver: Receiver) -> None:
    assert (await request(receiver, auth_token="t0k3n")).headers["Authorization"] == "Bearer t0k3n"
    assert (await request(receiver, api_key="k3y")).headers["X-API-Key"] == "k3y"
    got = await request(receiver, api_key="k3y", api_key_header="DD-API-KEY")
    assert got.headers["DD-API-KEY"] == "k3y"
    assert "X-API-Key" not in got.headers


async def test_the_compressed_bytes_are_what_is_signed_and_the_same_each_time(receiver: Receiver) -> None:
    got = await request(receiver, gzip=True, secret=STANDARD_SECRET)
    assert got.headers["content-encoding"] == "gzip"
    assert got.headers["content-length"] == str(len(got.body))
    assert gzip.decompress(got.body) == readings_batch(batch())
    assert got.body[4:8] == bytes(4), "no time in it"
    assert body_hmac.verify(STANDARD_SECRET, got.headers["X-Webhook-Signature"], got.body)
    webhook = Webhook(config(gzip=True), ManualClock(), ANYWHERE)
    assert webhook.encode(batch()) == got.body


# What it says


async def test_a_template_makes_the_body(receiver: Receiver) -> None:
    template = '{"site": "{{gateway_id}}", "seen": {"$each_reading": {"n": "{{seq}}", "at": "{{time}}"}}}'
    got = await request(receiver, payload_template=template, readings=2, secret=STANDARD_SECRET)
    at = "2026-11-20T12:00:00.250Z"
    assert json.loads(got.body) == {"site": "site-1", "seen": [{"n": 1, "at": at}, {"n": 2, "at": at}]}
    assert body_hmac.verify(STANDARD_SECRET, got.headers["X-Webhook-Signature"], got.body)


async def test_a_template_for_one_reading(receiver: Receiver) -> None:
    template = {"text": "motion in {{device_metadata.location}}", "is": "{{sensors.pir.motion_detected}}"}
    got = await request(receiver, payload_template=template, readings=1, batch_max_readings=1)
    assert json.loads(got.body) == {"text": "motion in kitchen", "is": True}


async def test_cloud_events_are_read_by_their_own_sdk(receiver: Receiver) -> None:
    got = await request(receiver, cloudevents="structured", readings=1, batch_max_readings=1, secret=STANDARD_SECRET)
    event = from_http(HTTPMessage({"content-type": got.headers["content-type"]}, got.body), JSONFormat())
    assert (event.get_id(), event.get_subject()) == ("site-1:log-1:1", "esp32-kitchen")
    assert body_hmac.verify(STANDARD_SECRET, got.headers["X-Webhook-Signature"], got.body)
    got = await request(receiver, cloudevents="batch", readings=2)
    assert got.headers["content-type"] == "application/cloudevents-batch+json"
    assert [event["id"] for event in json.loads(got.body)] == ["site-1:log-1:1", "site-1:log-1:2"]


@pytest.mark.parametrize(
    "change", [{"cloudevents": "structured"}, {"payload_template": '{"id": "{{id}}"}'}], ids=["event", "template"]
)
async def test_p2_a_batch_from_before_a_change_goes_out_in_the_new_form(
    site: Site, receiver: Receiver, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def destination(**settings: Any) -> Webhook:
        return Webhook(config(receiver.url, name="cloud", start="oldest", **settings), site.clock, ANYWHERE)

    await append(site.log, 5)
    receiver.answer = (503, "not now")
    async with running(site.forwarder(destination(cloudevents="batch"))):
        await until(lambda: len(receiver.requests) > 0)
    before = receiver.requests[0].headers["webhook-id"]  # its last attempt may still be arriving
    receiver.answer = (204, "")

    def anew() -> list[Request]:
        return [request for request in receiver.requests if request.headers["webhook-id"] != before]

    async with running(site.forwarder(destination(batch_max_readings=1, **change))):
        await until(lambda: len(anew()) == 5)
    ids = [json.loads(request.body)["id"] for request in anew()]
    assert ids == [f"site-1:{site.log.uuid}:{row}" for row in range(1, 6)]
    assert "fault of ours" not in caplog.text


# Who has signed it


@pytest.mark.parametrize("old", [STANDARD_SECRET, PLAIN_SECRET])
async def test_while_a_secret_changes_each_of_both_verifies(receiver: Receiver, old: str) -> None:
    now = datetime.now(UTC)  # the library compares with its own clock
    got = await request(receiver, secret=[NEW_SECRET, old], now_ms=round(now.timestamp() * 1000))
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    headers = {name.lower(): value for name, value in got.headers.items()}
    Oracle(NEW_SECRET).verify(got.body, headers)
    Oracle(old.encode() if old == PLAIN_SECRET else old).verify(got.body, headers)
    with pytest.raises(WebhookVerificationError):
        Oracle("whsec_" + "A" * 32).verify(got.body, headers)
    assert body_hmac.verify(NEW_SECRET, got.headers["X-Webhook-Signature"], got.body), "the newest"


async def test_without_a_secret_or_with_none_nothing_is_signed(receiver: Receiver) -> None:
    assert "webhook-signature" not in (await request(receiver)).headers
    assert "webhook-signature" not in (await request(receiver, secret=[])).headers
    assert "webhook-signature" not in (await request(receiver, secret=None)).headers


# What is refused, and shown to nobody


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "GET"}, "integrations[api].method must be 'POST', 'PUT' or 'PATCH', not \"GET\"."),
        ({"custom_headers": {"Host": "s3cr3t"}}, "[api].custom_headers: Host is set by the gateway itself."),
        ({"custom_headers": {"Content-Length": "1"}}, "Content-Length is set by the gateway itself."),
        ({"custom_headers": {"content-type": "x"}}, "content-type is set by the gateway itself."),
        ({"custom_headers": {"Transfer-Encoding": "x"}}, "Transfer-Encoding is set by the gateway itself."),
        ({"custom_headers": {"Webhook-Signature": "x"}}, "Webhook-Signature is set by the gateway itself."),
        ({"custom_headers": {"webhook-id": "x"}}, "webhook-id is set by the gateway itself."),
        ({"custom_headers": {"x-webhook-signature": "x"}}, "x-webhook-signature is set by the gateway itself."),
        ({"custom_headers": {"X-A": "s3cr3t\r\nX-B: 1"}}, "the value of X-A holds a line break"),
        ({"custom_headers": {"X-A": "s3cr3t\x00"}}, "the value of X-A holds a line break or another"),
        ({"custom_headers": {"X-A: s3cr3t": ""}}, 'has a wrong character after "X-A".'),
        ({"custom_headers": {"X-A\r\nX-B": "s3cr3t"}}, 'has a wrong character after "X-A".'),
        ({"custom_headers": {"": "s3cr3t"}}, "a name of a header is empty"),
        ({"custom_headers": {"X-A": "s3cr3t", "x-a": "2"}}, "a header is there twice"),
        ({"custom_headers": {"X-A": 53_727}}, "the value of X-A must be a string."),
        ({"custom_headers": {"X-A": ["s3cr3t"]}}, "the value of X-A must be a string."),
        ({"custom_headers": ["s3cr3t"]}, "they must be a table"),
        ({"custom_headers": "X-A: s3cr3t"}, "they are not JSON"),
        ({"custom_headers": '"s3cr3t"'}, "they must be a table"),
        ({"custom_headers": {"authorization": "s3cr3t"}, "auth_token": "s3cr3t"}, "authorization is set twice"),
        (
            {"auth_token": "s3cr3t", "api_key": "s3cr3t", "api_key_header": "authorization"},
            "Authorization is set twice",
        ),
        ({"api_key": "s3cr3t", "api_key_header": "Host"}, "is set by the gateway itself."),
        ({"api_key": "s3cr3t\n"}, "holds a line break"),
        ({"auth_token": "s3cr3t\n"}, "holds a line break"),
        ({"auth_token": ""}, "it is empty."),
        ({"content_type": "a/b\r\nX: 1"}, "the value of content-type holds a line break"),
        ({"secret": [NEW_SECRET, "s3cr3t"]}, "24 to 64 are needed"),
        ({"payload_template": '{"$each_reading": "{{devce_id}}"}'}, "unknown field. Did you mean device_id?"),
        ({"payload_template": {"id": "{{id}}"}}, "a request carries one reading: set batch_max_readings = 1"),
        ({"payload_template": {}, "cloudevents": "batch"}, "cloudevents fixes the body"),
        ({"content_type": "text/plain", "cloudevents": "batch"}, "cloudevents fixes the body"),
        ({"cloudevents": "structured"}, 'set batch_max_readings = 1, or send several with cloudevents = "batch".'),
        ({"cloudevents": "binary"}, "integrations[api].cloudevents must be 'structured' or 'batch'"),
    ],
)
def test_p7_a_wrong_option_says_why_and_shows_no_secret(settings: dict[str, Any], expected: str) -> None:
    said = complaint(**settings)
    assert expected in said
    assert "s3cr3t" not in said
    assert "53727" not in said


SECRETS: dict[str, Any] = {
    "secret": [NEW_SECRET, PLAIN_SECRET],
    "custom_headers": {"X-Key": "h3ad3r", "X-Basic": "Basic YW5uOnMzY3IzdA=="},
    "auth_token": "t0k3n",
    "api_key": "k3y",
}


@pytest.mark.parametrize(
    "echo", [NEW_SECRET, NEW_SECRET.removeprefix("whsec_"), PLAIN_SECRET, "h3ad3r", "YW5uOnMzY3IzdA==", "t0k3n", "k3y"]
)
async def test_p7_a_reason_repeats_no_secret(receiver: Receiver, echo: str) -> None:
    receiver.answer = (400, f"you sent {echo}!")
    assert await send(receiver, **SECRETS) == Rejected("HTTP 400 (its answer repeats a secret and is withheld)")
    receiver.answer = (400, "plainly wrong")
    assert await send(receiver, **SECRETS) == Rejected("HTTP 400 plainly wrong")


def test_p7_a_configuration_shows_no_secret() -> None:
    shown = config(**SECRETS)
    for text in (repr(shown), str(shown.model_dump()), shown.model_dump_json()):
        assert not any(secret in text for secret in (NEW_SECRET, PLAIN_SECRET, "h3ad3r", "YW5u", "t0k3n", "k3y"))
