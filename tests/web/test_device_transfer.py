"""A device moves to another organisation: with all that is it, and with nothing of what it was to the one before."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device, list_devices
from gateway.operations.organizations import add_organization
from gateway.storage.credentials import NewPassword
from gateway.storage.state import DeviceCredential
from tests.broker.raw import PINGREQ, PINGRESP, RawClient, puback, publish, subscribe
from tests.site import Site, reading, running_site
from tests.web.api import Asker, asker, running_api

API = "/api/v1/devices/kitchen"
SUBACK = 0x90


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    """Somebody of the site, on which there is the organisation acme."""
    async with running_api(tmp_path) as api:
        await api.site.command(add_organization, organization_id="acme")
        yield await asker(api.site, "admin", None)


async def transfer(api: Asker, to: str = "acme", **more: str) -> tuple[int, Any]:
    return await api.post(f"{API}/transfer", {"target_organization_id": to, **more})


async def send(site: Site, password: str) -> int:
    headers = {"x-api-key": password, "Content-Type": "application/json"}
    async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(), headers=headers) as response:
        return response.status


async def seen_by(api: Asker, organization_id: str, path: str, name: str) -> list[Any]:
    _, page = await api.get(f"/api/v1/{path}", organization_id=organization_id)
    return page[name]  # type: ignore[no-any-return]


async def test_it_is_in_the_other_organisation_and_in_no_other(api: Asker) -> None:
    body = {"name": "K", "serial_number": "7", "hardware_ids": ["AA"], "metadata": {"floor": 1}}
    await api.ask("PATCH", API, {}, json.dumps(body))
    status, moved = await transfer(api)
    assert (status, moved["organization_id"], moved["status"]) == (200, "acme", "active")
    assert {name: moved[name] for name in body} == body
    assert await seen_by(api, "default", "devices", "devices") == []
    assert [one["id"] for one in await seen_by(api, "acme", "devices", "devices")] == ["kitchen"]
    old, new = await asker(api.site, "owner"), await asker(api.site, "member", "acme")
    assert (await old.get(API))[0] == 404
    assert (await new.get(API))[0] == 200


async def test_p8_readings_stay_where_they_were_measured(api: Asker) -> None:
    await send(api.site, api.site.kitchen.password)
    _, moved = await transfer(api)
    assert await send(api.site, moved["credential"]["password"]) == 202
    for name in ("default", "acme"):
        (one,) = await seen_by(api, name, "readings", "readings")
        assert (one["organization_id"], one["device_id"]) == (name, "kitchen")


async def test_p8_whoever_knew_its_password_has_no_access(api: Asker) -> None:
    _, rotated = await api.post(f"{API}/credentials", {"overlap_h": 24})
    async with RawClient.login(api.site) as client:
        _, moved = await transfer(api)
        assert await client.rest() == b""
    credential = moved["credential"]
    assert (credential["username"], credential["topics"][1]) == ("acme/kitchen", "org_acme/devices/kitchen/telemetry")
    passwords = (api.site.kitchen.password, rotated["password"], credential["password"])
    assert [await send(api.site, one) for one in passwords] == [401, 401, 202]
    new = DeviceCredential("acme", "kitchen", credential["username"], credential["password"])
    async with RawClient.login(api.site, new) as client:
        client.send(publish("org_acme/devices/kitchen/telemetry", reading(), qos=1))
        await client.expect(puback(1))
        client.send(publish("org_default/devices/kitchen/telemetry", reading(), qos=1))
        assert await client.rest() == b""


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_retained_is_gone_and_does_not_follow(tmp_path: Path, restarted: bool) -> None:
    async with running_api(tmp_path) as running:
        site, of_site = running.site, await asker(running.site, "owner", None)
        await site.command(add_organization, organization_id="acme")
        hall = await site.command(add_device, organization_id="default", device_id="hall", metadata={})
        owner = await asker(site, "owner")
        topics = ("devices/kitchen/config", "org_default/devices/kitchen/status", "devices/hall/config")
        messages = [{"topic": topic, "payload": {"v": 1}, "qos": 1, "retain": True} for topic in topics]
        body = {"operation": "publish", "messages": messages}
        assert (await owner.post("/api/v1/mqtt-broker", body))[0] == 200
        hubs = [await site.command(add_credential, name=name, organization_id=name) for name in ("default", "acme")]
        status, moved = await transfer(of_site)
        assert status == 200
        new = DeviceCredential("acme", "kitchen", "acme/kitchen", moved["credential"]["password"])
        if not restarted:
            assert await retained(site, *hubs, new) == [b"devices/hall/config"]
    if restarted:
        async with running_site(tmp_path, kitchen=hall) as site:
            assert await retained(site, *hubs, new) == [b"devices/hall/config"]


async def retained(site: Site, *who: DeviceCredential | NewPassword) -> list[bytes]:
    """Return the topics of the retained messages that they find."""
    found = []
    for one in who:
        async with RawClient.login(site, one) as client:
            filters = ["devices/#", f"org_{one.organization_id}/devices/#"]
            if isinstance(one, DeviceCredential):
                filters = ["devices/kitchen/#", f"org_{one.organization_id}/devices/kitchen/#"]
            for topic_filter in filters:
                client.send(subscribe(topic_filter))
                assert (await client.packet())[0] == SUBACK
                client.send(PINGREQ)
                while (packet := await client.packet()) != PINGRESP:
                    found.append(packet[4 : 4 + int.from_bytes(packet[2:4], "big")])
    return found


OF_ITS_OWN = {"brokerUrl": "127.0.0.1", "port": 1, "topics": "plant/+", "deviceId": "kitchen", "password": "secret"}


async def add_broker(api: Asker, name: str, settings: dict[str, Any], organization_id: str = "default") -> str:
    body = {"integration_type": "mqtt_external", "name": name, "organization_id": organization_id}
    _, made = await api.post("/api/v1/integrations", {**body, "settings": {"username": "us", **settings}})
    return str(made["id"])


async def test_its_connection_to_a_broker_moves_along_with_its_name_and_secret(api: Asker) -> None:
    mine = await add_broker(api, "hub", OF_ITS_OWN)
    anothers = await add_broker(api, "another's", OF_ITS_OWN | {"deviceId": "hall"})
    nobodys = await add_broker(api, "nobody's", {name: OF_ITS_OWN[name] for name in ("brokerUrl", "port", "topics")})
    assert (await transfer(api))[0] == 200
    moved = await seen_by(api, "acme", "integrations", "integrations")
    assert [(one["id"], one["name"]) for one in moved] == [(mine, "hub")]
    assert moved[0]["settings"]["deviceId"] == "kitchen"
    left = await seen_by(api, "default", "integrations", "integrations")
    assert {one["id"] for one in left} == {anothers, nobodys}
    running = {one.id: one for one in api.site.gateway._running.integrations.running()}
    assert running[mine].organization_id == "acme"
    assert running[mine].config.password.get_secret_value() == "secret"  # type: ignore[attr-defined]
    hears = running[mine].integration.hears()  # type: ignore[attr-defined]
    assert (hears.device_id, hears.speaks_for_others) == ("kitchen", False)  # nobody else speaks by it
    assert moved[0]["settings"]["speaksForOthers"] is False
    assert running[anothers].integration.hears().speaks_for_others  # type: ignore[attr-defined]
    change = {"id": mine, "settings": {"speaksForOthers": True}}
    status, _ = await api.ask("PATCH", "/api/v1/integrations", {"organization_id": "acme"}, json.dumps(change))
    (again,) = [one for one in api.site.gateway._running.integrations.running() if one.id == mine]
    assert status == 200
    assert again.integration.hears().speaks_for_others  # type: ignore[attr-defined]
    seen = [(await seen_by(api, name, "activity-log", "activity")) for name in ("default", "acme")]
    assert [one["subject"] for page in seen for one in page if one["action"] == "integration.transfer"] == [mine, mine]
    assert "default" not in str([one for one in seen[1] if one["action"] == "integration.transfer"])


async def test_a_name_that_is_taken_there_moves_neither(api: Asker) -> None:
    await add_broker(api, "hub", OF_ITS_OWN)
    await add_broker(api, "hub", OF_ITS_OWN | {"deviceId": "hall"}, "acme")
    assert (await transfer(api))[0] == 409
    assert [one["id"] for one in await seen_by(api, "default", "devices", "devices")] == ["kitchen"]
    assert len(await seen_by(api, "default", "integrations", "integrations")) == 1


async def test_each_organisation_hears_of_its_own_side_only(api: Asker) -> None:
    await transfer(api)
    logs = {name: await seen_by(api, name, "activity-log", "activity") for name in ("default", "acme")}
    left, came = logs["default"][0], logs["acme"][0]
    assert (left["action"], left["subject"], left["after"]) == ("device.transfer", "kitchen", None)
    assert (came["action"], came["subject"], came["before"]) == ("device.transfer", "kitchen", None)
    assert "acme" not in str(logs["default"])
    assert "default" not in str(came)
    _, page = await api.get("/api/v1/activity-log")
    of_site = next(one for one in page["activity"] if one["organization_id"] is None)
    assert (of_site["before"], of_site["after"]) == ({"organization_id": "default"}, {"organization_id": "acme"})


async def test_who_has_none_gets_no_credential_and_who_is_in_the_way_stays(api: Asker) -> None:
    assert (await transfer(api, "nowhere"))[0] == 404
    assert (await transfer(api, "default"))[0] == 400
    assert (await transfer(api, "acme", organization_id="nowhere"))[0] == 404
    other = await api.site.command(add_device, organization_id="acme", device_id="kitchen", metadata={})
    assert (await transfer(api))[0] == 409
    assert await send(api.site, other.password) == 202
    await api.ask("DELETE", API, {"organization_id": "acme"})
    await api.ask("DELETE", API, {})
    status, moved = await transfer(api)
    assert (status, moved["status"], moved["credential"]) == (200, "revoked", None)
    await api.ask("PATCH", API, {"organization_id": "acme"}, '{"serial_number": "7"}')
    await api.site.command(add_device, organization_id="default", device_id="hall", metadata={}, serial_number="7")
    assert (await transfer(api, "default", organization_id="acme"))[0] == 409


async def test_it_comes_back_and_a_hub_may_find_it_again(api: Asker) -> None:
    _, there = await transfer(api)
    hub = await asker(api.site, "device")
    body = {"topic": "devices/kitchen/telemetry", "payload": json.loads(reading())}
    assert (await hub.post("/api/v1/mqtt-listener", body))[0] == 200
    found = [(one.organization_id, one.status) for one in await api.site.command(list_devices)]
    assert found == [("acme", "active"), ("default", "discovered")]
    status, back = await transfer(api, "default", organization_id="acme")
    assert (status, back["organization_id"], back["status"]) == (200, "default", "active")
    assert [await send(api.site, one["credential"]["password"]) for one in (there, back)] == [401, 202]
