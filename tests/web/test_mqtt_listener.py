"""mqtt-listener: messages that a customer's broker POSTs, as if a hub had published them; answered when on disk."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Settings
from gateway.model.roles import Role
from gateway.operations.devices import list_devices
from tests.parsers.test_broker_hook import EMQX_4, EMQX_5, PLAIN, TOPIC
from tests.site import FailingDisk, reading, running_site
from tests.web.api import Asker, asker, running_api

API = "/api/v1/mqtt-listener"
SECRET = "a secret that a broker's extension signs with"


def message(device_id: str = "kitchen", **more: Any) -> dict[str, Any]:
    return {"topic": f"devices/{device_id}/telemetry", "payload": reading(device_id).decode()} | more


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path, role="device", ingest={"hook_secret": SECRET}) as api:
        yield api


async def signed(api: Asker, body: bytes, key: str = SECRET, header: str | None = None) -> tuple[int, Any]:
    signature = header or f"sha256={hmac.digest(key.encode(), body, 'sha256').hex()}"
    url, headers = api.site.url(API), {"X-Webhook-Signature": signature, "Content-Type": "application/json"}
    async with api.site.http.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", [API, "/functions/v1/mqtt-listener"])
@pytest.mark.parametrize("form", [EMQX_4, EMQX_5, PLAIN])
async def test_a_brokers_message_is_a_reading_on_disk_when_200_comes(
    api: Asker, path: str, form: dict[str, Any]
) -> None:
    status, answer = await api.post(path, form)
    assert (status, answer["accepted"]) == (200, 1)
    assert answer["results"] == [{"topic": TOPIC, "status": "accepted", "reading": "stored"}]
    (stored,) = await api.site.log.read(0, limit=5)
    assert (stored.organization_id, stored.device_id) == ("default", "kitchen")


async def test_many_at_once_are_stored_in_their_order(api: Asker) -> None:
    many = [message(payload=json.loads(reading(boot_id="b", seq=seq))) for seq in range(500)]
    status, answer = await api.post(API, {"messages": many})
    assert (status, answer["accepted"]) == (200, 500)
    assert [one.seq for one in await api.site.log.read(0, limit=600)] == [*range(500)]


async def test_an_unknown_device_is_discovered_and_the_organisation_is_the_tokens(api: Asker) -> None:
    other = await asker(api.site, "device", "acme")
    assert (await other.post(API, message("attic")))[0] == 200
    assert (await other.post(API, message("attic", topic="org_acme/devices/attic/telemetry")))[0] == 200
    assert {one.organization_id for one in await api.site.log.read(0, limit=5)} == {"acme"}
    await api.site.gateway._running.access.write_down()
    found = {(one.organization_id, one.device_id): one.status for one in await api.site.command(list_devices)}
    assert found["acme", "attic"] == "discovered"


async def test_p8_a_foreign_topic_is_refused_and_the_others_are_taken(api: Asker) -> None:
    foreign = message(topic="org_acme/devices/kitchen/telemetry")
    assert (await api.post(API, foreign))[0] == 403
    status, answer = await api.post(API, [foreign, message(), message(topic="a/#")])
    assert (status, answer["accepted"]) == (207, 1)
    assert [one["status"] for one in answer["results"]] == ["refused", "accepted", "refused"]
    assert answer["results"][0]["error"]["code"] == "foreign_topic"
    assert api.site.log.last_row == 1


async def test_p4_what_cannot_be_used_is_quarantined_and_never_sent_again(api: Asker) -> None:
    status, answer = await api.post(API, message(payload="no reading"))
    assert (status, answer["results"][0]["reading"]) == (200, "quarantined")
    assert [one.code for one in await api.site.quarantined()] == ["invalid_json"]


async def test_p4_one_that_is_no_message_keeps_no_other_from_the_disk(api: Asker) -> None:
    status, answer = await api.post(API, [message(), 5, message(qos=3), EMQX_5])
    assert (status, answer["accepted"]) == (207, 2)
    assert [one["status"] for one in answer["results"]] == ["accepted", "refused", "refused", "accepted"]
    assert answer["results"][1]["error"]["code"] == "invalid_hook"
    assert (await api.site.log.buffer()).readings == 2


async def test_p4_what_is_no_message_or_not_in_base64_is_quarantined_as_it_came(api: Asker) -> None:
    other = await asker(api.site, "device", "acme")
    not_base64 = message(payload="?", encoding="base64")
    status, answer = await other.post(API, [5, message(), not_base64, {"topic": "a"}])
    assert (status, answer["accepted"]) == (207, 1)
    assert [one.get("reading") for one in answer["results"]] == ["quarantined", "stored", "quarantined", "quarantined"]
    kept = await api.site.quarantined()
    assert [json.loads(one.payload) for one in kept] == [5, not_base64, {"topic": "a"}]
    assert {(one.organization_id, one.source, one.code) for one in kept} == {("acme", "mqtt-listener", "invalid_hook")}
    assert [one.reason for one in kept] == [
        one["error"]["message"] for one in answer["results"] if one["status"] == "refused"
    ]


@pytest.mark.parametrize("body", ["{", " [] ", '{"topic":  1}', '{"messages": [' + "1, " * 1_000 + "1]}"])
async def test_p4_a_body_without_a_message_is_quarantined_as_it_came(api: Asker, body: str) -> None:
    status, answer = await (await asker(api.site, "device", "acme")).ask("POST", API, {}, body)
    (kept,) = await api.site.quarantined()
    assert (status, kept.payload, kept.code) == (400, body.encode(), answer["error"]["code"])
    assert (kept.organization_id, kept.source) == ("acme", "mqtt-listener")


async def test_p1_what_cannot_be_quarantined_either_is_503(api: Asker, disk: FailingDisk) -> None:
    disk.failing = True
    ignored = json.dumps(EMQX_4 | {"action": "message_delivered"})
    for body in ("{", "[5]", "5", f"[{ignored}, 5]"):
        assert (await api.ask("POST", API, {}, body))[0] == 503
    disk.failing = False
    assert await api.site.quarantined() == []


async def test_other_events_are_taken_for_what_they_are(api: Asker) -> None:
    status, answer = await api.post(API, EMQX_4 | {"action": "message_delivered"})
    assert (status, answer) == (200, {"accepted": 1, "results": [{"status": "ignored"}]})
    assert api.site.log.last_row == 0


async def test_p2_a_message_that_is_handed_in_again_counts_once(api: Asker) -> None:
    for _ in range(2):
        assert (await api.post(API, message(payload=json.loads(reading(boot_id="b", seq=1)))))[0] == 200
    answers = await asyncio.gather(*(api.post(API, EMQX_5) for _ in range(5)))
    assert [status for status, _ in answers] == [200] * 5
    assert sum("repeated" in answer["results"][0] for _, answer in answers) == 4
    other = await asker(api.site, "device", "acme")
    _, answer = await other.post(API, EMQX_5)
    assert "repeated" not in answer["results"][0], "an id is one organisation's"
    assert (await api.site.log.buffer()).readings == 3


async def test_an_id_that_comes_again_with_something_else_is_another_message(api: Asker) -> None:
    """Some hooks give ids that count for each client, or begin anew."""
    for seq in (1, 2):
        _, answer = await api.post(API, message(id="7", payload=json.loads(reading(boot_id="b", seq=seq))))
        assert "repeated" not in answer["results"][0]
    assert (await api.site.log.buffer()).readings == 2


async def test_p1_what_is_not_on_disk_is_503_and_comes_again(api: Asker, disk: FailingDisk) -> None:
    disk.failing = True
    for before in ([EMQX_5], [EMQX_5, EMQX_4 | {"action": "message_delivered"}]):
        status, answer = await api.post(API, [*before, message()])
        assert (status, answer["error"]["code"]) == (503, "store_failed"), "also where one is no message"
        assert "results" not in answer
    disk.failing = False
    status, answer = await api.post(API, [EMQX_5, message()])
    assert (status, answer["accepted"]) == (200, 2)
    assert "repeated" not in answer["results"][0]
    assert (await api.site.log.buffer()).readings == 2


async def test_a_signed_body_is_of_the_gateways_organisation(api: Asker) -> None:
    body = json.dumps(message()).encode()
    assert (await signed(api, body))[0] == 200
    (stored,) = await api.site.log.read(0, limit=5)
    assert stored.organization_id == "default"


async def test_a_wrong_signature_or_token_is_401_and_waits(api: Asker) -> None:
    body = json.dumps(message()).encode()
    assert (await signed(api, body, key="another"))[0] == 401
    assert (await signed(api, body, header="sha256=\u00ff"))[0] == 401
    assert (await Asker(api.site, "wrong").post(API, message()))[0] == 401
    delay = api.site.gateway._running.door.login_delay
    assert delay._failures["address", "127.0.0.1"][0] == 3
    assert api.site.log.last_row == 0


async def test_without_a_secret_nobody_can_sign(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        api = Asker(site, "")
        assert (await signed(api, b"{}", key=""))[0] == 401


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 200), ("device", 200), ("member", 403)])
async def test_who_may_hand_in(api: Asker, role: Role, status: int) -> None:
    somebody = await asker(api.site, role, "acme")
    assert (await somebody.post(API, message()))[0] == status


async def test_a_hook_has_a_limit_of_its_own(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"http": {"rate_limit_per_minute": 1, "rate_limit_burst": 1}}
    async with running_api(tmp_path, role="device", ingest={"hook_rate_limit_per_minute": 6_000}, **tables) as api:
        statuses = [(await api.post(API, message()))[0] for _ in range(201)]
        assert statuses == [200] * 200 + [429]


@pytest.mark.parametrize("body", ["{", "5", "[]", '{"topic": 1}'])
async def test_what_is_no_hook_is_400(api: Asker, body: str) -> None:
    status, answer = await api.ask("POST", API, {}, body)
    assert status == 400
    assert answer["error"]["hint"]
    assert (await api.ask("POST", API, {"encoding": "rot13"}, "{}"))[0] == 400


def test_a_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="at least 24 characters"):
        Settings.model_validate({"ingest": {"hook_secret": "short"}})
    assert SECRET not in repr(Settings.model_validate({"ingest": {"hook_secret": SECRET}}))
