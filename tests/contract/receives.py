"""What every integration promises that receives: `ReceivesContract`, to be inherited with a `Sender` of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from cloud_sync.contract import AuthFailed, Inbox, Incoming, Line, NotConnected, Outcome, Receives
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.packets import Login
from tests.cloud_sync.samples import ANYWHERE
from tests.contract.other_side import SECRET, Contract
from tests.mosquitto import mosquitto
from tests.ports import free_port

WAIT_S = 30


class Sender(Protocol):
    """The other side of one integration."""

    settings: dict[str, Any]
    """What leads to it, with SECRET wherever the integration takes a secret."""
    away: dict[str, Any]
    """What leads to where it is not."""
    wrong: dict[str, Any]
    """What it does not let in."""

    async def say(self, *payloads: bytes) -> None:
        """Send these, in order, where the integration hears them."""
        ...


class Kept(Inbox):
    """An inbox that keeps what comes, and acknowledges what it is told to."""

    def __init__(self) -> None:
        self.gateway_id = "site-1"
        self.messages: list[Incoming] = []
        self.settled_times = 0
        self.line: Line
        self.is_open = asyncio.Event()
        self._more = asyncio.Event()

    def opened(self, line: Line, problem: str = "") -> None:
        assert problem == ""
        self.line = line
        self.is_open.set()

    async def take(self, messages: Sequence[Incoming]) -> None:
        self.messages += messages
        self._more.set()

    async def settled(self) -> None:
        self.settled_times += 1

    async def payloads(self, count: int) -> list[bytes]:
        """Return what has come, once it is so much."""
        async with asyncio.timeout(WAIT_S):
            while len(self.messages) < count:
                self._more.clear()
                await self._more.wait()
        return [one.payload for one in self.messages]


@asynccontextmanager
async def receiving(it: Any) -> AsyncIterator[Kept]:
    inbox = Kept()
    task = asyncio.create_task(it.receive(inbox))
    opened = asyncio.create_task(inbox.is_open.wait())
    await asyncio.wait({task, opened}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    try:
        assert not task.done(), task.result()
        yield inbox
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT_S)


class ReceivesContract(Contract):
    """Every integration that gets messages from elsewhere."""

    @staticmethod
    def sender(path: Path, /) -> AbstractAsyncContextManager[Sender]:
        """Return whom it hears, while that is entered."""
        raise NotImplementedError

    async def test_what_is_acknowledged_is_over_and_all_else_comes_again(self, tmp_path: Path) -> None:
        async with self.sender(tmp_path) as side:
            assert isinstance(self.hearing(side), Receives)
            async with self.hearing(side) as it:
                async with receiving(it) as inbox:
                    await side.say(b"1", b"2", b"3")
                    assert await inbox.payloads(3) == [b"1", b"2", b"3"]
                    assert not any(one.maybe_repeated for one in inbox.messages)
                    assert await inbox.line.acknowledge(inbox.messages[:1])
                assert inbox.settled_times == 1
                assert not await inbox.line.acknowledge(inbox.messages[1:])
                await side.say(b"4")
            async with self.hearing(side) as it, receiving(it) as inbox:  # as after a restart
                assert await inbox.payloads(3) == [b"2", b"3", b"4"]
                assert [one.maybe_repeated for one in inbox.messages[:2]] == [True, True]
                assert await inbox.line.acknowledge(inbox.messages)

    async def test_why_there_is_nothing_is_returned_without_a_secret(self, tmp_path: Path) -> None:
        async with self.sender(tmp_path) as side:
            for settings, kind in ((side.away, NotConnected), (side.wrong, AuthFailed)):
                async with self.hearing(side, **settings) as it:
                    outcome: Outcome = await it.receive(Kept())
                assert isinstance(outcome, kind)
                assert SECRET not in repr(outcome)
                assert outcome.reason

    async def test_it_ends_at_once_when_it_is_cancelled(self, tmp_path: Path) -> None:
        async with self.sender(tmp_path) as side, self.hearing(side) as it:
            async with receiving(it):
                pass
            task = asyncio.create_task(it.receive(Kept()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)

    def hearing(self, side: Sender, **settings: Any) -> Any:
        return self.made(side, **settings)  # type: ignore[arg-type]  # it only looks at the settings


class _Mosquitto:
    """A broker, and a device of theirs that publishes there."""

    def __init__(self, port: int, names: dict[str, str], **settings: Any) -> None:
        where = {"broker_url": "127.0.0.1", "port": port, "client_id": "contract", "topics": "plant/#"}
        self.settings = {names.get(name, name): value for name, value in where.items()}
        self.settings |= {"username": "us", "password": SECRET} | settings
        self.away = {"port": free_port()}
        self.wrong = {"password": f"not {SECRET}"}
        self._port = port

    async def say(self, *payloads: bytes) -> None:
        device = Broker("127.0.0.1", self._port, False, None, Login("device", "us", SECRET))  # noqa: FBT003
        async with aclosing(await open_connection(device, ANYWHERE, timeout_s=WAIT_S)) as connection:
            for payload in payloads:
                await (await connection.publish("plant/hall", payload))


@asynccontextmanager
async def _at_mosquitto(path: Path, names: dict[str, str]) -> AsyncIterator[Sender]:
    with mosquitto(path, users={"us": SECRET}, rights="user us\ntopic readwrite #\n") as running:
        yield _Mosquitto(running.ports["mqtt"], names)


def mqtt_sender(path: Path) -> AbstractAsyncContextManager[Sender]:
    """A broker, as `mqtt` has it in its settings."""
    return _at_mosquitto(path, {})


def external_sender(path: Path) -> AbstractAsyncContextManager[Sender]:
    """A broker, as `mqtt_external` has it in its settings."""
    return _at_mosquitto(path, {"broker_url": "brokerUrl", "client_id": "clientId"})
