"""`devices` over HTTP: registered, found, changed, given passwords and revoked, in the documented forms."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.operations.devices import add_device
from tests.broker.raw import RawClient
from tests.site import reading
from tests.web.api import Asker, asker, running_api

API = "/api/v1/devices"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path, role="admin") as api:
        yield api


async def patch(api: Asker, path: str, **body: Any) -> tuple[int, Any]:
    return await api.ask("PATCH", path, {}, json.dumps(body))


async def send(api: Asker, password: str, device_id: str) -> int:
    headers = {"x-api-key": password, "Content-Type": "application/json"}
    url = api.site.url("/api/v1/sensor-data")
    async with api.site.http.post(url, data=reading(device_id), headers=headers) as response:
        return response.status


async def changes(api: Asker) -> list[tuple[str, str, Any, Any]]:
    _, page = await api.get("/api/v1/activity-log")
    return [(one["action"], one["subject"], one["before"], one["after"]) for one in page["activity"]]


async def test_a_device_is_registered_and_may_come_in_at_once(api: Asker) -> None:
    body = {"id": "hall", "name": "Hall", "serial_number": "7", "hardware_ids": ["AA:01"], "metadata": {"floor": 1}}
    status, new = await api.post(API, body)
    assert status == 201
    assert (new["id"], new["device_id"], new["organization_id"], new["status"]) == ("hall", "hall", "default", "active")
    assert (new["name"], new["serial_number"], new["hardware_ids"], new["metadata"]) == (
        "Hall",
        "7",
        ["AA:01"],
        {"floor": 1},
    )
    credential = new["credential"]
    assert credential["username"] == "default/hall"
    assert credential["topics"][0] == "neurobuild/sensors/hall/data"
    assert await send(api, credential["password"], "hall") == 202
    _, shown = await api.get(f"{API}/hall")
    assert (shown["connected"], shown["readings_since_start"], shown["topics"]) == (False, 1, credential["topics"])
    assert shown["last_seen_at"] is not None
    everything = [
        await api.get(path) for path in (API, f"{API}/hall", f"{API}/hall/credentials", "/api/v1/activity-log")
    ]
    assert credential["password"] not in str(everything)
    assert (await api.post(API, body))[0] == 409
    assert (await api.post(API, {"id": "attic", "hardware_ids": ["AA:01"]}))[0] == 409


async def test_pages_of_devices(api: Asker) -> None:
    for name in ("a", "b", "c"):
        await api.site.command(add_device, organization_id="default", device_id=name, metadata={})
        await api.site.command(add_device, organization_id="acme", device_id=name, metadata={})
    seen: list[tuple[str, str]]
    of_site = await asker(api.site, "member", None)
    for who, expected in ((api, 4), (of_site, 7)):
        seen, query = [], {"limit": "3"}
        while True:
            _, page = await who.get(API, **query)
            seen += [(one["organization_id"], one["id"]) for one in page["devices"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == sorted(set(seen))
        assert len(seen) == expected
    await api.ask("DELETE", f"{API}/b", {})
    _, page = await api.get(API, status="revoked")
    assert [one["id"] for one in page["devices"]] == ["b"]
    _, page = await api.get(API, cursor="acme/z")  # of another organisation: it shows nothing of that
    assert {one["organization_id"] for one in page["devices"]} == {"default"}
    for wrong in ({"status": "x"}, {"limit": "0"}, {"more": "1"}):
        assert (await api.get(API, **wrong))[0] == 400


async def test_what_is_named_is_changed_and_null_takes_away(api: Asker) -> None:
    status, changed = await patch(api, f"{API}/kitchen", name="Küche", metadata={"floor": 1, "zone": "a"})
    assert (status, changed["name"], changed["metadata"]) == (200, "Küche", {"floor": 1, "zone": "a"})
    _, changed = await patch(api, API, id="kitchen", serial_number="7", metadata={"zone": None})
    assert (changed["name"], changed["serial_number"], changed["metadata"]) == ("Küche", "7", {"floor": 1})
    _, changed = await patch(api, API, device_id="kitchen", name=None, hardware_ids=["x"], metadata=None)
    assert (changed["name"], changed["hardware_ids"], changed["metadata"]) == ("", ["x"], {"floor": 1})
    assert await changes(api) == [
        ("device.update", "kitchen", {"name": "Küche", "hardware_ids": []}, {"name": "", "hardware_ids": ["x"]}),
        (
            "device.update",
            "kitchen",
            {"serial_number": "", "metadata": {"floor": 1, "zone": "a"}},
            {"serial_number": "7", "metadata": {"floor": 1}},
        ),
        (
            "device.update",
            "kitchen",
            {"name": "", "metadata": {}},
            {"name": "Küche", "metadata": {"floor": 1, "zone": "a"}},
        ),
        *(await changes(api))[3:],
    ]
    await patch(api, f"{API}/kitchen", serial_number="7")  # as it is: no change
    assert len(await changes(api)) == 5


async def test_a_device_goes_by_what_it_is_called_now(api: Asker) -> None:
    await patch(api, f"{API}/kitchen", hardware_ids=["AA:01"])
    hub = await asker(api.site, "device")
    body = {"topic": "devices/kitchen/telemetry", "payload": json.loads(reading("AA:01"))}
    _, answer = await hub.post("/api/v1/mqtt-listener", body)
    assert answer["results"][0]["reading"] in {"stored", "quarantined"}
    access = api.site.gateway._running.access
    assert access.devices._called["default", "hardware_id", "AA:01"].device_id == "kitchen"
    await patch(api, f"{API}/kitchen", hardware_ids=[])
    assert ("default", "hardware_id", "AA:01") not in access.devices._called


@pytest.mark.parametrize("path", [f"{API}/kitchen", "/functions/v1/devices/kitchen"])
async def test_a_revoked_device_loses_its_session_and_may_get_a_new_password(api: Asker, path: str) -> None:
    async with RawClient.login(api.site) as client:
        assert (await api.ask("DELETE", path, {}))[0] == 204
        assert await client.rest() == b""
    assert await send(api, api.site.kitchen.password, "kitchen") == 401
    _, shown = await api.get(path)
    assert shown["status"] == "revoked"
    assert (await api.get(f"{path}/credentials"))[1] == {"credentials": []}
    assert (await api.ask("DELETE", path, {}))[0] == 404
    await patch(api, path, metadata={"floor": 1})
    status, new = await api.post(f"{path}/credentials", {})
    assert status == 201
    assert await send(api, new["password"], "kitchen") == 202
    _, shown = await api.get(path)
    assert (shown["status"], shown["metadata"]) == ("active", {"floor": 1})


async def test_a_rotated_password_overlaps_as_long_as_it_is_asked(api: Asker) -> None:
    first = api.site.kitchen.password
    status, second = await api.post(f"{API}/kitchen/credentials", {"overlap_h": 1})
    assert (status, second["username"]) == (201, "default/kitchen")
    assert [await send(api, one, "kitchen") for one in (first, second["password"])] == [202, 202]
    _, known = await api.get(f"{API}/kitchen/credentials")
    (usage,) = known["credentials"]
    assert (usage["username"], usage["old_password_left_s"]) == ("default/kitchen", 3_600)
    assert not {first, second["password"]} & set(map(str, usage.values()))
    _, third = await api.post(f"{API}/kitchen/credentials", {"overlap_h": 0})
    sent = [await send(api, one, "kitchen") for one in (first, second["password"], third["password"])]
    assert sent == [401, 401, 202]
    assert (await api.ask("DELETE", f"{API}/kitchen/credentials", {}))[0] == 204
    assert await send(api, third["password"], "kitchen") == 401


async def test_a_status_is_had_by_what_it_means(api: Asker) -> None:
    hub = await asker(api.site, "device")
    body = {"topic": "devices/attic/telemetry", "payload": json.loads(reading("attic"))}
    assert (await hub.post("/api/v1/mqtt-listener", body))[0] == 200
    assert (await api.get(f"{API}/attic"))[1]["status"] == "discovered"
    status, answer = await patch(api, f"{API}/attic", status="active")
    assert (status, answer["error"]["code"]) == (409, "conflict")
    assert (await patch(api, f"{API}/attic", name="Attic"))[1]["status"] == "registered"
    assert (await patch(api, f"{API}/kitchen", status="registered"))[0] == 409
    assert (await patch(api, f"{API}/kitchen", status="active"))[0] == 200
    assert (await patch(api, f"{API}/kitchen", status="revoked", name="x"))[1]["status"] == "revoked"
    assert await send(api, api.site.kitchen.password, "kitchen") == 401
    assert (await patch(api, f"{API}/kitchen", status="active"))[0] == 409
    assert (await patch(api, f"{API}/kitchen", status="x"))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", API, "", 400),
        ("POST", API, "{}", 400),
        ("POST", API, '{"id": "a/b"}', 400),
        ("POST", API, '{"id": "a", "device_id": "b"}', 400),
        ("POST", API, '{"id": "a", "more": 1}', 400),
        ("POST", API, '{"id": "a", "hardware_ids": [""]}', 400),
        ("POST", API, '{"id": "a", "name": "x\\u0007"}', 400),
        ("POST", API, '{"id": "a", "metadata": {"x": NaN}}', 400),
        ("PATCH", API, '{"name": "x"}', 400),
        ("PATCH", f"{API}/kitchen", '{"id": "hall", "name": "x"}', 400),
        ("PATCH", f"{API}/nobody", '{"name": "x"}', 404),
        ("PATCH", f"{API}/kitchen", '{"metadata": {"a": "' + "x" * 4_100 + '"}}', 400),
        ("DELETE", API, "", 400),
        ("DELETE", f"{API}/nobody", "", 404),
        ("GET", f"{API}/nobody", "", 404),
        ("GET", f"{API}/nobody/credentials", "", 404),
        ("POST", f"{API}/nobody/credentials", "", 404),
        ("POST", f"{API}/kitchen/credentials", '{"overlap_h": -1}', 400),
    ],
)
async def test_bad_input_is_told_and_changes_nothing(
    api: Asker, method: str, path: str, body: str, expected: int
) -> None:
    before = await api.get(API)
    status, answer = await api.ask(method, path, {}, body or None)
    assert status == expected
    assert answer["error"]["hint"]
    assert await api.get(API) == before


async def test_both_prefixes_lead_to_the_same(api: Asker) -> None:
    assert await api.get("/functions/v1/devices", organization_id="default") == await api.get(API)
