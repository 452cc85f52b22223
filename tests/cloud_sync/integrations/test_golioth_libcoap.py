"""Golioth's protocols by somebody else: libcoap's server, with a right and a wrong key, hanging, gone and back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import AuthFailed, Batch, NotConnected, Ok
from cloud_sync.integrations.coap import session
from cloud_sync.integrations.golioth import Golioth
from tests.cloud_sync.integrations.clouds import golioth
from tests.cloud_sync.integrations.coap_server import KEY, CoapServer, coap_server
from tests.cloud_sync.samples import batch, sent, stored


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CoapServer]:
    with coap_server(tmp_path) as server:
        yield server


def made(server: CoapServer, **settings: Any) -> Golioth:
    mine: dict[str, Any] = {"psk_id": "gateway@p", "psk": KEY, "timeout_s": 1.0}
    return golioth.made(port=server.port, **mine | settings)


async def delivered(it: Golioth, given: Batch) -> None:
    """Send until it is taken: a server that has just been started does not listen yet."""
    for _ in range(200):
        if await sent(it, given) == Ok():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await sent(it, given))


async def test_it_takes_messages_and_blocks_and_learns_who_sends(server: CoapServer) -> None:
    async with made(server) as it:
        await delivered(it, batch(7))
        large = Batch("m", [stored(9, {"sensors": {"camera": {"seen": "x" * 3_000}}})], "site-1", "log-1")
        assert await sent(it, large) == Ok()
        assert [finding.level for finding in await it.check()] == ["ok"]
    assert "Uri-Path:.s, Uri-Path:readings, Content-Format:application/json" in server.posted[0]
    assert '"id":"site-1:log-1:1"' in server.posted[0]
    assert len(server.posted) == 3 + 4
    assert "Block1:3/_/1024" in server.posted[-1]


async def test_it_is_silent_about_a_wrong_key_and_we_are_not(
    server: CoapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_REFUSED_AFTER_S", 0.0)
    async with made(server) as it:
        await delivered(it, batch())
    async with made(server, psk="another key", timeout_s=0.5) as it:
        assert [type(await sent(it, batch())) for _ in range(3)] == [NotConnected, NotConnected, AuthFailed]
        (finding,) = await it.check()
        assert (finding.level, "does not take the key" in finding.words) == ("broken", True)


async def test_it_hangs_it_goes_and_it_comes_back(server: CoapServer) -> None:
    async with made(server, timeout_s=0.5) as it:
        await delivered(it, batch())
        server.pause()
        outcome = await sent(it, batch(message_id="msg_2"))
        assert isinstance(outcome, NotConnected)
        assert outcome.sent
        server.stop()
        outcome = await sent(it, batch(message_id="msg_2"))
        assert isinstance(outcome, NotConnected)
        assert not outcome.sent
        server.start()
        await delivered(it, batch(message_id="msg_2"))
