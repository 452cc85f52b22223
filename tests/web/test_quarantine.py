"""GET quarantine: what could not be used, as it came, for those who may read readings of the same organisation."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model.reading import NewQuarantine
from gateway.web import quarantine as web
from tests.site import reading
from tests.web.api import Asker, asker, running_api

API = "/api/v1/quarantine"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path) as api:
        yield api


def bad(organization_id: str, device_id: str, code: str, payload: bytes) -> NewQuarantine:
    return NewQuarantine(organization_id, device_id, "http", code, "why", 1_795_176_000_250, payload)


async def codes(api: Asker, path: str = API, **query: str | int) -> list[str]:
    status, answer = await api.get(path, **query)
    assert status == 200, answer
    return [one["code"] for one in answer["quarantine"]]


@pytest.mark.parametrize("path", [API, "/functions/v1/quarantine"])
async def test_what_a_device_sent_is_shown_with_the_reason(api: Asker, path: str) -> None:
    headers = {"x-api-key": api.site.kitchen.password, "Content-Type": "application/json"}
    body = reading("attic").decode()
    async with api.site.http.post(api.site.url("/api/v1/sensor-data"), data=body, headers=headers) as refused:
        assert refused.status == 400
        why = (await refused.json())["error"]["message"]
    status, answer = await api.get(path)
    assert (status, answer["next_cursor"]) == (200, None)
    (shown,) = answer["quarantine"]
    assert shown.pop("received_at").startswith("20")
    assert shown == {
        "id": 1,
        "organization_id": "default",
        "device_id": "kitchen",
        "source": "http",
        "code": "foreign_device",
        "reason": why,
        "payload": body,
        "encoding": "text",
    }


@pytest.mark.parametrize(
    ("payload", "shown", "encoding"),
    [
        (b"", "", "text"),
        ('{"wärme": "1\u0000'.encode(), '{"wärme": "1\u0000', "text"),
        (b"\xff\x00", b64encode(b"\xff\x00").decode(), "base64"),
        (b"\xed\xa0\x80", b64encode(b"\xed\xa0\x80").decode(), "base64"),
    ],
)
async def test_a_payload_is_text_where_it_is_utf8_and_else_base64(
    api: Asker, payload: bytes, shown: str, encoding: str
) -> None:
    await api.site.log.append([bad("default", "", "invalid_json", payload)])
    (one,) = (await api.get(API))[1]["quarantine"]
    assert (one["payload"], one["encoding"], one["device_id"]) == (shown, encoding, None)


async def test_it_is_paged_and_filtered_the_newest_first(api: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [bad("default", f"d{number % 2}", f"c{number}", b"") for number in range(5)]
    await api.site.log.append(many)
    assert await codes(api, device_id="d1") == ["c3", "c1"]
    assert await codes(api, device_id="d1", code="c3") == ["c3"]
    assert await codes(api, device_id="", code="") == ["c4", "c3", "c2", "c1", "c0"]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        status, answer = await api.get(API, **query)
        assert (status, len(answer["quarantine"]) <= 2) == (200, True)
        seen += [one["code"] for one in answer["quarantine"]]
        if answer["next_cursor"] is None:
            break
        query["cursor"] = answer["next_cursor"]
    assert seen == ["c4", "c3", "c2", "c1", "c0"]
    monkeypatch.setattr(web, "_AT_MOST", 3)
    assert await codes(api, limit=4) == ["c4", "c3", "c2"]


async def test_p8_each_organisation_sees_its_own_and_the_site_everybodys(api: Asker) -> None:
    owner, of_site = await asker(api.site, "owner", "acme"), await asker(api.site, "member", None)
    await api.site.log.append([bad("acme", "kitchen", "theirs", b""), bad("default", "kitchen", "ours", b"")])
    assert (await codes(api), await codes(owner)) == (["ours"], ["theirs"])
    assert await codes(of_site) == ["ours", "theirs"]
    assert await codes(of_site, organization_id="acme") == ["theirs"]
    assert (await owner.get(API, organization_id="default"))[0] == 403
    assert (await (await asker(api.site, "device")).get(API))[0] == 403


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"cursor": "-1"}, {"limit": 0}, {"since": "1"}])
async def test_what_cannot_be_asked_is_400(api: Asker, query: dict[str, str | int]) -> None:
    status, answer = await api.get(API, **query)
    assert (status, answer["error"]["code"]) == (400, "invalid_parameter")
