"""What the strict clouds over HTTP have in common: where they are, what they took, and what they refuse next."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import Integration
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE, NOW_MS

Refusal = tuple[int, str, str]
"""Status, the cloud's name for what is wrong, and its words."""
Kind = TypeVar("Kind", bound=Integration)


@dataclass(kw_only=True)
class HttpCloud:
    """A cloud says in `_answer` what it is, and in `_error` how it refuses."""

    bodies: list[bytes] = field(default_factory=list)
    """What was taken, as it came."""
    refuses: list[Refusal | None] = field(default_factory=list)
    """What the next requests are told; None: what is true."""
    judge: Callable[[bytes], Refusal | None] | None = None
    """Of what readings say that would be taken: why they are refused."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each."""
    now_s: float | None = None
    """None: the time of whoever asks."""
    server: TestServer = field(init=False)

    @property
    def endpoint(self) -> str:
        return str(self.server.make_url("/"))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.raw_path))
        answer = self._answer(request, body)
        answer.headers["date"] = formatdate(NOW_MS / 1000 if self.now_s is None else self.now_s, usegmt=True)
        return answer

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        raise NotImplementedError

    def _error(self, status: int, code: str, message: str) -> web.Response:
        raise NotImplementedError

    def said(self, body: bytes) -> bytes:
        """Return what a body says, decoded."""
        return body

    def _judged(self, body: bytes) -> web.Response | None:
        refusal = None if self.judge is None else self.judge(self.said(body))
        return None if refusal is None else self._error(*refusal)

    def _refusal(self) -> web.Response | None:
        told = self.refuses.pop(0) if self.refuses else None
        return None if told is None else self._error(*told)


Cloud = TypeVar("Cloud", bound=HttpCloud)


@asynccontextmanager
async def served(cloud: Cloud, tls: ssl.SSLContext | None = None) -> AsyncIterator[Cloud]:
    app = web.Application(client_max_size=20_000_000)
    app.router.add_route("*", "/{path:.*}", cloud.handle)
    cloud.server = TestServer(app, scheme="http" if tls is None else "https")
    await cloud.server.start_server(ssl=tls)
    try:
        yield cloud
    finally:
        await cloud.server.close()


def configured(
    integration: type[Kind], cloud: HttpCloud | None, clock: ManualClock | None, settings: dict[str, Any]
) -> Kind:
    """Return the integration as it is set up for that cloud."""
    raw = {"type": integration.type, "name": "test", "timeout_s": 5}
    raw |= {} if cloud is None else {"endpoint": cloud.endpoint}
    return integration(integration.Config.model_validate(raw | settings), clock or ManualClock(NOW_MS), ANYWHERE)
