"""AWS IoT Core as its own client knows it: what is published, how it is refused, and what a refusal means."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError
from botocore.session import Session
from pydantic import ValidationError

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from gateway.model.reading import wire_reading
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.integrations.clouds import cases
from tests.cloud_sync.integrations.clouds.aws import KEY_ID, SECRET_KEY, fake_aws, made
from tests.cloud_sync.integrations.http.serving import serving
from tests.cloud_sync.samples import batch, batch_of, sent, stored


async def test_amazons_own_client_is_understood_by_our_fake() -> None:
    async with fake_aws() as fake:
        client = Session().create_client(
            "iot-data",
            region_name="eu-west-1",
            endpoint_url=fake.endpoint,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET_KEY,
            config=ClientConfig(retries={"total_max_attempts": 1}),
        )
        topic = "$aws/rules/store/gw 1/ü~t"
        await asyncio.to_thread(client.publish, topic=topic, qos=1, payload=b"{}")
        assert fake.received == [(topic, b"{}")]
        for status, kind in ((429, "ThrottlingException"), (400, "InvalidRequestException")):
            fake.refuses = [(status, kind, "no")]
            with pytest.raises(ClientError) as caught:
                await asyncio.to_thread(client.publish, topic=topic, qos=1, payload=b"{}")
            assert caught.value.response["Error"]["Code"] == kind


async def test_a_batch_is_one_message_and_holds_every_reading() -> None:
    given = batch_of("d1", "d2", "d1")
    async with fake_aws() as fake, made(fake) as it:
        assert await sent(it, given) == Ok()
    [(topic, payload)] = fake.received
    assert topic == "neurogate/site-1/readings"
    assert payload == it.encode(given)
    assert json.loads(payload) == [wire_reading(one, gateway_id="site-1", log_uuid="log-1") for one in given.readings]


async def test_with_the_device_in_the_topic_each_has_a_message_of_its_own_in_order() -> None:
    async with fake_aws() as fake, made(fake, topic="$aws/rules/r_1/{organization_id}/{device_id}/t") as it:
        assert await sent(it, batch_of("d:1", "d2", "d:1")) == Ok()
    assert [topic for topic, _ in fake.received] == ["$aws/rules/r_1/default/d:1/t", "$aws/rules/r_1/default/d2/t"]
    assert [[one["seq"] for one in json.loads(payload)] for _, payload in fake.received] == [[1, 3], [2]]


async def test_no_message_is_larger_than_128_kb() -> None:
    readings = [stored(row, {"sensors": {}, "note": "ü" * 5_000}) for row in range(1, 41)]
    given = Batch("msg_1", readings, "site-1", "log-1")
    async with fake_aws() as fake, made(fake) as it:
        assert await sent(it, given) == Ok()
    sizes = [len(payload) for _, payload in fake.received]
    assert max(sizes) <= 131_072 < max(sizes) + len(json.dumps(readings[0].body, ensure_ascii=False).encode())
    assert [one["seq"] for _, payload in fake.received for one in json.loads(payload)] == list(range(1, 41))


async def test_a_reading_that_is_too_large_is_named_and_never_sent() -> None:
    large = [stored(1), stored(2, {"sensors": {}, "note": "x" * 140_000}), stored(3)]
    async with fake_aws() as fake, made(fake) as it:
        outcome = await sent(it, Batch("msg_1", large, "site-1", "log-1"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2]
        assert isinstance(await sent(it, Batch("msg_2", large[1:2], "site-1", "log-1")), TooLarge)
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (429, "ThrottlingException", RetryAfter),
        (400, "ThrottlingException", RetryAfter),
        (503, "ServiceUnavailableException", RetryAfter),
        (500, "InternalFailureException", NotConnected),
        (400, "InvalidRequestException", Rejected),
        (413, "RequestEntityTooLargeException", TooLarge),
        (400, "RequestEntityTooLargeException", TooLarge),
        (403, "ForbiddenException", AuthFailed),
        (400, "AccessDeniedException", AuthFailed),
        (401, "UnauthorizedException", AuthFailed),
        (400, "IncompleteSignatureException", AuthFailed),
        (400, "RequestExpired", AuthFailed),
        (404, "ResourceNotFoundException", WrongAddress),
        (405, "MethodNotAllowedException", WrongAddress),
    ],
)
async def test_a_refusal_is_known_by_its_type(status: int, kind: str, expected: type[Outcome]) -> None:
    await cases.a_refusal_is_known(fake_aws, made, (status, kind, "too bad"), expected)


async def test_a_wrong_clock_is_told_as_such() -> None:
    await cases.a_wrong_clock_is_told(fake_aws, made, -3_600, "3,600 s behind")


async def test_temporary_keys_have_a_token() -> None:
    async with fake_aws() as fake:
        fake.token = "IQoJb3JpZ2luX2VjEXAMPLE"
        async with made(fake, session_token=fake.token) as it:
            assert await sent(it, batch()) == Ok()
        async with made(fake) as it:
            assert isinstance(await sent(it, batch()), AuthFailed)


async def test_throttled_in_the_middle_the_retry_goes_on_there() -> None:
    given = batch_of("d1", "d2", "d3", "d1")
    async with fake_aws() as fake, made(fake, topic="{device_id}") as it:
        fake.refused_topics = {"d2": (429, "ThrottlingException", "slow down")}
        assert isinstance(await sent(it, given), RetryAfter)
        assert [topic for topic, _ in fake.received] == ["d1"]
        assert isinstance(await sent(it, given), RetryAfter)
        fake.refused_topics.clear()
        assert await sent(it, given) == Ok()
        assert [topic for topic, _ in fake.received] == ["d1", "d2", "d3"]
        assert await sent(it, given) == Ok()  # a batch that is done is not remembered
    assert [topic for topic, _ in fake.received] == ["d1", "d2", "d3"] * 2


async def test_whoever_has_restarted_sends_the_same_once_more() -> None:
    given = batch_of("d1", "d2")
    async with fake_aws() as fake:
        async with made(fake, topic="{device_id}") as it:
            fake.refused_topics = {"d2": (500, "InternalFailureException", "oh")}
            assert isinstance(await sent(it, given), NotConnected)
        fake.refused_topics.clear()
        async with made(fake, topic="{device_id}") as it:
            assert await sent(it, given) == Ok()
    assert [topic for topic, _ in fake.received] == ["d1", "d1", "d2"]
    assert fake.received[0] == fake.received[1]


async def test_what_is_refused_of_a_batch_is_named_and_the_rest_is_not_sent_twice() -> None:
    given = batch_of("d1", "d2", "d3", "d1")
    async with fake_aws() as fake, made(fake, topic="{device_id}") as it:
        fake.refused_topics = {"d2": (400, "InvalidRequestException", "no")}
        outcome = await sent(it, given)
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2]
        for part in (batch_of("d1"), batch_of("d3", "d1", first_row=3)):
            assert await sent(it, part) == Ok()
    assert [topic for topic, _ in fake.received] == ["d1", "d3"]


async def test_what_is_refused_for_one_of_several_readings_is_halved() -> None:
    async with fake_aws() as fake, made(fake, topic="{device_id}") as it:
        fake.refused_topics = {"d2": (400, "InvalidRequestException", "no")}
        outcome = await sent(it, batch_of("d1", "d2", "d2"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == ()


async def test_a_topic_that_becomes_too_long_is_the_devices() -> None:
    async with fake_aws() as fake, made(fake, topic="{device_id}/{device_id}/{device_id}") as it:
        outcome = await sent(it, batch_of("d1", "d" * 100, "d" * 100))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2, 3]
    assert len(fake.received) == 1


async def test_a_check_changes_nothing_and_says_that_the_keys_are_accepted() -> None:
    async with fake_aws() as fake, made(fake) as it:
        assert [one.level for one in await it.check()] == ["ok", "warning", "ok"]  # it is http here
    assert fake.received == []


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"secret_access_key": "another"}, "broken", "does not accept who we are: InvalidSignatureException"),
        ({"access_key_id": "AKIAANOTHERXAMPLE"}, "broken", "UnrecognizedClientException"),
    ],
)
async def test_a_check_says_which_key_is_wrong(settings: dict[str, Any], level: str, words: str) -> None:
    async with fake_aws() as fake, made(fake, **settings) as it:
        found = (await it.check())[-1]
    assert found.level == level
    assert words in found.words
    assert found.hint


async def test_a_policy_that_forbids_to_look_says_nothing_of_publishing() -> None:
    async with fake_aws() as fake, made(fake) as it:
        fake.refuses = [(403, "ForbiddenException", "no")]
        found = (await it.check())[-1]
    assert (found.level, "iot:Publish" in found.hint) == ("warning", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region": None}, "set region"),
        ({"secret_access_key": None}, "client_cert and client_key"),
        ({"region": "Frankfurt"}, "region"),
        ({"endpoint": "https://x.example.com/path"}, "nothing behind it"),
        ({"client_cert": "x"}, "no certificate"),
        ({"client_key": "x"}, "no private key"),
        ({"ca": "x"}, "no certificate"),
        ({"proxy": "http://me:secret@proxy:3128"}, "proxy_credentials"),
        ({"proxy": "https://proxy:3128"}, "http://"),
        ({"proxy_credentials": "me:secret"}, "set proxy"),
        ({"topic": "a/{device}/b"}, "{device_id}"),
        ({"topic": "a/#"}, "wildcard"),
        ({"topic": "a/../b"}, "no topic can have"),
        ({"topic": ""}, "empty"),
        ({"topic": "$aws/things/x/shadow/update"}, "$aws/rules/NAME"),
        ({"topic": "a/b/c/d/e/f/g/h/i"}, "7 slashes"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    cases.refused(lambda: made(None, **settings), words, "secret@")


@pytest.mark.parametrize("topic", ["$aws/rules/r/a/b/c/d/e/f/g/h", "a/b/c/d/e/f/g/{device_id}", "x"])
def test_these_topics_can_be_published_to(topic: str) -> None:
    assert made(None, topic=topic).config


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "https://data-ats.iot.eu-west-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://data-ats.iot.cn-north-1.amazonaws.com.cn"),
        ({"endpoint": "x-ats.iot.eu-west-1.amazonaws.com"}, "https://x-ats.iot.eu-west-1.amazonaws.com"),
    ],
)
def test_where_it_connects_to(settings: dict[str, Any], base: str) -> None:
    config: Any = made(None, **settings).config
    assert str(config.base().origin()) == base


async def test_a_certificate_stands_for_the_keys(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.file)
    certificate, key = authority.identity("gateway-7")
    seen: list[web.Request] = []

    async def publish(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response()

    by_certificate: dict[str, Any] = {
        "region": None,
        "access_key_id": None,
        "secret_access_key": None,
        "client_cert": certificate,
    }
    by_certificate |= {"client_key": key, "ca": authority.file.read_text()}
    async with serving(publish, tls) as url, made(None, endpoint=url, **by_certificate) as it:
        assert await sent(it, batch(1)) == Ok()
    assert seen[0].raw_path.startswith("/topics/neurogate%2Fsite-1%2Freadings?qos=1")
    assert "authorization" not in seen[0].headers
    for port, alpn in ((8443, ()), (443, ("x-amzn-http-ca",))):
        it = made(None, endpoint="x-ats.iot.eu-west-1.amazonaws.com", client_cert_port=port, **by_certificate)
        assert (it._base.port, it._line.alpn) == (port, alpn)


def test_a_certificate_needs_its_own_key_and_the_accounts_endpoint(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.identity("gateway-7")
    _, another = authority.identity("gateway-7")
    none: dict[str, Any] = {"region": None, "access_key_id": None, "secret_access_key": None}
    for settings, words in (
        ({"client_key": key}, "set endpoint"),
        ({"client_key": another, "endpoint": "x.example.com"}, "cannot be used"),
        ({"client_key": key, "endpoint": "x.example.com", "access_key_id": KEY_ID}, "client_cert and client_key"),
    ):
        with pytest.raises(ValidationError, match=words):
            made(None, **none | {"client_cert": certificate} | settings)
