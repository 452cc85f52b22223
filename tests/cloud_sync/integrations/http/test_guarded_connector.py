"""Real sockets: what egress forbids is not even connected to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from cloud_sync.contract import NotConnected, Ok, Outcome, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import NotAllowed, guarded_connector
from cloud_sync.integrations.http.signed_post import SignedPost
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from tests.ports import LOOPBACKS


@dataclass
class Listener:
    """On every address of this machine."""

    port: int = 0
    connections: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    async with await asyncio.start_server(listener.answer, sock=both):
        listener.port = both.getsockname()[1]
        yield listener


def egress(policy: str, *allow: str) -> Egress:
    return Egress(EgressSettings.model_validate({"policy": policy, "allow": allow}))


async def post(url: str, egress: Egress) -> Outcome:
    async with SignedPost(url, [], ManualClock(), egress, timeout_s=5) as post:
        return await post.send("msg_1", b"{}")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "localhost"]
)
async def test_p9_no_way_of_writing_it_leads_to_this_machine(listener: Listener, host: str) -> None:
    for policy in ("public", "lan"):
        outcome = await post(f"http://{host}:{listener.port}/", egress(policy))
        assert isinstance(outcome, WrongAddress)
        assert "is not allowed by egress; to allow it, see egress.policy and egress.allow" in outcome.reason
    assert listener.connections == 0
    leads_here = host not in ("[::1]", "[::]") or "::1" in LOOPBACKS
    assert (await post(f"http://{host}:{listener.port}/", egress("any")) == Ok()) == leads_here
    assert listener.connections == leads_here


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
async def test_p9_nor_does_a_number_that_a_resolver_takes_for_an_address(listener: Listener, host: str) -> None:
    outcome = await post(f"http://{host}:{listener.port}/", egress("lan"))
    assert isinstance(outcome, WrongAddress | NotConnected)
    assert listener.connections == 0


async def test_what_is_allowed_besides_is_connected_to(listener: Listener) -> None:
    assert await post(f"http://localhost:{listener.port}/", egress("public", "LOCALHOST")) == Ok()
    assert await post(f"http://127.0.0.1:{listener.port}/", egress("public", "127.0.0.0/8")) == Ok()
    assert isinstance(await post(f"http://127.0.0.1:{listener.port}/", egress("public", "localhost")), WrongAddress)


class Answers(AbstractResolver):
    """Tells these addresses, whatever the name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0) for one in self.addresses
        ]

    async def close(self) -> None:
        pass


async def get(listener: Listener, egress: Egress, *addresses: str) -> int:
    connector = guarded_connector(egress, "cloud.example", keepalive_s=1, connections=1)
    connector._resolver = Answers(*addresses)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://cloud.example:{listener.port}/") as answer,
    ):
        return answer.status


async def test_p9_a_name_that_leads_to_a_forbidden_address_is_not_connected(listener: Listener) -> None:
    with pytest.raises(aiohttp.ClientConnectorError) as raised:
        await get(listener, egress("lan"), "127.0.0.1", "::1", "169.254.169.254")
    assert isinstance(raised.value.os_error, NotAllowed)
    assert listener.connections == 0


async def test_of_several_addresses_the_allowed_ones_are_tried(listener: Listener) -> None:
    assert await get(listener, egress("public", "127.0.0.2"), "169.254.169.254", "127.0.0.1", "127.0.0.2") == 204
    assert listener.connections == 1
