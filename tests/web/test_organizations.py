"""`organizations` and `tokens` over HTTP: what becomes of them, and that nobody reaches above themselves."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.model.roles import Role
from tests.site import reading
from tests.web.api import Asker, asker, running_api

ORGANIZATIONS, TOKENS = "/api/v1/organizations", "/api/v1/tokens"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    """Somebody of the site."""
    async with running_api(tmp_path) as api:
        yield await asker(api.site, "owner", None)


async def add(api: Asker, organization_id: str) -> None:
    assert (await api.post(ORGANIZATIONS, {"id": organization_id}))[0] == 201


async def make(api: Asker, **body: Any) -> tuple[int, Any]:
    return await api.post(TOKENS, body)


async def actions(api: Asker, **query: str) -> list[tuple[str | None, str, str]]:
    """Return the newest changes first."""
    _, page = await api.get("/api/v1/activity-log", **query)
    return [(one["organization_id"], one["actor"], one["action"]) for one in page["activity"]]


async def test_organisations_are_added_renamed_and_removed(api: Asker) -> None:
    status, new = await api.post(ORGANIZATIONS, {"id": "acme", "name": "Acme Ltd."})
    assert (status, new["id"], new["name"], new["devices"]) == (201, "acme", "Acme Ltd.", 0)
    assert (await api.post(ORGANIZATIONS, {"id": "acme"}))[0] == 409
    assert (await api.post(ORGANIZATIONS, {"id": "a/b"}))[0] == 400
    assert (await api.ask("PATCH", ORGANIZATIONS, {}, '{"id": "acme", "name": "Acme"}'))[1]["name"] == "Acme"
    _, listed = await api.get(ORGANIZATIONS)
    assert [(one["id"], one["devices"]) for one in listed["organizations"]] == [("acme", 0), ("default", 1)]
    owner = await asker(api.site, "owner", "acme")
    assert (await api.ask("DELETE", f"{ORGANIZATIONS}/default", {}))[0] == 409
    assert (await api.ask("DELETE", ORGANIZATIONS, {"id": "acme"}))[0] == 204
    assert (await owner.get("/api/v1/devices"))[0] == 401
    assert (await api.get(f"{ORGANIZATIONS}/acme"))[0] == 404
    assert (await actions(api))[:2] == [
        (None, "token:site-owner", "organization.remove"),
        (None, "cli", "token.create"),  # it was the organisation's, which is gone
    ]


async def test_one_of_which_something_is_stored_stays(api: Asker) -> None:
    """Else another one of that id would see it."""
    await add(api, "acme")
    hands_in = await asker(api.site, "device", "acme")
    body = {"topic": "devices/x/telemetry", "payload": json.loads(reading("x"))}
    assert (await hands_in.post("/api/v1/mqtt-listener", body))[0] == 200
    assert (await api.ask("DELETE", "/api/v1/devices/x", {"organization_id": "acme"}))[0] == 204
    status, answer = await api.ask("DELETE", f"{ORGANIZATIONS}/acme", {})
    assert (status, answer["error"]["code"]) == (409, "conflict")
    assert "readings" in answer["error"]["message"]
    assert "neurogate buffer erase --organization acme" in answer["error"]["hint"]


async def test_a_token_is_shown_once_and_opens_until_it_is_revoked(api: Asker) -> None:
    await add(api, "acme")
    status, new = await make(api, name="panel", role="admin", organization_id="acme")
    assert (status, new["organization_id"], new["role"]) == (201, "acme", "admin")
    panel = Asker(api.site, new["token"])
    _, listed = await panel.get(TOKENS)
    assert [(one["name"], one["id"]) for one in listed["tokens"]] == [("panel", new["id"])]
    assert new["token"] not in str(listed)
    assert (await make(panel, name="panel"))[0] == 409
    _, other = await make(api, name="panel")  # a name is one of its organisation
    assert other["organization_id"] == "default"
    assert (await api.ask("DELETE", f"{TOKENS}/{new['id']}", {}))[0] == 204
    assert (await panel.get(TOKENS))[0] == 401
    assert (await make(api, name="x", organization_id="nowhere"))[0] == 404
    assert (await make(api, name="x", role="king"))[0] == 400


async def test_p8_nobody_reaches_above_themselves(api: Asker) -> None:
    await add(api, "acme")
    site_admin = await asker(api.site, "admin", None)
    owner, admin = await asker(api.site, "owner", "acme"), await asker(api.site, "admin", "acme")
    grants: list[tuple[Asker, dict[str, Any], int]] = [
        (admin, {"role": "owner"}, 403),
        (admin, {"role": "admin"}, 201),
        (admin, {"role": "admin", "site": True}, 403),
        (admin, {"role": "member", "organization_id": "default"}, 403),
        (owner, {"role": "owner"}, 201),
        (owner, {"role": "owner", "site": True}, 403),
        (site_admin, {"role": "owner", "organization_id": "acme"}, 201),
        (site_admin, {"role": "owner", "site": True}, 403),
        (site_admin, {"role": "admin", "site": True}, 201),
        (api, {"role": "owner", "site": True}, 201),
        (api, {"role": "device", "site": True}, 400),
    ]
    for number, (who, body, expected) in enumerate(grants):
        assert (await make(who, name=f"t{number}", **body))[0] == expected, body
    _, known = await api.get(TOKENS)
    ids = {(one["organization_id"], one["name"]): one["id"] for one in known["tokens"]}
    revocations = [
        (admin, ids["acme", "acme-owner"], 403),
        (admin, ids["acme", "t1"], 204),
        (owner, ids["acme", "t4"], 204),
        (owner, ids[None, "t8"], 404),
        (owner, ids["default", "default-member"], 404),
        (site_admin, ids[None, "site-owner"], 403),
        (site_admin, ids["acme", "acme-owner"], 204),
    ]
    for who, token_id, expected in revocations:
        assert (await who.ask("DELETE", TOKENS, {"id": token_id}))[0] == expected, token_id


async def test_a_token_of_the_site_lists_everybodys_or_one_organisations(api: Asker) -> None:
    await add(api, "acme")
    await asker(api.site, "owner", "acme")
    roles: list[tuple[str, Role]] = [("default", "member"), ("acme", "owner")]
    _, all_of_them = await api.get(TOKENS)
    assert {(one["organization_id"], one["role"]) for one in all_of_them["tokens"]} == {*roles, (None, "owner")}
    for one in roles:
        _, listed = await api.get(TOKENS, organization_id=one[0])
        assert [(own["organization_id"], own["role"]) for own in listed["tokens"]] == [one]


async def test_the_activity_log_is_read_page_by_page_and_scoped(api: Asker) -> None:
    await add(api, "acme")
    owner = await asker(api.site, "owner", "acme")
    for number in range(3):
        await make(owner, name=f"t{number}")
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        _, page = await owner.get("/api/v1/activity-log", **query)
        seen += [one["after"]["name"] for one in page["activity"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["t2", "t1", "t0", "acme-owner"]
    assert await actions(owner) == [("acme", "token:acme-owner", "token.create")] * 3 + [
        ("acme", "cli", "token.create")
    ]
    assert await actions(api, organization_id="acme") == await actions(owner)
    everybodys = await actions(api)
    assert (None, "token:site-owner", "organization.add") in everybodys
    assert ("default", "cli", "device.add") in everybodys
    for wrong in ({"cursor": "x"}, {"limit": "0"}, {"more": "1"}):
        assert (await owner.get("/api/v1/activity-log", **wrong))[0] == 400


async def test_it_names_whoever_came_by_a_jwt(tmp_path: Path) -> None:
    secret = "a secret of more than thirty-two bytes"
    async with running_api(tmp_path, http={"jwt_secret": secret}) as api:
        ends_s = api.site.clock.now // 1000 + 60
        claims = {"sub": "alice@example", "role": "owner", "organization_id": "default", "exp": ends_s}
        alice = Asker(api.site, jwt.encode(claims, secret, algorithm="HS256"))
        assert (await make(alice, name="x"))[0] == 201
        assert (await actions(alice))[0] == ("default", "jwt:alice@example", "token.create")
        claims["organization_id"] = "nowhere"
        stranger = Asker(api.site, jwt.encode(claims, secret, algorithm="HS256"))
        assert (await stranger.get(TOKENS))[0] == 401
