"""Pub/Sub as Google's own client knows it: what is published, in which order, and what a refusal means."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from yarl import URL

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
from gateway.model.reading import rfc3339, wire_reading
from tests.cloud_sync.integrations.clouds import cases, google
from tests.cloud_sync.integrations.clouds.google import fake_pubsub, made, made_account
from tests.cloud_sync.samples import NOW_MS, batch, batch_of, sent, stored

RECORDED = json.loads(Path(google.__file__).with_name("google_recorded.json").read_text())
ACCOUNT = made_account()
OPEN = partial(fake_pubsub, ACCOUNT)


async def test_what_googles_client_has_sent_is_understood_by_our_fake() -> None:
    async with fake_pubsub(None) as fake, ClientSession() as session:
        url = URL(f"{fake.endpoint.rstrip('/')}{RECORDED['path']}", encoded=True)
        headers = {"content-type": RECORDED["content_type"]}
        async with session.post(url, data=RECORDED["body"].encode(), headers=headers) as answer:
            assert await answer.json() == {"messageIds": ["0", "1"]}
    [messages] = fake.received
    assert [message["data"].decode() for message in messages] == ['{"t":21.5}', '{"t":"ü"}']


async def test_ours_is_like_theirs() -> None:
    async with OPEN() as fake, made(fake) as it:
        assert await sent(it, batch(1)) == Ok()
    assert fake.requests == [(RECORDED["method"], RECORDED["path"].partition("?")[0])]
    [ours], theirs = json.loads(fake.bodies[0])["messages"], json.loads(RECORDED["body"])["messages"][0]
    assert set(ours) == set(theirs)
    assert {name: type(value) for name, value in ours.items()} == {name: type(value) for name, value in theirs.items()}


async def test_each_device_has_its_order_and_the_attributes_of_cloud_iot_core() -> None:
    given = batch_of("d1", "d2", "d1")
    async with OPEN() as fake, made(fake, registry_id="site-a", region="europe-west3") as it:
        assert await sent(it, given) == Ok()
    assert [[one["orderingKey"] for one in messages] for messages in fake.received] == [
        ["default/d1", "default/d1"],
        ["default/d2"],
    ]
    message = fake.received[0][1]
    wire = wire_reading(given.readings[2], gateway_id="site-1", log_uuid="log-1")
    assert json.loads(message["data"]) == wire
    assert message["attributes"] == {
        "projectId": "project-1",
        "deviceRegistryId": "site-a",
        "deviceRegistryLocation": "europe-west3",
        "id": wire["id"],
        "deviceId": "d1",
        "organizationId": "default",
        "gatewayId": "site-1",
        "time": rfc3339(NOW_MS),
    }
    assert len(set(fake.tokens)) == 1


async def test_a_request_has_at_most_1000_messages() -> None:
    async with OPEN() as fake, made(fake) as it:
        assert await sent(it, batch(2_001)) == Ok()
    assert [len(messages) for messages in fake.received] == [1_000, 1_000, 1]
    seqs = [json.loads(one["data"])["seq"] for messages in fake.received for one in messages]
    assert seqs == list(range(1, 2_002))


async def test_a_request_has_at_most_10_000_000_bytes() -> None:
    readings = [stored(row, {"sensors": {}, "note": "x" * 60_000}) for row in range(1, 151)]
    async with OPEN() as fake, made(fake) as it:
        assert await sent(it, Batch("msg_1", readings, "site-1", "log-1")) == Ok()
    sizes = [len(body) for body in fake.bodies]
    assert len(sizes) == 2
    assert max(sizes) <= 10_000_000 < max(sizes) + 100_000


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        (429, "RESOURCE_EXHAUSTED", RetryAfter),
        (503, "UNAVAILABLE", RetryAfter),
        (409, "ABORTED", NotConnected),
        (499, "CANCELLED", NotConnected),
        (500, "INTERNAL", NotConnected),
        (500, "UNKNOWN", NotConnected),
        (504, "DEADLINE_EXCEEDED", NotConnected),
        (400, "INVALID_ARGUMENT", Rejected),
        (400, "FAILED_PRECONDITION", WrongAddress),
        (401, "UNAUTHENTICATED", AuthFailed),
        (403, "PERMISSION_DENIED", AuthFailed),
        (404, "NOT_FOUND", WrongAddress),
    ],
)
async def test_a_refusal_is_known_by_its_status(code: int, status: str, expected: type[Outcome]) -> None:
    await cases.a_refusal_is_known(OPEN, made, (code, status, "too bad"), expected)


async def test_a_request_that_google_calls_too_large_is_made_smaller() -> None:
    words = "The value for request_size is too large. You passed 10000001"
    assert isinstance(await cases.outcome_of(OPEN, made, 400, "INVALID_ARGUMENT", words), TooLarge)


async def test_throttled_in_the_middle_the_retry_goes_on_there() -> None:
    given = batch_of("d1", "d2", "d3")
    async with OPEN() as fake, made(fake) as it:
        fake.refuses = [None, (429, "RESOURCE_EXHAUSTED", "slow down")]
        assert isinstance(await sent(it, given), RetryAfter)
        assert await sent(it, given) == Ok()
    assert [messages[0]["attributes"]["deviceId"] for messages in fake.received] == ["d1", "d2", "d3"]


async def test_a_token_is_used_for_50_minutes_and_none_is_used_that_has_expired() -> None:
    await cases.a_token_is_used_for_50_minutes_and_none_that_has_expired(OPEN, made)


@pytest.mark.parametrize(("off_s", "words"), [(-7_200, "7,200 s behind"), (7_200, "7,200 s ahead of")])
async def test_a_wrong_clock_is_told_as_such(off_s: int, words: str) -> None:
    await cases.a_wrong_clock_is_told(OPEN, made, off_s, words)


async def test_a_check_says_whether_we_may_publish_and_publishes_nothing() -> None:
    async with OPEN() as fake:
        async with made(fake) as it:
            assert [one.level for one in await it.check()] == ["ok", "warning", "ok"]  # it is http here
        async with made(fake, topic="another") as it:
            found = (await it.check())[-1]
            assert found.level == "broken"
            assert "the topic another of project-1" in found.words
            assert "roles/pubsub.publisher" in found.hint
        async with made(fake, service_account_key=made_account("another").key_file) as it:
            found = (await it.check())[-1]
            assert (found.level, "does not accept" in found.words) == ("broken", True)
    assert fake.received == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"service_account_key": "{}"}, "service_account"),
        ({"service_account_key": json.dumps(ACCOUNT.info | {"project_id": "?"})}, "set project_id"),
        ({"project_id": "a/b"}, "project_id"),
        ({"topic": "projects/p/topics/t"}, "topic's own name"),
        ({"topic": "google-topic"}, "topic's own name"),
        ({"region": "Frankfurt"}, "region"),
        ({"endpoint": "https://x.example.com/v1"}, "nothing behind it"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    cases.refused(lambda: made(None, **settings), words, "PRIVATE KEY")


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({}, "pubsub.googleapis.com"),
        ({"region": "us-central1"}, "us-central1-pubsub.googleapis.com"),
        ({"endpoint": "https://private.example.com"}, "private.example.com"),
    ],
)
def test_where_it_connects_to(settings: dict[str, Any], host: str) -> None:
    assert made(None, **settings)._base.host == host


def test_no_key_is_shown() -> None:
    assert "PRIVATE KEY" not in repr(made(None).config)


async def test_the_topic_may_be_another_projects() -> None:
    async with OPEN() as fake, made(fake, project_id="project-2", topic="a%b") as it:
        fake.topics = {"projects/project-2/topics/a%b"}
        assert await sent(it, batch(1)) == Ok()
    assert fake.received[0][0]["attributes"]["projectId"] == "project-2"
    assert fake.requests == [("POST", "/v1/projects/project-2/topics/a%25b:publish")]
