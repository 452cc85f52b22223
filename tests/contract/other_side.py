"""What an integration talks to, as the suites need it: it answers as it is told, and keeps what came."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args

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
from tests.faulty_link import Fault, FaultyLink

Judge = Callable[[bytes], type[Outcome]]
"""Tells, of what a request says, how it is answered."""
FAULTS: tuple[Fault, ...] = get_args(Fault)
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

    @property
    def said(self) -> bytes:
        """What these say, decoded."""
        ...

    def answer(self, outcome: type[Outcome]) -> None:
        """Answer so from now on, in its own language."""
        ...

    async def go_away(self) -> None:
        """Be nowhere from now on."""
        ...


class Destination(OtherSide, Protocol):
    """One that takes readings over a line."""

    gets_them_singly: bool
    """Whether each request has one reading, so that there are never too many in it."""

    def judge(self, judge: Judge) -> None:
        """Answer to what is in order as this tells, from now on."""
        ...

    def fail(self, fault: Fault | None) -> None:
        """Have this fault of the line from now on."""
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
    gets_them_singly = False
    received: list[bytes]

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.received = []
        self._judge: Judge = lambda _: Ok
        self.server: TestServer
        self.link: FaultyLink

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        outcome = self._judge(body)
        if request.method != "OPTIONS" and outcome is Ok:
            self.received.append(body)
        said = f"no, and you said {request.headers.get('authorization')}"  # a receiver may repeat what it got
        return web.Response(status=_STATUS[outcome], text="" if outcome is Ok else said)

    @property
    def said(self) -> bytes:
        return b"\n".join(self.received)

    def answer(self, outcome: type[Outcome]) -> None:
        self._judge = lambda _: outcome

    def judge(self, judge: Judge) -> None:
        self._judge = judge

    def fail(self, fault: Fault | None) -> None:
        self.link.fault = fault

    async def go_away(self) -> None:
        await self.server.close()


@asynccontextmanager
async def http_receiver(_: Path) -> AsyncIterator[Destination]:
    """An HTTP receiver, for a webhook."""
    side = HttpReceiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", side.take)
    side.server = TestServer(app)
    async with side.server, FaultyLink(port_of(side.server)) as side.link:
        side.settings = {"url": f"http://127.0.0.1:{side.link.port}/hook", "auth_token": SECRET}
        yield side


def port_of(server: TestServer) -> int:
    """Return where it listens."""
    assert server.port is not None
    return server.port


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

    @property
    def said(self) -> bytes:
        return b"".join(self.received)

    def answer(self, outcome: type[Outcome]) -> None:
        assert outcome is Ok

    async def go_away(self) -> None:
        self._path.rmdir()


@asynccontextmanager
async def folder(path: Path) -> AsyncIterator[OtherSide]:
    """A folder, for a spool."""
    (path / "spool").mkdir()
    yield Folder(path / "spool")
