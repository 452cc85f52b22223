"""Notifications by webhook: what the receiver gets, signed as the specification's own library checks it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier

from cloud_sync.contract import Notification, Ok
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.payload.digest import digest
from gateway.clock import SystemClock
from tests.cloud_sync.samples import ANYWHERE, STANDARD_SECRET, notification


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    got: list[tuple[dict[str, str], bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/hook")), got


async def received(told: Notification, **settings: Any) -> tuple[dict[str, str], bytes]:
    async with receiving() as (url, got):
        base = {"type": "webhook", "name": "hook", "url": url, "secret": STANDARD_SECRET}
        config = Webhook.Config.model_validate(base | settings)
        async with Webhook(config, SystemClock(), ANYWHERE) as webhook:
            assert await webhook.notify(told) == Ok()
    return got[0]


async def test_the_receiver_can_check_it_by_the_specifications_own_library() -> None:
    headers, body = await received(notification(data={"device_id": "pump-1"}, id="7c1d"))
    assert Verifier(STANDARD_SECRET).verify(body, headers) == {
        "type": "notification",
        "id": "7c1d",
        "gateway_id": "site-1",
        "organization_id": "default",
        "kind": "message",
        "priority": "high",
        "subject": "Pump",
        "message": "The pump is off.",
        "time": "2026-11-20T12:00:00.250Z",
        "data": {"device_id": "pump-1"},
    }
    assert headers["webhook-id"] == "7c1d"


async def test_a_digest_has_all_that_is_in_it() -> None:
    parts = [notification(id=str(n), message=f"number {n}") for n in range(30)]
    _, body = await received(digest("the-digest", parts))
    told = json.loads(body)
    assert (told["id"], told["kind"], told["data"]) == ("the-digest", "digest", {"count": 30})
    assert [one["message"] for one in told["notifications"]] == [f"number {n}" for n in range(30)]
    assert told["notifications"][0]["id"] == "0"


async def test_the_body_may_be_the_receivers_own() -> None:
    template = {"content": "**{{title}}**: {{body}}", "level": "{{priority}}", "all": "{{data}}"}
    _, body = await received(notification(data={"a": 1}), notification_template=template)
    assert json.loads(body) == {"content": "**Pump**: The pump is off.", "level": "high", "all": {"a": 1}}


async def test_its_words_may_be_those_of_a_template() -> None:
    _, body = await received(notification(), notify={"templates": {"mess*": {"text": "{{title}} in {{gateway_id}}"}}})
    assert (json.loads(body)["subject"], json.loads(body)["message"]) == ("Pump", "Pump in site-1")


async def test_it_may_be_a_cloud_event_or_compressed() -> None:
    headers, body = await received(notification(), cloudevents="batch")
    (event,) = json.loads(body)
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert (event["id"], event["type"], event["source"]) == (
        "6f1c",
        "com.netneural.notification.v1",
        "/gateways/site-1",
    )
    headers, body = await received(notification(), cloudevents="structured", batch_max_readings=1, gzip=True)
    assert headers["content-encoding"] == "gzip"
    assert json.loads(body)["data"]["message"] == "The pump is off."


def test_a_wrong_template_is_refused() -> None:
    base = {"type": "webhook", "name": "hook", "url": "https://x.org/"}
    with pytest.raises(ValidationError, match="unknown field"):
        Webhook.Config.model_validate(base | {"notification_template": {"a": "{{nonsense}}"}})
    with pytest.raises(ValidationError, match="cloudevents fixes the body"):
        Webhook.Config.model_validate(base | {"notification_template": {}, "cloudevents": "batch"})


def test_it_is_told_nothing_by_itself_unless_it_asks() -> None:
    """Receivers there are already take readings, and know no notifications."""
    base = {"type": "webhook", "name": "hook", "url": "https://x.org/"}
    assert not Webhook(Webhook.Config.model_validate(base), SystemClock(), ANYWHERE).wants("alert.raised", "critical")
    asking = Webhook.Config.model_validate(base | {"notify": {"kinds": ["alert.*"], "min_priority": "high"}})
    webhook = Webhook(asking, SystemClock(), ANYWHERE)
    assert webhook.wants("alert.raised", "critical")
    assert not webhook.wants("alert.raised", "medium")
    assert not webhook.wants("message", "critical")
