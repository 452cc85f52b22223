"""POST devices/metadata: what is said of a device goes out with its later readings, at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model.roles import Role
from gateway.operations.devices import add_device, list_devices, revoke_device
from tests.site import reading
from tests.web.api import Asker, asker, running_api

API = "/api/v1/devices/metadata"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path, role="admin") as api:
        yield api


async def send(api: Asker, password: str, device_id: str = "kitchen") -> None:
    url = api.site.url("/api/v1/sensor-data")
    headers = {"x-api-key": password, "Content-Type": "application/json"}
    async with api.site.http.post(url, data=reading(device_id), headers=headers) as response:
        assert response.status == 202


async def described(api: Asker) -> list[Any]:
    """Return the metadata of each reading, the oldest first."""
    _, page = await api.get("/api/v1/readings")
    return [one["device_metadata"] for one in reversed(page["readings"])]


@pytest.mark.parametrize("path", [API, "/functions/v1/devices/metadata"])
async def test_it_goes_out_with_later_readings_and_with_no_earlier_one(api: Asker, path: str) -> None:
    await send(api, api.site.kitchen.password)
    status, answer = await api.post(path, {"device_id": "kitchen", "metadata": {"location": "Küche", "floor": 2}})
    assert (status, answer["metadata"], answer["status"]) == (200, {"location": "Küche", "floor": 2}, "active")
    await send(api, api.site.kitchen.password)
    await api.post(path, {"device_id": "kitchen", "metadata": {"floor": None, "zone": {"id": "a", "tags": ["x"]}}})
    await send(api, api.site.kitchen.password)
    assert await described(api) == [
        {},
        {"location": "Küche", "floor": 2},
        {"location": "Küche", "zone": {"id": "a", "tags": ["x"]}},
    ]


async def test_a_device_that_is_told_of_before_it_is_heard_is_registered_without_access(api: Asker) -> None:
    status, answer = await api.post(API, {"device_id": "hall", "metadata": {"location": "hall"}})
    assert (status, answer["status"]) == (200, "registered")
    assert [one.status for one in await api.site.command(list_devices)] == ["registered", "active"]
    new = await api.site.command(add_device, organization_id="default", device_id="hall", metadata={"zone": "b"})
    await send(api, new.password, "hall")
    assert await described(api) == [{"location": "hall", "zone": "b"}]


async def test_a_revoked_device_stays_revoked(api: Asker) -> None:
    await api.site.command(revoke_device, organization_id="default", device_id="kitchen")
    _, answer = await api.post(API, {"device_id": "kitchen", "metadata": {"a": "b"}})
    assert answer["status"] == "revoked"


async def test_p8_only_the_tokens_organisation_and_only_who_may_change(api: Asker) -> None:
    other = await asker(api.site, "owner", "other")
    assert (await other.post(API, {"device_id": "kitchen", "metadata": {"location": "elsewhere"}}))[0] == 200
    await send(api, api.site.kitchen.password)
    assert await described(api) == [{}]
    body = {"device_id": "kitchen", "metadata": {}, "organization_id": "other"}
    assert (await api.post(API, body))[0] == 403
    roles: tuple[Role, ...] = ("member", "device")
    for role in roles:
        assert (await (await asker(api.site, role)).post(API, body))[0] == 403
    assert (await Asker(api.site, "wrong").post(API, body))[0] == 401


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"device_id": "kitchen"}, "invalid_request"),
        ({"metadata": {}}, "invalid_request"),
        ({"device_id": "kitchen", "metadata": [1]}, "invalid_request"),
        ({"device_id": "kitchen", "metadata": {}, "more": 1}, "invalid_request"),
        ({"device_id": "a/b", "metadata": {}}, "invalid_device_id"),
        ({"device_id": "kitchen", "metadata": {"a": "x\n"}}, "invalid_metadata"),
        ({"device_id": "kitchen", "metadata": {"a": {"b": ["\u0007"]}}}, "invalid_metadata"),
        ({"device_id": "kitchen", "metadata": {"a": float("nan")}}, "invalid_metadata"),
        ({"device_id": "kitchen", "metadata": {"a": "x" * 4_100}}, "metadata_too_large"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(api: Asker, body: dict[str, Any], code: str) -> None:
    status, answer = await api.post(API, body)
    assert (status, answer["error"]["code"]) == (400, code)
    (kitchen,) = await api.site.command(list_devices)
    assert kitchen.metadata == {}


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/senml+json", 415),
        ("", 415),
    ],
)
async def test_only_what_says_that_it_is_json_is_read(api: Asker, media_type: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {api.token}"} | ({"Content-Type": media_type} if media_type else {})
    body = b'{"device_id": "kitchen", "metadata": {"location": "hall"}}'
    async with api.site.http.post(
        api.site.url(API), data=body, headers=headers, skip_auto_headers=["Content-Type"]
    ) as response:
        answer = await response.json()
    assert response.status == status
    if status != 200:
        assert answer["error"]["code"] == "unsupported_media_type"
        assert answer["error"]["hint"] == "Content-Type: application/json"


async def test_where_a_body_may_be_left_out_nothing_need_be_said_of_it(api: Asker) -> None:
    status, _ = await api.ask("DELETE", "/api/v1/devices", {"id": "kitchen"})
    assert status == 204
