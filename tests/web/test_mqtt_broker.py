"""`mqtt-broker` over HTTP, as programs use it that do not speak MQTT: against a whole gateway and real receivers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks.webhooks import Webhook

from gateway.cli.gateway_link import connect
from gateway.model.roles import Role
from gateway.operations.credentials import SELF_TEST, add_credential, list_credentials
from gateway.operations.erase import erase_device
from gateway.operations.tokens import create_token, revoke_token
from gateway.storage.passwords import derived_secret
from tests.broker.raw import RawClient, publish, subscribe
from tests.site import Site, reading, running_site, until

API = "/api/v1/mqtt-broker"
STATUS = "devices/kitchen/status"


@dataclass
class Api:
    """A gateway, and a token to ask it with."""

    site: Site
    token: str

    async def ask(
        self, method: str, path: str = API, body: object = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        data = None if body is None else body if isinstance(body, str) else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self.site.http.request(method, self.site.url(path), data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def post(self, **body: object) -> tuple[int, Any]:
        return await self.ask("POST", body=body)

    async def subscribe(self, *topics: str, **more: object) -> dict[str, Any]:
        status, answer = await self.post(operation="subscribe", topics=topics, **more)
        assert status == 201, answer
        return answer  # type: ignore[no-any-return]

    async def messages(self, subscription: dict[str, Any], **query: int) -> list[dict[str, Any]]:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        _, answer = await self.ask("GET", f"{API}/messages?subscription_id={subscription['id']}{more}")
        return answer["messages"]  # type: ignore[no-any-return]

    async def publish(self, topic: str, payload: object, **more: object) -> None:
        status, answer = await self.post(operation="publish", messages=[{"topic": topic, "payload": payload, **more}])
        assert status == 200, answer

    async def callback(self, subscription: dict[str, Any]) -> dict[str, Any]:
        _, answer = await self.ask("GET", f"{API}/subscriptions")
        return next(one["callback"] for one in answer["subscriptions"] if one["id"] == subscription["id"])


@asynccontextmanager
async def running(folder: Path, role: Role = "admin", **tables: Any) -> AsyncIterator[Api]:
    async with running_site(folder, **tables) as site:
        new = await site.command(create_token, name="test", organization_id="default", role=role)
        yield Api(site, new.token)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


@dataclass
class Receiver:
    """What a callback URL leads to; answers as it is told."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def post(self, request: web.Request) -> web.Response:
        self.posts.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    def messages(self) -> list[Any]:
        return [message for _, body in self.posts for message in json.loads(body)["messages"]]


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers=list(answers))
    app = web.Application()
    app.router.add_post("/mqtt-callback", receiver.post)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/mqtt-callback"))
        yield receiver


# Publish


async def test_a_command_to_a_device_that_is_not_there_registers_none(api: Api) -> None:
    await api.publish("devices/typo/commands/1", "go")
    assert [one.device_id for one in api.site.gateway._running.access.devices] == ["kitchen"]


async def test_p1_what_is_published_on_a_route_is_read_by_its_parser_and_answered(tmp_path: Path) -> None:
    report = "$sys/version/1.0/devices/hub1/properties_report"
    routes = [{"topic": "$sys/version/+/devices/#", "parser": "vmark"}, {"topic": "packs/+", "parser": "senml"}]
    async with running(tmp_path, ingest={"routes": routes}) as api:
        replies = await api.subscribe(f"{report}_reply")
        _, answer = await api.post(
            operation="publish",
            messages=[
                {"topic": report, "payload": {"properties": {"t": 1}}},
                {"topic": report, "payload": []},
                {"topic": f"{report}_reply", "payload": {"result": 0}},
                {"topic": "packs/x", "payload": [{"bn": "a:", "n": "t", "v": 1}, {"bn": "a b", "n": "t", "v": 1}]},
            ],
        )
        assert [one.get("reading") for one in answer["results"]] == ["stored", "quarantined", None, "quarantined"]
        assert [one["payload"] for one in await api.messages(replies)] == [{"result": 0}] * 2
        assert [one.device_id for one in await api.site.stored(1)] == ["hub1"]


@pytest.mark.parametrize(
    ("payload", "content"),
    [("on", b"on"), ({"a": 1.5}, b'{"a":1.5}'), ([1], b"[1]"), (True, b"true"), ("grün", "grün".encode())],
)
async def test_what_is_published_reaches_mqtt_clients(api: Api, payload: object, content: bytes) -> None:
    async with RawClient.login(api.site) as client:
        client.send(subscribe("devices/kitchen/#"))
        await client.packet()
        await api.publish("devices/kitchen/commands/1", payload)
        assert await client.packet() == publish("devices/kitchen/commands/1", content)


async def test_a_retained_message_is_there_for_later_and_an_empty_one_ends_it(api: Api) -> None:
    await api.publish("devices/kitchen/config", {"version": 3}, qos=1, retain=True)
    async with RawClient.login(api.site) as client:
        client.send(subscribe("devices/kitchen/config"))
        await client.packet()
        assert (await client.packet())[-13:] == b'{"version":3}'
    await api.publish("devices/kitchen/config", None, retain=True)
    async with RawClient.login(api.site) as client:
        client.send(subscribe("devices/kitchen/config"))
        await client.packet()
        assert await client.is_alive()  # its answer comes next: nothing retained came before


async def test_telemetry_is_stored_like_any_other_and_what_is_no_reading_goes_to_quarantine(api: Api) -> None:
    good = json.loads(reading("hall"))
    status, answer = await api.post(
        operation="publish",
        organization_id="default",
        integration_id="integration-uuid",
        messages=[
            {"topic": "devices/hall/telemetry", "payload": good, "qos": 1},
            {"topic": "devices/sensor-123/telemetry", "payload": {"temperature": 23.5}, "qos": 1},
        ],
    )
    assert (status, answer["published"]) == (200, 2)
    first, second = answer["results"]
    assert first == {"topic": "devices/hall/telemetry", "status": "published", "reading": "stored"}
    assert (second["status"], second["reading"], second["code"]) == ("published", "quarantined", "invalid_reading")
    assert [one.device_id for one in await api.site.stored(1)] == ["hall"]
    assert [one.device_id for one in await api.site.quarantined()] == ["sensor-123"]


@pytest.mark.parametrize(
    ("topic", "status", "code"),
    [
        ("devices/+/status", 400, "invalid_topic"),
        ("", 400, "invalid_topic"),
        ("devices/kitchen" + "/x" * 31, 400, "invalid_topic"),
        ("devices/kitchen/" + "x" * 1_009, 400, "invalid_topic"),
        ("a/\x00", 400, "invalid_topic"),
        ("\ud800", 400, "invalid_request"),
        ("org_other/devices/kitchen/status", 403, "foreign_topic"),
        ("$SYS/broker/uptime", 403, "foreign_topic"),
        ("anything", 403, "foreign_topic"),
    ],
)
async def test_a_topic_that_cannot_be_is_refused_and_the_others_are_published(
    api: Api, topic: str, status: int, code: str
) -> None:
    seen, answer = await api.post(operation="publish", messages=[{"topic": topic, "payload": "x"}])
    assert (seen, answer["error"]["code"]) == (status, code)
    assert answer["error"]["hint"] or code == "invalid_topic"
    if code != "invalid_request":
        both = [{"topic": topic, "payload": "x"}, {"topic": STATUS, "payload": "x"}]
        seen, answer = await api.post(operation="publish", messages=both)
        assert (seen, [one["status"] for one in answer["results"]]) == (207, ["refused", "published"])


async def test_a_payload_may_be_as_large_as_a_packet(tmp_path: Path) -> None:
    async with running(tmp_path, mqtt={"max_packet_bytes": 1_000}) as api:
        await api.publish(STATUS, "x" * 1_000)
        status, answer = await api.post(operation="publish", messages=[{"topic": STATUS, "payload": "x" * 1_001}])
        assert (status, answer["error"]["code"]) == (400, "payload_too_large")


# Subscribe


async def test_what_matches_is_kept_and_can_be_read_page_by_page(api: Api) -> None:
    await api.publish(STATUS, "before")
    subscription = await api.subscribe("devices/+/status", "devices/kitchen/#")
    async with RawClient.login(api.site) as client:
        client.send(publish(STATUS, b"\xff", qos=1, packet_id=7), publish("devices/kitchen/other", b"1.5"))
        assert await client.packet() == b"\x40\x02\x00\x07"
    await api.publish("devices/hall/status", {"status": "online"}, qos=1, retain=True)
    await api.publish("devices/hall/other", "not wanted")
    await until(lambda: api.site.gateway._running.messages.newest == 3)
    kept = await api.messages(subscription)
    assert [(one["topic"], one["payload"], one["encoding"], one["qos"], one["retain"]) for one in kept] == [
        (STATUS, "/w==", "base64", 1, False),
        ("devices/kitchen/other", 1.5, "json", 0, False),
        ("devices/hall/status", {"status": "online"}, "json", 1, True),
    ]
    assert len({one["id"] for one in kept}) == 3
    _, page = await api.ask("GET", f"{API}/messages?subscription_id={subscription['id']}&limit=2")
    assert page["messages"] == kept[:2]
    assert await api.messages(subscription, after=page["next"]) == kept[2:]


async def test_matching_messages_are_posted_signed_and_in_order(api: Api) -> None:
    async with receiving() as receiver:
        api.site.clock.advance(round(time.time() * 1000) - api.site.clock.now_ms())  # the verifier looks at its own
        subscription = await api.subscribe("devices/+/status", callback_url=receiver.url)
        for number in range(5):
            await api.publish(STATUS, number, qos=1)
        await until(lambda: len(receiver.messages()) == 5)
        assert [one["payload"] for one in receiver.messages()] == list(range(5))
        for headers, body in receiver.posts:
            assert Webhook(subscription["secret"]).verify(body, headers)
            assert json.loads(body)["subscription_id"] == subscription["id"]
        assert (await api.callback(subscription))["delivered"] == 5
        _, listed = await api.ask("GET", f"{API}/subscriptions")
        assert subscription["secret"] not in json.dumps(listed)


async def test_a_receiver_that_fails_gets_the_same_batch_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_sync.backoff.FIRST_WAIT_S", 0.01)
    async with receiving(503, 500) as receiver:
        await api.subscribe("devices/+/status", callback_url=receiver.url)
        await api.publish(STATUS, "x", qos=1)
        await until(lambda: len(receiver.posts) == 3)
        assert len({(headers["webhook-id"], body) for headers, body in receiver.posts}) == 1


async def test_what_was_not_delivered_goes_out_after_a_restart_once(tmp_path: Path) -> None:
    async with receiving(500) as receiver:
        async with running(tmp_path) as api:
            subscription = await api.subscribe("devices/+/status", callback_url=receiver.url)
            await api.publish(STATUS, "first", qos=1)
            await until(lambda: len(receiver.posts) == 1)
            kitchen = api.site.kitchen
            await api.publish(STATUS, "second", qos=1)
        async with running_site(tmp_path, kitchen=kitchen) as site:
            again = Api(site, api.token)
            await until(lambda: len(receiver.messages()) == 3)
            (first, once), (same, body), (_, last) = receiver.posts
            assert (first["webhook-id"], once) == (same["webhook-id"], body)
            assert json.loads(last)["messages"][0]["payload"] == "second"
            await until(lambda: site.gateway._running.callbacks.state(subscription["id"]).delivered == 2)
        async with running_site(tmp_path, kitchen=kitchen) as site:
            again = Api(site, api.token)
            await again.publish(STATUS, "third", qos=1)
            await until(lambda: len(receiver.messages()) == 4)
            assert receiver.messages()[-1]["payload"] == "third"


async def test_p1_a_message_that_is_wanted_is_on_disk_before_it_is_answered(api: Api) -> None:
    subscription = await api.subscribe("devices/+/status")
    async with RawClient.login(api.site) as client:
        client.send(publish(STATUS, b"x", qos=1, packet_id=7))
        await client.packet()
        (row,) = await api.site.log.fetch("SELECT count(*) FROM mqtt_messages")
        assert row[0] == 1
    assert len(await api.messages(subscription)) == 1


async def test_p5_the_oldest_leave_beyond_the_cap_and_callbacks_count_them(tmp_path: Path) -> None:
    async with running(tmp_path, mqtt={"messages_max_count": 32}) as api, receiving(*[503] * 100) as receiver:
        late = await api.subscribe("devices/+/status", callback_url=receiver.url)
        kept = await api.subscribe("devices/+/status")
        other = await api.subscribe("devices/+/other", callback_url=receiver.url)
        await api.post(operation="publish", messages=[{"topic": STATUS, "payload": number} for number in range(40)])
        payloads = [one["payload"] for one in await api.messages(kept)]
        assert payloads == list(range(40 - len(payloads), 40))
        assert 30 <= len(payloads) <= 32
        lost = 40 - len(payloads)
        assert (await api.callback(late))["lost"] == lost
        assert (await api.callback(other))["lost"] == 0
        name = 'neurogate_events_dropped_total{destination="mqtt_callbacks",reason="messages_full"}'
        assert await api.site.metric(name) == lost


async def test_p9_a_callback_goes_only_where_egress_allows(tmp_path: Path) -> None:
    """By default to no service of this machine: who has a token could ask those that trust their own host."""
    async with running(tmp_path, egress={"policy": "lan"}) as api, receiving() as receiver:
        subscription = await api.subscribe("devices/+/status", callback_url=receiver.url)
        await api.publish(STATUS, "x", qos=1)
        state = api.site.gateway._running.callbacks.state(subscription["id"])
        await until(lambda: state.last_error != "")
        assert state.last_error == "127.0.0.1 is not allowed by egress; to allow it, see egress.policy and egress.allow"
        assert (await api.callback(subscription))["state"] == "retrying"
    assert receiver.posts == []


async def test_p8_who_publishes_much_loses_their_own_and_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, mqtt={"messages_max_count": 32}) as api:
        new = await api.site.command(create_token, name="other", organization_id="acme", role="owner")
        theirs = Api(api.site, new.token)
        ours, loud = await api.subscribe("devices/#"), await theirs.subscribe("devices/#")
        await api.publish(STATUS, "ours")
        await theirs.post(operation="publish", messages=[{"topic": STATUS, "payload": number} for number in range(60)])
        assert [one["payload"] for one in await api.messages(ours)] == ["ours"]
        left = [one["payload"] for one in await theirs.messages(loud)]
        assert left == list(range(60 - len(left), 60))
        assert 25 <= len(left) <= 31
        for one, subscription, missed in ((api, ours, False), (theirs, loud, True)):
            _, page = await one.ask("GET", f"{API}/messages?subscription_id={subscription['id']}")
            assert page["missed"] is missed
        _, page = await theirs.ask("GET", f"{API}/messages?subscription_id={loud['id']}&after={page['next']}")
        assert (page["messages"], page["missed"]) == ([], False)


async def test_a_page_holds_so_many_bytes_and_the_next_goes_on(api: Api) -> None:
    subscription = await api.subscribe("devices/#")
    for _ in range(3):
        await api.post(operation="publish", messages=[{"topic": STATUS, "payload": "x" * 60_000}] * 10)
    _, page = await api.ask("GET", f"{API}/messages?subscription_id={subscription['id']}&limit=1000")
    assert len(page["messages"]) == 17
    assert len(await api.messages(subscription, after=page["next"])) == 13


async def test_a_number_that_is_none_is_text(api: Api) -> None:
    subscription = await api.subscribe("devices/#")
    async with RawClient.login(api.site) as client:
        client.send(publish(STATUS, b"[1e999]", qos=1, packet_id=7))
        await client.packet()
    (message,) = await api.messages(subscription)
    assert (message["payload"], message["encoding"]) == ("[1e999]", "text")


async def test_a_path_and_a_body_that_contradict_each_other_are_refused(api: Api) -> None:
    status, answer = await api.ask("POST", "/api/v1/mqtt-hybrid/publish", {"operation": "test"})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert answer["error"]["message"].startswith("operation: ")


async def test_who_subscribes_is_heard_again_when_the_log_is_gone(tmp_path: Path) -> None:
    """And no id is given a second time to somebody who has seen it."""
    async with running(tmp_path) as api:
        await api.subscribe("devices/#")
        for number in range(5):
            await api.publish(STATUS, number)
        second = await api.subscribe("devices/#")
        kitchen = api.site.kitchen
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"log.db{end}").unlink(missing_ok=True)
    async with running_site(tmp_path, kitchen=kitchen) as site:
        again = Api(site, api.token)
        await again.publish(STATUS, "after")
        (message,) = await again.messages(second)
        assert message["payload"] == "after"
        assert message["id"].endswith("m6")


async def test_p6_no_message_id_comes_again_when_the_log_is_damaged(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        subscription = await api.subscribe("devices/#")
        for number in range(5):
            await api.publish(STATUS, number)
        api.site.clock.advance(8 * 86_400_000)
        api.site.gateway._running.messages.expire()
        await api.site.gateway._running.messages._store.written()
        assert await api.messages(subscription) == []
        kitchen = api.site.kitchen
    with (tmp_path / "log.db").open("r+b") as file:
        file.write(b"garbage garbage ")
    async with running_site(tmp_path, kitchen=kitchen) as site:
        again = Api(site, api.token)
        await again.publish(STATUS, "after")
        (message,) = await again.messages(subscription)
        assert int(message["id"].rpartition("m")[2]) > 5


async def test_a_subscription_ends(api: Api) -> None:
    async with receiving() as receiver:
        subscription = await api.subscribe("devices/+/status", callback_url=receiver.url)
        assert await api.ask("DELETE", f"{API}/subscriptions/{subscription['id']}") == (204, None)
        status, answer = await api.ask("DELETE", f"{API}/subscriptions/{subscription['id']}")
        assert (status, answer["error"]["code"]) == (404, "not_found")
        await api.publish(STATUS, "x", qos=1)
        assert await api.ask("GET", f"{API}/subscriptions") == (200, {"subscriptions": []})
        assert list(await api.site.log.fetch("SELECT count(*) FROM mqtt_messages")) == [(0,)]
        assert receiver.posts == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"topics": []}, "invalid_request"),
        ({"topics": ["#"]}, "foreign_topic"),
        ({"topics": ["org_other/devices/#"]}, "foreign_topic"),
        ({"topics": ["devices/a#"]}, "foreign_topic"),
        ({"topics": ["devices" + "/a" * 40]}, "invalid_topic"),
        ({"topics": ["devices/" + "a" * 1_100]}, "invalid_topic"),
        ({"topics": ["devices/#"], "callback_url": "ftp://x"}, "invalid_request"),
        ({"topics": ["devices/#"], "callback_url": "http://user:geheim@x/"}, "invalid_request"),
    ],
)
async def test_a_wrong_subscription_is_refused_in_plain_words(api: Api, body: dict[str, object], code: str) -> None:
    status, answer = await api.post(operation="subscribe", **body)
    assert (status, answer["error"]["code"]) == (400, code)
    assert "geheim" not in json.dumps(answer)


# Test and credentials


@pytest.mark.parametrize("path", [API, "/functions/v1/mqtt-broker"])
async def test_a_test_is_a_real_login_and_leaves_nothing(api: Api, path: str) -> None:
    status, answer = await api.ask("POST", path, {"operation": "test"})
    assert (status, answer["success"]) == (200, True)
    assert answer["round_trip_ms"] > 0
    names = [one.username for one in await api.site.command(list_credentials)]
    assert not [name for name in names if name.startswith(SELF_TEST)]


async def test_tests_at_once_do_not_hinder_each_other_nor_reach_anybody_else(api: Api) -> None:
    subscription = await api.subscribe("devices/#", "org_default/devices/#")
    answers = await asyncio.gather(*(api.post(operation="test") for _ in range(3)))
    assert [answer["success"] for _, answer in answers] == [True] * 3
    assert await api.messages(subscription) == []
    status, answer = await api.post(operation="credentials", action="create", username=f"{SELF_TEST}mine")
    assert (status, answer["error"]["code"]) == (400, "invalid_credential_id")


async def test_credentials_of_the_organisation(api: Api) -> None:
    hybrid = "/functions/v1/mqtt-hybrid/credentials"
    status, new = await api.ask("POST", hybrid, {"organization_id": "default", "action": "create"})
    assert (status, new["topic_prefix"]) == (201, "org_default/devices/#")
    async with aiomqtt.Client(
        "127.0.0.1", api.site.mqtt_port, username=new["username"], password=new["password"]
    ) as client:
        await client.publish("org_default/devices/x/status", b"on", qos=1)
    status, listed = await api.post(operation="credentials", action="list")
    assert {one["username"] for one in listed["credentials"]} == {"default/kitchen", new["username"]}
    assert new["password"] not in json.dumps(listed)
    status, _ = await api.post(operation="credentials", action="rotate", username=new["username"], overlap_h=0)
    assert status == 200
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", api.site.mqtt_port, username=new["username"], password=new["password"]):
            pass
    status, gone = await api.post(operation="credentials", action="revoke", username=new["username"])
    assert gone == {"username": new["username"], "revoked": True}
    status, answer = await api.post(operation="credentials", action="revoke", username=new["username"])
    assert (status, answer["error"]["code"]) == (404, "not_found")


async def test_p8_a_credentials_name_tells_nobody_what_others_have_called_theirs(api: Api) -> None:
    token = (await api.site.command(create_token, name="other", organization_id="acme", role="admin")).token
    theirs = Api(api.site, token)
    await api.site.command(add_credential, name="hub", organization_id=None)
    for one, whose in ((api, "default"), (theirs, "acme")):
        status, new = await one.post(operation="credentials", action="create", username="hub")
        assert (status, new["username"]) == (201, f"hub@{whose}")
        status, answer = await one.post(operation="credentials", action="create", username="hub")
        assert (status, answer["error"]["code"]) == (409, "already_exists")
        assert f"hub@{whose}" in answer["error"]["message"]
    status, gone = await theirs.post(operation="credentials", action="revoke", username="hub")
    assert (status, gone["username"]) == (200, "hub@acme")
    left = {one.username for one in await api.site.command(list_credentials)}
    assert left == {"default/kitchen", "hub", "hub@default"}


# Who may


async def test_who_has_no_token_or_a_revoked_one_is_nobody(api: Api) -> None:
    for token in ("", "wrong", api.site.kitchen.password):
        status, answer = await api.ask("GET", f"{API}/subscriptions", token=token)
        assert (status, answer["error"]["code"]) == (401, "unauthorized")
    await api.site.command(revoke_token, name="test")
    assert (await api.ask("GET", f"{API}/subscriptions"))[0] == 401


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, http={"rate_limit_burst": 2}) as api:
        headers = {"Authorization": f"Bearer {api.token}"}
        for _ in range(2):
            assert (await api.ask("GET", f"{API}/subscriptions"))[0] == 200
        async with api.site.http.get(api.site.url(f"{API}/subscriptions"), headers=headers) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")


@pytest.mark.parametrize(
    ("role", "reads", "changes"), [("owner", 200, 200), ("member", 200, 403), ("device", 403, 403)]
)
async def test_what_each_role_may(tmp_path: Path, role: Role, reads: int, changes: int) -> None:
    async with running(tmp_path, role) as api:
        assert (await api.ask("GET", f"{API}/subscriptions"))[0] == reads
        status, _ = await api.post(operation="publish", messages=[{"topic": STATUS, "payload": "x"}])
        assert status == changes


async def test_p8_an_organisation_sees_only_its_own(api: Api) -> None:
    other = (await api.site.command(create_token, name="other", organization_id="acme", role="owner")).token
    subscription = await api.subscribe("devices/#")
    await api.post(operation="credentials", action="create", username="hub")
    theirs = Api(api.site, other)
    assert (await theirs.ask("GET", f"{API}/subscriptions"))[1] == {"subscriptions": []}
    assert (await theirs.ask("GET", f"{API}/messages?subscription_id={subscription['id']}"))[0] == 404
    assert (await theirs.ask("DELETE", f"{API}/subscriptions/{subscription['id']}"))[0] == 404
    assert (await theirs.post(operation="credentials", action="revoke", username="hub"))[0] == 404
    assert (await theirs.post(operation="credentials", action="rotate", username="hub@default"))[0] == 404
    assert (await theirs.post(operation="test", organization_id="default"))[0] == 403
    await theirs.publish("devices/kitchen/status", "theirs")
    assert await api.messages(subscription) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("nonsense", "invalid_request"),
        ("[]", "invalid_request"),
        ({}, "unknown_operation"),
        ({"operation": "dance"}, "unknown_operation"),
        ({"operation": "publish"}, "invalid_request"),
        ({"operation": "publish", "messages": [{"topic": STATUS, "payload": 1, "qos": 3}]}, "invalid_request"),
        ('{"operation": "publish", "messages": [{"topic": "a", "payload": {"t": NaN}}]}', "invalid_request"),
        ('{"operation": "publish", "messages": [{"topic": "a", "payload": 1e999}]}', "invalid_request"),
        ({"operation": "credentials"}, "invalid_request"),
        ({"operation": "test", "surprise": 1}, "invalid_request"),
        ({"operation": "publish", "messages": [{"topic": STATUS, "payload": 1, "retain": 1}]}, "invalid_request"),
    ],
)
async def test_what_cannot_be_understood_is_said(api: Api, body: object, code: str) -> None:
    status, answer = await api.ask("POST", body=body)
    assert (status, answer["error"]["code"]) == (400, code)


async def test_p5_erasing_a_device_erases_its_messages(api: Api) -> None:
    subscription = await api.subscribe("devices/#")
    await api.publish(STATUS, "home", qos=1)
    await api.publish("devices/hall/status", "away", qos=1)
    async with connect(api.site.settings) as link:
        async for _ in link.stream(erase_device, organization_id="default", device_id="kitchen"):
            pass
    assert [one["payload"] for one in await api.messages(subscription)] == ["away"]


async def test_several_subscribe_at_once(api: Api) -> None:
    await asyncio.gather(*(api.subscribe("devices/+/status") for _ in range(15)))
    _, answer = await api.ask("GET", f"{API}/subscriptions")
    assert len(answer["subscriptions"]) == 15


def test_a_derived_secret_is_one_of_its_own() -> None:
    assert derived_secret(b"k" * 32, "a") != derived_secret(b"k" * 32, "b")
    assert len(Webhook(derived_secret(b"k" * 32, "a"))._whsecret) == 32
