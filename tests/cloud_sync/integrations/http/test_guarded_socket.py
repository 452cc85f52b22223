"""Real sockets: an address is decided on where it is connected to, and one that leads nowhere holds up no other."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cloud_sync.egress import Egress
from cloud_sync.integrations.http import guarded_socket
from cloud_sync.integrations.http.guarded_connector import NotAllowed
from cloud_sync.integrations.http.guarded_socket import open_socket
from gateway.config import EgressSettings
from tests.cloud_sync.samples import ANYWHERE


@pytest.fixture
def dead_end() -> Iterator[tuple[str, int]]:
    """An address that neither takes nor refuses connections: what waits there is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        for _ in range(2):
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)  # noqa: FBT003 - its name in the standard library
            waits.connect_ex(full.getsockname())
        yield full.getsockname()


def lead(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one) for one in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)


async def test_an_address_that_leads_nowhere_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, dead_end: tuple[str, int]
) -> None:
    monkeypatch.setattr(guarded_socket, "_EACH_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        lead(monkeypatch, dead_end, server.getsockname())
        async with asyncio.timeout(10):
            with await open_socket("broker.example.com", 1, ANYWHERE) as connection:
                assert connection.getpeername() == server.getsockname()


async def test_p9_a_name_that_leads_to_this_machine_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        lead(monkeypatch, server.getsockname())
        with pytest.raises(NotAllowed):
            await open_socket("broker.example.com", 1, Egress(EgressSettings(policy="public")))
        with pytest.raises(TimeoutError):
            server.accept()
