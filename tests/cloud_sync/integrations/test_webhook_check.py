"""A webhook is tried up to its receiver, which never gets anything that it could take for a reading."""

import asyncio
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import Tests as CanBeTried
from cloud_sync.integrations.http import receiver_check
from cloud_sync.integrations.webhook import Webhook
from gateway.clock import ManualClock
from gateway.model.finding import Finding
from tests.cloud_sync.integrations.certificates import serving
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, STANDARD_SECRET


async def check(url: object, **settings: Any) -> list[Finding]:
    fields = {"type": "webhook", "name": "test", "url": str(url), "secret": STANDARD_SECRET} | settings
    async with Webhook(Webhook.Config.model_validate(fields), ManualClock(NOW_MS), ANYWHERE) as webhook:
        assert isinstance(webhook, CanBeTried)
        return await webhook.check()


async def answering(status: int = 204, *, at_ms: int = NOW_MS, path: str = "/hook", **settings: Any) -> Finding:
    """What is said of the answer to OPTIONS, the last finding."""
    headers = {"date": formatdate(at_ms / 1000, usegmt=True)} | settings.pop("headers", {})
    asked: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        findings = await check(server.make_url(path), **settings)
    assert [(one.method, one.content_length) for one in asked] == [("OPTIONS", None)]
    assert "webhook-signature" not in asked[0].headers
    if token := settings.get("auth_token"):
        assert asked[0].headers["authorization"] == f"Bearer {token}"
    return findings[-1]


async def test_a_receiver_that_is_there_is_well() -> None:
    assert (await answering(204)).level == "ok"
    assert (await answering(405)).level == "ok"
    assert (await answering(501)).level == "ok"
    assert (await answering(204, headers={"allow": "GET, post, OPTIONS"})).level == "ok"


@pytest.mark.parametrize(
    ("status", "level"),
    [(401, "warning"), (403, "warning"), (404, "warning"), (307, "warning"), (500, "warning"), (410, "broken")],
)
async def test_an_answer_that_is_no_success_is_told(status: int, level: str) -> None:
    found = await answering(status, auth_token="geheim-geheim")
    assert (found.level, f"HTTP {status}" in found.words) == (level, True)
    assert found.hint
    assert "geheim" not in str(found)


async def test_a_method_that_is_not_taken_there_is_broken() -> None:
    found = await answering(204, headers={"allow": "GET, HEAD"}, method="PUT")
    assert found.level == "broken"
    assert "takes GET, HEAD there, not PUT" in found.words


@pytest.mark.parametrize(("off_ms", "words"), [(3_600_000, "3,600 s behind"), (-3_600_000, "3,600 s ahead of")])
async def test_clocks_too_far_apart_for_a_signature_are_broken(off_ms: int, words: str) -> None:
    found = await answering(204, at_ms=NOW_MS + off_ms)
    assert found.level == "broken"
    assert words in found.words


async def test_batches_that_nobody_signs_are_warned_of() -> None:
    found = await answering(204, secret=None)
    assert "not signed" in found.words


async def test_a_receiver_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_check, "_PATIENCE_S", 0.3)
    async with asyncio.timeout(10), serving(None) as port:
        findings = await check(f"http://127.0.0.1:{port}/hook")
    assert [finding.level for finding in findings] == ["ok", "broken"]
    assert "no answer within 0.3 s" in findings[1].words


async def test_what_cannot_be_reached_is_not_asked() -> None:
    assert [finding.level for finding in await check("https://nobody.invalid/x?token=geheim")] == ["broken"]
