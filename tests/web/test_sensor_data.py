"""POST /api/v1/sensor-data: every answer of the documentation, given when everything is on disk."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.model.roles import Role
from gateway.operations.credentials import add_credential
from gateway.operations.devices import revoke_device, rotate_device
from tests.site import FailingDisk, Site, reading, running_site
from tests.web.api import asker

PATH = "/api/v1/sensor-data"
JSON = {"Content-Type": "application/json"}


async def post(site: Site, body: bytes, headers: dict[str, str] | None = None, path: str = PATH) -> tuple[int, Any]:
    if headers is None:
        headers = {"x-api-key": site.kitchen.password}
    async with site.http.post(site.url(path), data=body, headers=JSON | headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", [PATH, "/functions/v1/sensor-data"])
async def test_one_reading_is_on_disk_when_202_comes(site: Site, path: str) -> None:
    assert await post(site, reading(), path=path) == (202, {"accepted": 1, "results": [{"stored": True}]})
    assert (await site.log.buffer()).readings == 1


SENML = {"Content-Type": "application/senml+json"}


async def post_pack(site: Site, pack: Any) -> tuple[int, Any]:
    return await post(site, json.dumps(pack).encode(), SENML | {"x-api-key": site.kitchen.password})


async def test_a_senml_pack_is_answered_for_each_reading_when_all_is_on_disk(site: Site) -> None:
    pack = [{"n": "t", "v": 1, "t": -1}, {"n": "t", "v": 2}]
    assert await post_pack(site, pack) == (202, {"accepted": 2, "results": [{"stored": True}, {"stored": True}]})
    status, body = await post_pack(site, [{"n": "t", "v": 1}, {"bn": "hall:", "n": "t", "v": 2}])
    assert (status, body["accepted"], body["results"][1]["code"]) == (207, 1, "foreign_device")
    assert [one.device_id for one in await site.stored(3)] == ["kitchen"] * 3


@pytest.mark.parametrize(
    ("pack", "code"), [({}, "invalid_senml"), ([{"n": "x", "v": 1, "x_": 1}], "invalid_senml"), ([], "invalid_senml")]
)
async def test_a_pack_that_is_none_is_400_and_kept_all_the_same(site: Site, pack: Any, code: str) -> None:
    status, answer = await post_pack(site, pack)
    assert (status, answer["error"]["code"]) == (400, code)
    assert [bad.code for bad in await site.quarantined()] == [code]


async def test_a_list_of_good_ones_is_202_and_a_mixed_one_207_with_results(site: Site) -> None:
    good, bad = json.loads(reading()), json.loads(reading("hall"))
    assert (await post(site, json.dumps({"readings": [good, good]}).encode()))[0] == 202
    status, body = await post(site, json.dumps({"readings": [good, bad, 5]}).encode())
    assert status == 207
    assert body["accepted"] == 1
    assert [result.get("code") for result in body["results"]] == [None, "foreign_device", "not_an_object"]
    assert [bad.code for bad in await site.quarantined()] == ["foreign_device", "not_an_object"]


@pytest.mark.parametrize(
    ("body", "code", "kept"),
    [
        (b"{", "invalid_json", 1),
        (b"[]", "not_an_object", 1),
        (reading("hall"), "foreign_device", 1),
        (b'{"readings":[1,2]}', "no_reading_usable", 2),
        (b'{"readings":[]}', "no_readings", 0),
        (reading(timestamp=-1e308).replace(b"true", b"1"), "invalid_sensors", 1),
    ],
)
async def test_nothing_usable_is_400_and_kept_all_the_same(site: Site, body: bytes, code: str, kept: int) -> None:
    status, answer = await post(site, body)
    assert (status, answer["error"]["code"]) == (400, code)
    assert len(await site.quarantined()) == kept


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}],
)
async def test_without_the_right_key_it_is_401(site: Site, headers: dict[str, str]) -> None:
    status, body = await post(site, reading(), headers)
    assert (status, body["error"]["code"]) == (401, "unauthorized")


async def test_a_key_of_arbitrary_bytes_is_just_a_wrong_key(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway._running.http.port)
    head = b"POST /api/v1/sensor-data HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    writer.write(head + b"Content-Length: 0\r\nx-api-key: \xff\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_bearer_token_works_and_a_revoked_one_does_not(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.kitchen.password}"}
    assert (await post(site, reading(), headers))[0] == 202
    await site.command(revoke_device, organization_id="default", device_id="kitchen")
    assert (await post(site, reading(), headers))[0] == 401


async def test_another_content_type_is_415(site: Site) -> None:
    assert (await post(site, reading(), {"x-api-key": site.kitchen.password, "Content-Type": "text/plain"}))[0] == 415


async def test_a_body_that_is_too_large_is_413(tmp_path: Path) -> None:
    async with running_site(tmp_path, http={"max_body_bytes": 1000}) as site:
        status, body = await post(site, reading(padding="x" * 1000))
        assert (status, body["error"]["code"]) == (413, "too_large")


async def test_too_many_requests_wait_as_long_as_they_are_told(tmp_path: Path) -> None:
    async with running_site(tmp_path, http={"rate_limit_per_minute": 60, "rate_limit_burst": 2}) as site:
        assert [(await post(site, reading()))[0] for _ in range(3)] == [202, 202, 429]
        async with site.http.post(site.url(PATH), data=b"", headers={"x-api-key": site.kitchen.password}) as response:
            assert response.status == 429
            wait_s = int(response.headers["Retry-After"])
        site.clock.advance(wait_s * 1000)
        assert (await post(site, reading()))[0] == 202


async def test_a_client_may_send_20_requests_at_once_and_a_batch_counts_once(site: Site) -> None:
    batch = json.dumps({"readings": [json.loads(reading())] * 50}).encode()
    assert [(await post(site, batch))[0] for _ in range(21)] == [202] * 20 + [429]
    site.clock.advance(60_000)
    assert [(await post(site, batch))[0] for _ in range(21)] == [202] * 20 + [429]
    site.clock.advance(600)  # of a hundred in a minute
    assert [(await post(site, batch))[0] for _ in range(2)] == [202, 429]


async def test_p1_what_is_not_on_disk_is_503_and_may_come_again(site: Site, disk: FailingDisk) -> None:
    disk.failing = True
    headers = {"x-api-key": site.kitchen.password} | JSON
    async with site.http.post(site.url(PATH), data=reading(), headers=headers) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["error"]["code"] == "store_failed"
    disk.failing = False
    assert (await post(site, reading()))[0] == 202
    assert (await site.log.buffer()).readings == 1


@pytest.mark.parametrize(
    ("path", "status", "code"), [(PATH, 405, "method_not_allowed"), ("/nothing", 404, "not_found")]
)
async def test_the_wrong_method_or_path_is_told_in_the_documented_shape(
    site: Site, path: str, status: int, code: str
) -> None:
    async with site.http.get(site.url(path)) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code


async def test_p9_one_request_of_the_largest_size_stops_nobody_else(site: Site) -> None:
    """The event loop is everybody's: no request may hold it for long, nor be answered with a hundred times its size."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            started = time.thread_time()  # its own: what others do on the machine says nothing of it
            await asyncio.sleep(0.005)
            longest = max(longest, time.thread_time() - started)

    watching = asyncio.create_task(watch())
    body = b'{"readings":[' + b",".join([b"0"] * 50_000) + b"]}"
    _, answer = await post(site, body)
    watching.cancel()
    assert longest < 0.5
    assert len(json.dumps(answer)) < 1_000_000


async def test_a_password_that_is_no_devices_is_403_also_during_an_overlap(site: Site) -> None:
    hub = await site.command(add_credential, name="hub", organization_id="default")
    status, body = await post(site, reading(), {"x-api-key": hub.password})
    assert (status, body["error"]["code"]) == (403, "not_a_device")
    await site.command(rotate_device, organization_id="default", device_id="kitchen", overlap_ms=1_000)
    assert (await post(site, reading()))[0] == 202
    site.clock.advance(1_000)
    assert (await post(site, reading()))[0] == 401


async def test_a_wrong_key_waits_for_its_answer_and_a_missing_one_does_not(site: Site) -> None:
    delay = site.gateway._running.door.login_delay
    assert (await post(site, reading(), {}))[0] == 401
    assert not delay._failures
    assert (await post(site, reading(), {"x-api-key": "wrong"}))[0] == 401
    assert (await post(site, reading(), {"Authorization": "Bearer wrong"}))[0] == 401
    assert delay._failures["address", "127.0.0.1"][0] == 2


# Tokens


async def test_a_token_hands_in_for_any_device_of_its_organisation_and_of_no_other(site: Site) -> None:
    roles: tuple[Role, ...] = ("owner", "admin", "device")
    for organization_id in ("acme", "default"):
        for role in roles:
            who = {"Authorization": f"Bearer {(await asker(site, role, organization_id)).token}"}
            assert (await post(site, reading("kitchen", note=role), who))[0] == 202
    assert {(one.organization_id, one.device_id) for one in await site.stored(6)} == {
        ("acme", "kitchen"),
        ("default", "kitchen"),
    }
    kitchen = site.gateway._running.access.devices.get("default", "kitchen")
    assert kitchen is not None
    assert kitchen.readings == len(roles)


async def test_each_reading_of_a_token_says_whose_it_is(site: Site) -> None:
    who = {"Authorization": f"Bearer {(await asker(site, 'device')).token}"}
    good, other = json.loads(reading()), json.loads(reading("hall"))
    bad: list[Any] = [
        {"sensors": good["sensors"]},
        5,
        {"device_id": "a/b"},
        {"device_id": "kitchen"},
        {"readings": [good]},
    ]
    nested = {"device_id": "kitchen", "readings": [good]}
    status, answer = await post(site, json.dumps({"readings": [good, other, *bad, nested]}).encode(), who)
    assert (status, answer["accepted"]) == (207, 2)
    codes = [one.get("code") for one in answer["results"]]
    assert codes[:5] == [None, None, "invalid_device_id", "invalid_device_id", "invalid_device_id"]
    assert all(codes[2:])
    assert [one.device_id for one in await site.stored(2)] == ["kitchen", "hall"]
    assert (await post(site, b'{"sensors": {}}', who))[0] == 400
    assert (await post(site, b"{", who))[0] == 400
    pack = json.dumps([{"bn": "attic:", "n": "t", "v": 1}]).encode()
    assert (await post(site, pack, SENML | who))[0] == 202
    assert [one.device_id for one in await site.stored(3)][-1] == "attic"


async def test_p4_what_a_token_hands_in_and_cannot_be_used_is_kept_all_the_same(site: Site) -> None:
    who = {"Authorization": f"Bearer {(await asker(site, 'device', 'acme')).token}"}
    nameless = json.loads(reading()) | {"device_id": "a/b"}
    assert (await post(site, b'{"device_id": "x', who))[0] == 400
    assert (await post(site, json.dumps(nameless).encode(), who))[0] == 400
    status, answer = await post(site, json.dumps({"readings": [nameless, 5]}).encode(), who)
    assert (status, answer["error"]["code"]) == (400, "no_reading_usable")
    kept = await site.quarantined()
    assert [one.code for one in kept] == ["invalid_json", *["invalid_device_id"] * 3]
    assert {(one.organization_id, one.device_id, one.source) for one in kept} == {("acme", "", "http")}
    assert [one.payload for one in kept[:1]] + [json.loads(one.payload) for one in kept[1:]] == [
        b'{"device_id": "x',
        nameless,
        nameless,
        5,
    ]


async def test_a_token_that_only_looks_or_is_none_hands_nothing_in(site: Site) -> None:
    who = {"Authorization": f"Bearer {(await asker(site, 'member')).token}"}
    assert (await post(site, reading(), who))[0] == 403
    who = {"x-api-key": (await asker(site, "owner")).token}
    assert (await post(site, reading(), who))[0] == 401
    assert (await site.log.buffer()).readings == 0
