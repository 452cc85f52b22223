"""Slack's incoming webhooks, as far as somebody who posts notices: what it takes, and how it refuses.

The answers are Slack's own words: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

TOKEN = "XXXXXXXXXXXXXXXXXXXXXXXX"
PATH = f"/services/T00000000/B00000000/{TOKEN}"
_TEXT_CHARACTERS = 40_000

Answer = tuple[int, str, dict[str, str]]
"""Status, text, headers."""


@dataclass
class FakeSlack:
    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    hangs: bool = False
    posted: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        status, text, headers = await self.answer(request.path, request)
        return web.Response(status=status, text=text, headers=headers)

    async def answer(self, path: str, request: web.Request) -> Answer:
        if path != PATH:
            return _elsewhere(path)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.answers:
            return self.answers.pop(0)
        try:
            message = json.loads(await request.text())
        except ValueError:
            return 400, "invalid_payload", {}
        if request.content_type != "application/json" or not isinstance(message, dict):
            return 400, "invalid_payload", {}
        if not message.get("text") and not message.get("blocks"):
            return 400, "no_text", {}
        message["text"] = str(message.get("text", ""))[:_TEXT_CHARACTERS]
        self.posted.append(message)
        self.ids.append(request.headers.get("webhook-id", ""))
        return 200, "ok", {}


def _elsewhere(path: str) -> Answer:
    """What stands at any other address: another team's, another service's, or with a wrong token."""
    if not path.startswith("/services/T00000000/"):
        return 404, "no_team", {}
    return (403, "invalid_token", {}) if path.startswith("/services/T00000000/B00000000/") else (404, "no_service", {})


@asynccontextmanager
async def fake_slack() -> AsyncIterator[FakeSlack]:
    slack = FakeSlack()
    app = web.Application()
    app.router.add_post("/{path:.*}", slack.handle)
    async with TestServer(app) as server:
        slack.url = str(server.make_url(PATH))
        yield slack
