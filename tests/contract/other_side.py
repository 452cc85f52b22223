"""What an integration talks to, as the suites need it: it answers as it is told, and keeps what came."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import (
    AuthFailed,
    Gone,
    Integration,
    IntegrationConfig,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE, NOW_MS

SECRET = "planted-in-a-contract-4711"


class OtherSide(Protocol):
    """A counterpart that does as it is told."""

    settings: dict[str, Any]
    """What leads to it, with SECRET wherever the integration takes a secret."""

    @property
    def answers(self) -> frozenset[type[Outcome]]:
        """What it can be told to answer; all can be away."""
        ...

    @property
    def received(self) -> list[bytes]:
        """The bodies that it has taken, in order."""
        ...

    def answer(self, outcome: type[Outcome]) -> None:
        """Answer so from now on, in its own language."""
        ...

    async def go_away(self) -> None:
        """Be nowhere from now on."""
        ...


class Contract:
    """What every suite has."""

    integration: ClassVar[type[Integration]]

    @staticmethod
    def other_side(path: Path, /) -> AbstractAsyncContextManager[OtherSide]:
        """Return what the integration talks to, while it is entered."""
        raise NotImplementedError

    def made(self, side: OtherSide, **settings: Any) -> Any:
        """Return an integration that leads there."""
        keys = {"type": self.integration.type, "name": "test", "timeout_s": 2.0} | side.settings | settings
        config: IntegrationConfig = self.integration.Config.model_validate(keys)
        return self.integration(config, ManualClock(NOW_MS), ANYWHERE)


_STATUS: dict[type[Outcome], int] = {
    Ok: 204,
    AuthFailed: 401,
    RetryAfter: 429,
    NotConnected: 500,
    WrongAddress: 404,
    Gone: 410,
    TooLarge: 413,
    Rejected: 422,
}


class HttpReceiver:
    """An HTTP receiver."""

    answers: frozenset[type[Outcome]] = frozenset(_STATUS)
    received: list[bytes]

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.received = []
        self._status = 204
        self.server: TestServer

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.method != "OPTIONS" and self._status == _STATUS[Ok]:
            self.received.append(body)
        said = f"no, and you said {request.headers.get('authorization')}"  # a receiver may repeat what it got
        return web.Response(status=self._status, text="" if self._status == _STATUS[Ok] else said)

    def answer(self, outcome: type[Outcome]) -> None:
        self._status = _STATUS[outcome]

    async def go_away(self) -> None:
        await self.server.close()


@asynccontextmanager
async def http_receiver(_: Path) -> AsyncIterator[OtherSide]:
    """An HTTP receiver, for a webhook."""
    side = HttpReceiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", side.take)
    side.server = TestServer(app)
    async with side.server:
        side.settings = {"url": str(side.server.make_url("/hook")), "auth_token": SECRET}
        yield side


class Folder:
    """A folder, for a spool."""

    answers: frozenset[type[Outcome]] = frozenset({Ok})

    def __init__(self, path: Path) -> None:
        self._path = path
        self.settings: dict[str, Any] = {"folder": path}

    @property
    def received(self) -> list[bytes]:
        files = [file.read_bytes() for file in self._path.iterdir()]  # in no order, other than their rows
        return sorted(files, key=lambda file: int(json.loads(file.splitlines()[0])[0]))

    def answer(self, outcome: type[Outcome]) -> None:
        assert outcome is Ok

    async def go_away(self) -> None:
        self._path.rmdir()


@asynccontextmanager
async def folder(path: Path) -> AsyncIterator[OtherSide]:
    """A folder, for a spool."""
    (path / "spool").mkdir()
    yield Folder(path / "spool")
