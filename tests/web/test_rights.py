"""P8 over HTTP: every route, every role, two organisations; what is somebody else's does not exist."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.clock import ManualClock
from gateway.model.roles import ROLES, Role
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device
from gateway.operations.integrations import IntegrationFields, add_integration
from gateway.operations.notifications import follow_notification, send_notification
from gateway.operations.organizations import add_organization
from gateway.operations.tokens import create_token
from gateway.storage.alerts import Alerts, Cause
from tests.site import Site, reading, running_site
from tests.web.every_route import BY_PASSWORD, BY_SECRET, DOCUMENT, LIVE, ROUTES, WITHOUT_TOKENS, Route

JWT_SECRET = "a secret of more than thirty-two bytes"
MAIL = {"type": "email", "name": "mail", "smtp_host": "mail.invalid", "from_email": "gateway@example.org"}
"""Writes to nobody, so no name is looked up."""
KINDS = ("token", "jwt")

LOOKS = [one for one in ROUTES if one.method == "GET"]
TURNS = [LOOKS, *([one] for one in ROUTES if one.method != "GET")]
"""What is asked of one gateway: what only looks leaves everything as it was."""


def named(turn: list[Route]) -> str:
    return "every GET" if turn is LOOKS else str(turn[0])


@dataclass
class Sites:
    """A gateway with two organisations that have one of everything each, and tokens of every role."""

    site: Site
    own: dict[str, dict[str, str]]
    """By organisation: what is only its."""
    tokens: dict[tuple[str | None, str], str]

    def token(self, kind: str, organization_id: str | None, role: str) -> str:
        if kind == "token":
            return self.tokens[organization_id, role]
        ends_s = ManualClock().now // 1000 + 60
        claims = {"sub": "alice", "role": role, "organization_id": organization_id, "exp": ends_s}
        return jwt.encode(claims, JWT_SECRET, algorithm="HS256")

    async def ask(
        self, route: Route, token: str, things: dict[str, str], prefix: str = "/api/v1", **query: str
    ) -> tuple[int, str]:
        path, body = route.path, json.dumps(route.body)
        for name, value in things.items():
            path, body = path.replace(f"{{{name}}}", value), body.replace(f"{{{name}}}", value)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        path += "".join(f"{'&' if '?' in path else '?'}{name}={value}" for name, value in query.items())
        data = body if route.body else None
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self.site.http.request(
            route.method, self.site.url(f"{prefix}/{path}"), data=data, headers=headers
        ) as answer:
            return answer.status, await answer.text()


async def furnish(site: Site, organization_id: str, tokens: dict[tuple[str | None, str], str]) -> dict[str, str]:
    """Let an organisation have one of everything, and say how each is called."""
    device_id = f"board-of-{organization_id}"
    device = await site.command(add_device, organization_id=organization_id, device_id=device_id, metadata={})
    headers = {"x-api-key": device.password, "Content-Type": "application/json"}
    async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(device_id), headers=headers) as answer:
        assert answer.status == 202
    async with site.http.post(site.url("/api/v1/sensor-data"), data=f'"{device_id}"', headers=headers) as answer:
        assert answer.status == 400  # in quarantine
    await site.log.dead_letters.set_aside("cloud", (await site.log.read(0, limit=9))[-1], "no", site.clock.now)
    await site.command(add_credential, name=f"hub-of-{organization_id}", organization_id=organization_id)
    for role in ROLES:
        new = await site.command(create_token, name=role, organization_id=organization_id, role=role)
        tokens[organization_id, role] = new.token
    spare = await site.command(create_token, name="spare", organization_id=organization_id, role="member")
    body = {"operation": "subscribe", "topics": ["devices/#"]}
    bearer = {"Authorization": f"Bearer {tokens[organization_id, 'owner']}"}
    async with site.http.post(site.url("/api/v1/mqtt-broker"), json=body, headers=bearer) as answer:
        subscription = (await answer.json())["id"]
    integration = await site.command(
        add_integration,
        organization_id=organization_id,
        integration_type="webhook",
        name=f"integration-of-{organization_id}",
        settings={"url": "http://127.0.0.1:1/", "secret": "a secret of more than 24 bytes"},
        fields=IntegrationFields(status="inactive"),
    )
    told = site.url(f"/api/v1/devices/{device_id}/commands")
    async with site.http.post(told, json={"method": "identify"}, headers=bearer) as answer:
        command = (await answer.json())["id"]
    alerts = Alerts(await site.gateway._running.site.state())
    alert, _ = await alerts.open(Cause(organization_id, "quota_exceeded", device_id, "low", "Less."), reopen_ms=0)
    return {
        "notification": await _notification(site, organization_id),
        "organization": organization_id,
        "device": device_id,
        "hub": f"hub-of-{organization_id}",
        "token": spare.id,
        "subscription": subscription,
        "integration": integration.id,
        "command_id": command,
        "alert": str(alert.id),
    }


async def _notification(site: Site, organization_id: str) -> str:
    """One that has failed, as it names nobody."""
    inside = site.gateway._running.site
    sent = await send_notification(inside, organization_id=organization_id, integration_type="email", message="hello")
    followed = follow_notification(inside, organization_id=organization_id, notification_id=sent.id)
    assert [row.status async for row in followed][-1] == "failed"
    return sent.id


@pytest.fixture
async def sites(tmp_path: Path) -> AsyncIterator[Sites]:
    http = {"rate_limit_per_minute": 0, "jwt_secret": JWT_SECRET}
    async with running_site(tmp_path, http=http, ingest={"hook_rate_limit_per_minute": 0}, integrations=[MAIL]) as site:
        tokens: dict[tuple[str | None, str], str] = {}
        own = {name: await furnish(site, name, tokens) for name in ("acme", "other")}
        await site.command(add_organization, organization_id="third")
        roles: tuple[Role, ...] = ("owner", "admin", "member")
        for role in roles:
            tokens[None, role] = (await site.command(create_token, name=role, organization_id=None, role=role)).token
        yield Sites(site, own, tokens)


@pytest.mark.parametrize("kind", KINDS)
async def test_p8_each_role_may_what_it_may_and_no_more(sites: Sites, kind: str) -> None:
    for role in ("member", "device"):  # of the others, see below
        token = sites.token(kind, "acme", role)
        for route in ROUTES:
            status, text = await sites.ask(route, token, sites.own["acme"])
            allowed = role in route.roles and not route.site_only
            assert status == (route.ok if allowed else 403), (role, str(route), text)


@pytest.mark.parametrize("turn", TURNS, ids=named)
async def test_p8_a_route_is_for_its_organisation_alone(sites: Sites, turn: list[Route]) -> None:
    before = await everything(sites, "other")
    for route in turn:
        await check_is_for_its_organisation_alone(sites, route)
    assert await everything(sites, "other") == before


async def check_is_for_its_organisation_alone(sites: Sites, route: Route) -> None:
    names = r"\{(device|hub|token|organization|subscription|integration|alert|notification)\}"
    asks_for_one = re.search(names, route.path + json.dumps(route.body))
    describes = route.path == "devices/metadata"  # there an id that is not known becomes one of the own organisation
    for kind in KINDS:
        for role in ROLES:
            token = sites.token(kind, "acme", role)
            status, text = await sites.ask(route, token, sites.own["other"])
            may = role in route.roles and not route.site_only
            if not may:
                assert status == 403, (str(route), role, text)
            elif asks_for_one and not describes:
                assert status == 404, (str(route), role, text)
            elif not describes:
                told = [one for one in sites.own["other"].values() if f'"{one}"' in text]
                assert not told, (str(route), role, text)
            status, text = await sites.ask(route, token, sites.own["other"], organization_id="other")
            assert status == 403, (str(route), role, text)


@pytest.mark.parametrize("prefix", ["/api/v1", "/functions/v1"])
@pytest.mark.parametrize("turn", TURNS, ids=named)
async def test_an_owner_or_admin_and_one_of_the_site_may(sites: Sites, turn: list[Route], prefix: str) -> None:
    role = "owner" if prefix == "/api/v1" else "admin"
    of_site = sites.token("token", None, role)
    for route in turn:
        status, text = await sites.ask(route, sites.token("jwt", "acme", role), sites.own["acme"], prefix)
        assert status == (403 if route.site_only else route.ok), (str(route), text)
        status, text = await sites.ask(route, of_site, sites.own["other"], prefix, organization_id="other")
        assert status == route.ok, (str(route), text)
        status, text = await sites.ask(route, of_site, sites.own["other"], prefix, organization_id="nowhere")
        assert status == 404, (str(route), text)


@pytest.mark.parametrize("token", ["", "wrong", "ngt_wrong", "a.b.c"])
async def test_without_a_token_nothing_answers(sites: Sites, token: str) -> None:
    sites.site.gateway._running.door.login_delay._waiting_at_most = 0  # the answers do not wait
    for route in ROUTES:
        status, text = await sites.ask(route, token, sites.own["acme"])
        assert (status, json.loads(text)["error"]["code"]) == (401, "unauthorized"), str(route)


async def test_a_wrong_jwt_waits_for_its_answer_like_any_wrong_token(sites: Sites) -> None:
    delay = sites.site.gateway._running.door.login_delay
    good = sites.token("jwt", "acme", "owner")
    wrong = [good[:-4] + "AAAA", sites.token("jwt", "acme", "king"), sites.token("jwt", "nowhere", "owner")]
    for number, token in enumerate(wrong, 1):
        assert (await sites.ask(ROUTES[0], token, {}))[0] == 401
        assert [failures for failures, _ in delay._failures.values()] == [number]
    assert (await sites.ask(ROUTES[0], good, {}))[0] == 200
    assert [failures for failures, _ in delay._failures.values()] == [3]


async def test_the_table_names_every_route_there_is(sites: Sites) -> None:
    app = sites.site.gateway._running.http._main._runner.app
    there = {
        (route.method, str(route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    there = {
        (method, path)
        for method, path in there
        if path not in WITHOUT_TOKENS | BY_PASSWORD | BY_SECRET | LIVE | DOCUMENT
    }
    asked = set()
    for one in ROUTES:
        path = one.path.partition("?")[0]
        for name in ("device", "token", "organization", "subscription", "integration", "alert", "notification"):
            path = path.replace(f"{{{name}}}", "{id}")
        path = path.replace("organizations/third", "organizations/{id}")
        asked |= {(one.method, f"{prefix}/{path}") for prefix in ("/api/v1", "/functions/v1")}
    assert asked == there


async def everything(sites: Sites, organization_id: str) -> list[Any]:
    """Return all that an organisation can see of itself."""
    token = sites.token("token", organization_id, "owner")
    paths = ["devices", "tokens", "readings", "quarantine", "dead-letters", "activity-log", "integrations"]
    paths += ["mqtt-broker/subscriptions"]
    routes = [Route("GET", path, frozenset()) for path in paths]
    routes.append(Route("POST", "mqtt-broker", frozenset(), {"operation": "credentials", "action": "list"}))
    answers = [await sites.ask(route, token, {}) for route in routes]
    assert all(status == 200 for status, _ in answers)
    return answers


# Live


async def first_message(sites: Sites, token: str, organization_id: str | None = None) -> Any:
    query = "" if organization_id is None else f"?organization_id={organization_id}"
    url = sites.site.url(f"/ws{query}").replace("http", "ws", 1)
    async with sites.site.http.ws_connect(url, headers={"Authorization": f"Bearer {token}"}) as socket:
        await socket.send_json({"type": "subscribe"})
        return (await socket.receive_json(timeout=5))["type"]


@pytest.mark.parametrize("kind", KINDS)
async def test_p8_live_readings_are_for_who_may_read_them(sites: Sites, kind: str) -> None:
    for role in ROLES:
        expected = "error" if role == "device" else "subscribed"
        assert await first_message(sites, sites.token(kind, "acme", role)) == expected
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await first_message(sites, sites.token(kind, "acme", "owner"), "other")
    assert refused.value.status == 403


async def test_p8_one_of_the_site_watches_the_organisation_it_names(sites: Sites) -> None:
    url = sites.site.url("/ws?organization_id=other").replace("http", "ws", 1)
    token = sites.token("token", None, "owner")
    async with sites.site.http.ws_connect(url, headers={"Authorization": f"Bearer {token}"}) as socket:
        await socket.send_json({"type": "subscribe"})
        assert (await socket.receive_json(timeout=5))["type"] == "subscribed"
        for name in ("acme", "other"):
            body = {"topic": f"devices/board-of-{name}/telemetry", "payload": json.loads(reading(f"board-of-{name}"))}
            route = Route("POST", "mqtt-listener", frozenset(), body)
            status, text = await sites.ask(route, sites.token("token", name, "device"), {})
            assert status == 200, text
        seen = await socket.receive_json(timeout=5)
        assert (seen["type"], seen["data"]["organization_id"]) == ("sensor-data", "other")


async def test_a_session_by_jwt_ends_with_it(sites: Sites) -> None:
    ends_s = sites.site.clock.now // 1000 + 60
    claims = {"sub": "alice", "role": "member", "organization_id": "acme", "exp": ends_s}
    token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
    sites.site.clock.now = ends_s * 1000 - 100
    url = sites.site.url("/ws").replace("http", "ws", 1)
    async with sites.site.http.ws_connect(url, headers={"Authorization": f"Bearer {token}"}) as socket:
        sites.site.clock.now += 200
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.POLICY_VIOLATION)
    status, _ = await sites.ask(ROUTES[0], token, {})
    assert status == 401
