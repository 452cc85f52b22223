"""golioth-webhook: what pipelines of Golioth hand in, by an integration's secret; answered when on disk."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.operations.devices import add_device, list_devices
from gateway.operations.integrations import IntegrationFields, add_integration, change_integration
from gateway.web import golioth_webhook
from tests.parsers.test_golioth import DAY, PIR, WHO
from tests.site import FailingDisk, Site, running_site

API = "/api/v1/golioth-webhook"
SECRET = "planted: what the pipeline shows"
OTHER = "planted: what another one shows"
GATEWAY = "64f0c0ffee0000000000aaaa"
FILE = {
    "type": "golioth",
    "name": "golioth",
    "webhook_secret": SECRET,
    "project_id": "our-project",
    "webhook_gateways": [GATEWAY],
}
STORED = {"status": "accepted", "results": [{"reading": "stored"}]}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, integrations=[FILE]) as site:
        yield site


async def handed_in(
    site: Site, body: Any, secret: str | None = SECRET, path: str = API, **headers: str
) -> tuple[int, Any]:
    said = {
        "Ce-Source": WHO,
        "Ce-Subject": "our-project",
        "Ce-Type": "io.golioth.data.v1/.s/env",
        "Content-Type": "application/json",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    if secret is not None:
        said["x-api-key"] = secret
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = {name: value for name, value in said.items() if value}
    async with site.http.post(site.url(path), data=data, headers=said) as response:
        return response.status, await response.json()


async def readings(site: Site) -> int:
    return (await site.log.buffer()).readings


@pytest.mark.parametrize("path", [API, "/functions/v1/golioth-webhook"])
async def test_a_devices_data_is_a_reading_on_disk_when_200_comes(site: Site, path: str) -> None:
    assert await handed_in(site, {"temp": 32, "ts": "2026-11-20T11:59:00Z"}, path=path) == (200, STORED)
    (stored,) = await site.log.read(0, limit=5)
    assert (stored.organization_id, stored.device_id) == ("default", WHO)
    assert stored.body["sensors"] == {"env": {"temp": 32}}
    assert stored.body["timestamp"] == "2026-11-20T11:59:00Z"


async def test_a_device_is_known_by_golioths_id_or_discovered_with_it(site: Site) -> None:
    await handed_in(site, {"temp": 32})
    await site.gateway._running.access.write_down()
    (found,) = [one for one in await site.command(list_devices) if one.device_id == WHO]
    assert (found.status, found.hardware_ids) == ("discovered", (WHO,))
    assert [one.device_id for one in await site.log.read(0, limit=5)] == [WHO]


@pytest.mark.parametrize(
    "body",
    [
        {"device_id": "kitchen", "sensors": PIR},
        {"device_id": "new", "sensors": PIR},
        {"data": {"temp": 32}, "device_id": "kitchen", "project_id": "our-project"},
        {"data": {"device_id": "kitchen", "sensors": PIR}, "device_id": WHO, "project_id": "our-project"},
    ],
)
async def test_a_device_speaks_for_itself_alone_and_a_gateway_for_all(site: Site, body: dict[str, Any]) -> None:
    for source in ("", WHO):
        status, answer = await handed_in(site, body, Ce_Source=source)
        assert (status, [one["reading"] for one in answer["results"]]) == (200, ["quarantined"])
    assert {one.code for one in await site.quarantined()} == {"foreign_device"}
    assert await handed_in(site, body, Ce_Source=GATEWAY) == (200, STORED)


async def test_a_device_may_say_what_it_is_called_here(site: Site) -> None:
    await site.command(add_device, organization_id="default", device_id="hall", metadata={}, hardware_ids=(WHO,))
    await handed_in(site, {"device_id": "hall", "sensors": PIR})
    await handed_in(site, {"temp": 32})
    assert [one.device_id for one in await site.log.read(0, limit=5)] == ["hall", "hall"]


async def test_p4_headers_of_any_bytes_do_no_harm(site: Site) -> None:
    port = int(site.url("").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {API} HTTP/1.1\r\nHost: x\r\nx-api-key: {SECRET}\r\nCe-Subject: our-project\r\nConnection: close\r\n"
    writer.write(head.encode() + b"Ce-Source: \xff\xfe\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n32")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    (kept,) = await site.quarantined()
    assert (kept.code, kept.payload) == ("invalid_device_id", b"32")


async def test_several_at_once_are_a_reading_each(site: Site) -> None:
    status, answer = await handed_in(site, [{"temp": 1}, {"temp": 2}, None])
    assert (status, [one["reading"] for one in answer["results"]]) == (200, ["stored", "stored", "quarantined"])
    assert [one.payload for one in await site.quarantined()] == [b"null"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xa1dtemp\x18\x20", {"Content_Type": "application/cbor"}),
        (b"\x00\x01", {"Content_Type": "application/octet-stream"}),
        (b"warm", {"Content_Type": "text/plain"}),
        ({"sensors": {}}, {}),
        ({"temp": 32}, {"Ce_Source": ""}),
        ({"temp": 32}, {"Ce_Source": "not a name"}),
    ],
)
async def test_p4_what_cannot_be_used_is_quarantined_and_not_asked_for_again(
    site: Site, body: Any, headers: dict[str, str]
) -> None:
    status, answer = await handed_in(site, body, **headers)
    assert status == 200
    (result,) = answer["results"]
    assert (result["reading"], bool(result["hint"])) == ("quarantined", True)
    (kept,) = await site.quarantined()
    assert kept.source.startswith("golioth-webhook")


async def test_p2_what_is_handed_in_again_counts_once_and_what_is_measured_again_counts_twice(site: Site) -> None:
    timed = {"temp": 32, "ts": DAY}
    answers = await asyncio.gather(*(handed_in(site, timed) for _ in range(4)))
    assert sum("repeated" in answer for _, answer in answers) == 3
    site.clock.advance(3_600_000)
    assert "repeated" in (await handed_in(site, timed))[1]
    assert await readings(site) == 1
    for value, repeats in ((True, False), (True, True), (False, False), (True, False)):
        assert ("repeated" in (await handed_in(site, {"motion": value}))[1]) == repeats
    site.clock.advance(11_000)
    assert "repeated" not in (await handed_in(site, {"motion": True}))[1]
    assert "repeated" not in (await handed_in(site, {"motion": True}, Ce_Source="another"))[1]
    assert await readings(site) == 6


async def test_p5_what_is_remembered_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golioth_webhook, "_REMEMBERED_BYTES", 10_000)
    bodies = [{"said": str(number) * 4_000, "ts": DAY} for number in range(3)]
    for body in (*bodies, bodies[2]):
        status, answer = await handed_in(site, body)
    assert (status, "repeated" in answer) == (200, True)
    assert "repeated" not in (await handed_in(site, bodies[0]))[1]


async def test_p1_what_is_not_on_disk_is_503_and_comes_again(site: Site, disk: FailingDisk) -> None:
    disk.failing = True
    status, answer = await handed_in(site, {"temp": 32})
    assert (status, answer["error"]["code"]) == (503, "store_failed")
    disk.failing = False
    assert await handed_in(site, {"temp": 32}) == (200, STORED)
    assert await readings(site) == 1


async def test_what_went_to_golioth_from_here_does_not_come_back(site: Site) -> None:
    mine = {"id": f"{site.settings.gateway.id}:{site.log.uuid}:1", "device_id": "kitchen", "sensors": PIR}
    for body in (mine, [mine, mine]):
        assert await handed_in(site, body) == (200, {"status": "ignored", "results": []})
    assert await readings(site) == 0


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", "\u00ff"])
async def test_p8_nobody_comes_in_without_the_secret_and_a_wrong_one_waits(site: Site, secret: str | None) -> None:
    status, answer = await handed_in(site, {"temp": 32}, secret)
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert SECRET not in json.dumps(answer)
    failures = site.gateway._running.door.login_delay._failures
    assert (("address", "127.0.0.1") in failures) == bool(secret)
    assert await readings(site) == 0


async def test_another_projects_pipeline_is_refused(site: Site) -> None:
    assert (await handed_in(site, {"temp": 32}, Ce_Subject="another"))[0] == 403


async def test_p8_the_secret_says_whose_it_is_and_ends_with_its_integration(site: Site) -> None:
    named: dict[str, Any] = {"organization_id": "acme", "integration_type": "golioth", "name": "cloud"}
    new = await site.command(add_integration, **named, settings={"webhook_secret": OTHER, "host": "127.0.0.1"})
    assert await handed_in(site, {"temp": 32}, OTHER) == (200, STORED)
    (stored,) = await site.log.read(0, limit=5)
    assert stored.organization_id == "acme"
    cursors = {cursor.name for cursor in await site.log.cursors()}
    assert not {new.id, "golioth"} & cursors, "neither takes readings"
    keys: dict[str, Any] = {"psk_id": "a@p", "psk": "a key"}
    await site.command(change_integration, integration_id=new.id, settings=keys)
    assert new.id in {cursor.name for cursor in await site.log.cursors()}
    await site.command(change_integration, integration_id=new.id, settings={"psk_id": None, "psk": None})
    assert new.id not in {cursor.name for cursor in await site.log.cursors()}
    assert (await handed_in(site, {"temp": 31}, OTHER))[0] == 200
    await site.command(change_integration, integration_id=new.id, fields=IntegrationFields(status="inactive"))
    assert (await handed_in(site, {"temp": 33}, OTHER))[0] == 401
    assert (await handed_in(site, {"temp": 33}))[0] == 200


async def test_it_has_the_limit_of_hooks(tmp_path: Path) -> None:
    async with running_site(tmp_path, integrations=[FILE], ingest={"hook_rate_limit_per_minute": 1}) as site:
        statuses = [(await handed_in(site, {"seq": number}))[0] for number in range(201)]
    assert statuses == [200] * 200 + [429]
