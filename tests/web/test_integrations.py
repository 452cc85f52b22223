"""`integrations` over HTTP: in the documented forms, with secrets that go in and never come out."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.site import reading, until
from tests.web.api import Asker, asker, running_api

API = "/api/v1/integrations"
SECRET = "only-for-the-receiver-and-for-us-4711"
URL = "https://receiver.invalid/readings"
IN_THE_FILE = {"type": "webhook", "name": "archive", "url": URL, "secret": SECRET, "status": "inactive"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path, "admin", integrations=[IN_THE_FILE]) as api:
        yield api


async def ask(api: Asker, method: str, path: str = API, body: object = None, **query: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body, ensure_ascii=False)
    status, answer = await api.ask(method, path, dict(query), data)
    assert SECRET not in json.dumps(answer), "a secret came out"
    return status, answer


async def made(api: Asker, **body: Any) -> dict[str, Any]:
    said = {"integration_type": "webhook", "name": "Building API", "settings": {"url": URL, "secret": SECRET}}
    status, answer = await ask(api, "POST", body=said | body)
    assert status == 201, answer
    return answer  # type: ignore[no-any-return]


async def refused(api: Asker, method: str = "POST", path: str = API, **body: Any) -> str:
    status, answer = await ask(api, method, path, body)
    assert status == 400, answer
    return f"{answer['error']['message']} {answer['error']['hint']}"


async def test_one_is_made_shown_changed_and_removed(api: Asker) -> None:
    new = await made(api, sync_interval_seconds=600)
    assert (new["integration_type"], new["name"], new["origin"]) == ("webhook", "Building API", "api")
    assert (new["settings"], new["secrets_set"]) == ({"url": URL}, ["secret"])
    assert (new["status"], new["base_url"], new["sync_interval_seconds"]) == ("active", URL, 600)
    assert (new["organization_id"], new["sync_error"], new["project_id"]) == ("default", None, None)
    path = f"{API}/{new['id']}"
    assert await ask(api, "GET", path) == (200, new)
    status, changed = await ask(api, "PATCH", path, {"name": "Other", "settings": {"gzip": True}, "status": "inactive"})
    assert (status, changed["settings"], changed["status"]) == (200, {"url": URL, "gzip": True}, "inactive")
    assert (changed["name"], changed["secrets_set"]) == ("Other", ["secret"])
    for url in ("https://hooks.example.com/golioth", None):
        assert (await ask(api, "PATCH", path, {"webhook_url": url}))[1]["webhook_url"] == url
    assert await ask(api, "DELETE", path) == (204, None)
    assert (await ask(api, "GET", path))[0] == 404
    _, page = await ask(api, "GET", "/api/v1/activity-log")
    changes = [one for one in page["activity"] if one["subject"] == new["id"]]
    assert [one["action"].partition(".")[2] for one in changes] == ["remove", *["update"] * 3, "add"]
    assert {one["actor"] for one in changes} == {"token:default-admin"}
    assert (changes[3]["before"]["name"], changes[3]["after"]["name"]) == ("Building API", "Other")


async def test_one_that_runs_says_how_it_does_and_one_of_the_file_to_the_site_alone(tmp_path: Path) -> None:
    runs = [IN_THE_FILE | {"status": "active", "url": "http://127.0.0.1:1/"}]
    async with running_api(tmp_path, "admin", integrations=runs) as api:
        of_site = await asker(api.site, "owner", None)
        new = await made(api, settings={"url": "http://127.0.0.1:1/"})
        password = {"x-api-key": api.site.kitchen.password, "content-type": "application/json"}
        async with api.site.http.post(api.site.url("/api/v1/sensor-data"), data=reading(), headers=password) as stored:
            assert stored.status == 202

        async def health(of: Asker, integration_id: str) -> Any:
            return (await ask(of, "GET", f"{API}/{integration_id}"))[1]["health"]

        running = api.site.gateway._running.integrations
        await until(lambda: all(one.health.errors for one in running.running()), "an attempt of both", patience_s=10)
        told = await health(api, new["id"])
        assert (told["up"], told["error_kind"], told["last_success_at"]) == (False, "connection", None)
        assert await health(api, "archive") is None
        assert (await health(of_site, "archive"))["up"] is False


async def test_patch_and_delete_take_the_id_in_the_body_or_the_query(api: Asker) -> None:
    new = await made(api)
    for where in ({"id": new["id"]}, {}):
        query = {} if where else {"id": new["id"]}
        status, changed = await ask(api, "PATCH", API, {"name": f"Name {len(where)}"} | where, **query)
        assert (status, changed["name"]) == (200, f"Name {len(where)}")
    assert (await ask(api, "PATCH", API, {"name": "x"}))[1]["error"]["message"] == "The id is missing."
    status, answer = await ask(api, "PATCH", API, {"id": new["id"], "name": "x"}, id="another")
    assert (status, answer["error"]["code"]) == (400, "contradiction")
    assert await ask(api, "DELETE", "/functions/v1/integrations", {"id": new["id"]}) == (204, None)
    other = await made(api)
    assert await ask(api, "DELETE", "/functions/v1/integrations", id=other["id"]) == (204, None)


async def test_the_configuration_comes_in_each_documented_form(api: Asker) -> None:
    texts = {"url": URL, "secret": SECRET, "custom_headers": '{"X-API-Key": "your-key"}'}
    forms: list[dict[str, Any]] = [
        {"settings": texts},
        {"settings": None, "api_key_encrypted": json.dumps(texts)},
        {"settings": None, "api_key_encrypted": texts},
        {"settings": {"custom_headers": texts["custom_headers"]}, "base_url": URL, "webhook_secret": SECRET},
        {"settings": texts, "api_key_encrypted": json.dumps(texts), "base_url": URL, "project_id": None},
    ]
    for number, form in enumerate(forms):
        new = await made(api, name=f"Form {number}", **form)
        assert (new["settings"], new["secrets_set"]) == ({"url": URL}, ["custom_headers", "secret"]), form


async def test_what_is_said_twice_or_cannot_be_is_told_by_its_name(api: Asker) -> None:
    url: dict[str, Any] = {"settings": {"url": URL}, "integration_type": "webhook", "name": "x"}
    assert "url is said twice" in await refused(api, **url, base_url="https://other.invalid/")
    assert "project_id: this integration has no such setting" in await refused(api, **url, project_id="p")
    assert "api_key_encrypted: it is no JSON" in await refused(api, **url, api_key_encrypted="c2VjcmV0")
    assert "api_key_encrypted: it is no JSON" in await refused(api, **url, api_key_encrypted='"\\ud800"')
    infinite = '{"timeout_s": 1e999}'
    assert "too large" in await refused(api, **url, api_key_encrypted=infinite)
    said = await refused(api, integration_type="webhook", name="x", settings={})
    assert said.startswith("url is missing. Where the batches go.")
    said = await refused(api, integration_type="webhook", name="x", settings={"url": URL, "secert": SECRET})
    assert said == "Unknown key secert. Did you mean secret?"
    said = await refused(api, integration_type="webhook", name="x", settings={"url": URL, "secret": "short-" + "x"})
    assert "secret" in said
    assert "short-x" not in said
    said = await refused(api, integration_type="webhok", name="x", settings={})
    assert said == "integration_type names an unknown integration, webhok. Did you mean webhook?"
    assert "organizations" in await refused(api, **url | {"settings": {"url": URL, "organizations": ["other"]}})
    assert "sync_direction" in await refused(api, **url, sync_direction="sideways")
    assert "name" in await refused(api, **url | {"name": " "})
    assert [one["name"] for one in (await ask(api, "GET"))[1]["integrations"]] == ["archive"]


async def test_a_secret_stays_changes_and_goes(api: Asker) -> None:
    new = await made(api, settings={"url": "https://receiver.invalid/hooks/T012B34-and-more-of-it", "secret": SECRET})
    path = f"{API}/{new['id']}"
    assert new["settings"]["url"] == new["base_url"] == "https://receiver.invalid/hooks/********"
    # What a form was shown comes back with it, and changes nothing.
    _, same = await ask(api, "PATCH", path, {"settings": new["settings"], "base_url": new["base_url"]})
    assert (same["settings"], same["secrets_set"]) == (new["settings"], ["secret", "url"])
    _, changed = await ask(api, "PATCH", path, {"settings": {"auth_token": SECRET}})
    assert changed["secrets_set"] == ["auth_token", "secret", "url"]
    _, gone = await ask(api, "PATCH", path, {"settings": {"auth_token": None, "url": URL}, "webhook_secret": None})
    assert (gone["settings"], gone["secrets_set"]) == ({"url": URL}, [])
    _, empty = await ask(api, "PATCH", path, {"settings": {"secret": []}})
    assert (empty["settings"], empty["secrets_set"]) == ({"url": URL, "secret": []}, [])
    _, again = await ask(api, "PATCH", path, {"settings": {"secret": [SECRET]}})
    assert (again["settings"], again["secrets_set"]) == ({"url": URL}, ["secret"])
    assert SECRET not in api.site.state_db.read_bytes().decode("latin-1")


async def test_secrets_that_are_kept_go_where_they_went(api: Asker) -> None:
    sent = {"auth_token": SECRET, "custom_headers": {"X-Key": "another"}}
    new = await made(api, settings={"url": "https://receiver.example/a", **sent})
    path = f"{API}/{new['id']}"
    elsewhere: dict[str, Any] = {"url": "https://elsewhere.example/a"}
    for settings in (elsewhere, elsewhere | {"auth_token": SECRET}, {"proxy": "http://elsewhere.example:3128"}):
        status, answer = await ask(api, "PATCH", path, {"settings": settings})
        assert (status, answer["error"]["code"]) == (400, "secrets_needed"), settings
        assert "custom_headers" in answer["error"]["message"]
    assert (await ask(api, "GET", path))[1]["settings"] == new["settings"]
    for settings in ({"url": "https://RECEIVER.example/b"}, elsewhere | sent, {"url": URL} | dict.fromkeys(sent)):
        assert (await ask(api, "PATCH", path, {"settings": settings}))[0] == 200, settings


async def test_names_and_types_stay_what_they_are(api: Asker) -> None:
    new = await made(api)
    taken = {"integration_type": "webhook", "name": new["name"], "settings": {"url": URL}}
    assert (await ask(api, "POST", body=taken))[0] == 409
    assert (await ask(api, "POST", body=taken | {"name": "archive"}))[0] == 409
    path = f"{API}/{new['id']}"
    assert (await ask(api, "PATCH", path, {"name": "archive"}))[0] == 409
    assert (await ask(api, "PATCH", path, {"integration_type": "webhook"}))[0] == 200
    assert "stays so" in await refused(api, "PATCH", path, integration_type="mqtt")


async def test_those_of_the_file_are_shown_and_change_there_alone(api: Asker) -> None:
    (one,) = (await ask(api, "GET"))[1]["integrations"]
    assert (one["id"], one["name"], one["origin"], one["status"]) == ("archive", "archive", "file", "inactive")
    assert (one["organization_id"], one["settings"], one["secrets_set"]) == (None, {}, [])
    assert await ask(api, "GET", f"{API}/archive") == (200, one)
    for method, body in (("PATCH", {"name": "x"}), ("DELETE", None)):
        status, answer = await ask(api, method, f"{API}/archive", body)
        assert (status, answer["error"]["code"]) == (409, "conflict"), answer
        assert answer["error"]["hint"] == "Change the file, and restart the gateway."


async def test_the_list_is_of_a_type_or_an_organisation(api: Asker) -> None:
    await made(api)
    broker = {"integration_type": "mqtt", "name": "Broker", "settings": {"broker_url": "mqtt.invalid"}}
    await made(api, **broker)
    found = (await ask(api, "GET", integration_type="mqtt", organization_id="default"))[1]["integrations"]
    assert [one["name"] for one in found] == ["Broker"]
    of_site = await asker(api.site, "owner", None)
    assert (await ask(of_site, "POST", "/api/v1/organizations", {"id": "acme"}))[0] == 201
    theirs = await made(of_site, organization_id="acme")
    assert theirs["organization_id"] == "acme"
    listed = (await ask(of_site, "GET"))[1]["integrations"]
    assert [one["organization_id"] for one in listed] == [None, "acme", "default", "default"]
    assert (await ask(api, "GET", f"{API}/{theirs['id']}"))[0] == 404
    assert (await ask(of_site, "GET", f"{API}/{theirs['id']}"))[0] == 200
    assert (await ask(of_site, "GET", f"{API}/{theirs['id']}", organization_id="default"))[0] == 404
    assert (await ask(of_site, "DELETE", f"{API}/{theirs['id']}"))[0] == 204


async def test_the_types_say_what_there_is_to_set(api: Asker) -> None:
    status, answer = await ask(api, "GET", f"{API}/types")
    types = {one["type"]: one for one in answer["types"]}
    assert status == 200
    assert {"mqtt", "webhook"} <= types.keys()
    webhook = types["webhook"]
    assert {"forwards", "tests"} <= set(webhook["capabilities"])
    settings = {one["key"]: one for one in webhook["settings"]}
    assert (settings["url"]["required"], settings["secret"]["secret"], settings["method"]["default"]) == (
        *(True, True),
        "POST",
    )
    assert webhook["schema"]["properties"]["secret"]["writeOnly"]
    assert "organizations" not in settings


# Tests of integrations


@pytest.fixture
async def receiver() -> AsyncIterator[TestServer]:
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        is_known = request.headers.get("authorization") == f"Bearer {SECRET}"
        return web.Response(status=204 if is_known else 401)

    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    async with server:
        yield server


async def test_one_is_tried_as_it_is_and_as_it_might_be(api: Asker, receiver: TestServer) -> None:
    settings = {"url": str(receiver.make_url("/hook")), "auth_token": SECRET}
    new = await made(api, settings=settings, status="inactive")
    status, answer = await ask(api, "POST", f"{API}/{new['id']}/test")
    assert (status, answer["success"]) == (200, True)
    assert [one["level"] for one in answer["findings"]] == ["ok", "ok", "warning"]
    assert answer["message"] == "Batches are not signed: anybody could send some."  # the worst of it
    trial = {"integration_type": "webhook", "settings": settings}
    assert (await ask(api, "POST", f"{API}/test", trial))[1] == answer
    wrong = trial | {"settings": settings | {"auth_token": "another-one"}}
    _, answer = await ask(api, "POST", f"{API}/test", wrong)
    assert "HTTP 401" in answer["message"]
    closed = trial | {"settings": {"url": "http://127.0.0.1:1/"}}
    _, answer = await ask(api, "POST", f"{API}/test", closed)
    assert (answer["success"], "nothing listens there" in answer["message"]) == (False, True)
    assert "url is missing" in await refused(api, "POST", f"{API}/test", integration_type="webhook")
    assert [one["name"] for one in (await ask(api, "GET"))[1]["integrations"]] == ["archive", "Building API"]


async def test_p9_a_test_goes_only_where_egress_allows(tmp_path: Path, receiver: TestServer) -> None:
    async with running_api(tmp_path, "admin", egress={"policy": "public"}) as api:
        trial = {"integration_type": "webhook", "settings": {"url": str(receiver.make_url("/"))}}
        _, answer = await ask(api, "POST", f"{API}/test", trial)
    assert (answer["success"], answer["message"]) == (False, "Egress does not allow the addresses of 127.0.0.1.")


async def test_one_of_the_file_is_tried_by_who_is_of_the_site(api: Asker) -> None:
    assert (await ask(api, "POST", f"{API}/archive/test"))[0] == 403
    status, answer = await ask(await asker(api.site, "owner", None), "POST", f"{API}/archive/test")
    assert (status, answer["success"]) == (200, False)
