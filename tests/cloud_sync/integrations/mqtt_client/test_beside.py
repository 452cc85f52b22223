"""What is told beside readings: which of it is to blame for the end of a connection."""

import asyncio
from collections.abc import Sequence

import pytest

from cloud_sync.contract import NotConnected, Ok, Outcome
from cloud_sync.integrations.mqtt_client import suspect
from cloud_sync.integrations.mqtt_client.connection import Broker
from cloud_sync.integrations.mqtt_client.packets import MQTT_311, Login, Message
from cloud_sync.integrations.mqtt_client.publisher import Limits, Publisher
from cloud_sync.rate_limit import RateLimit
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.mqtt_client.fake_broker import FakeBroker, fake_broker
from tests.cloud_sync.samples import ANYWHERE, NOW_MS


class Words:
    """Says the same until somebody has it."""

    filters = ()

    def __init__(self, *messages: tuple[str, bytes]) -> None:
        self.messages = messages
        self.times_told = 0

    def due(self, heard: Sequence[Message], *, is_new: bool) -> Sequence[tuple[str, bytes]]:
        assert is_new or not heard
        return self.messages

    def told(self) -> None:
        self.times_told += 1


def publisher(fake: FakeBroker, words: Words) -> Publisher:
    broker = Broker("127.0.0.1", fake.port, uses_tls=False, websocket_path=None, login=Login("a"), level=MQTT_311)
    rate = RateLimit(ManualClock(NOW_MS), asyncio.sleep, per_minute=0)
    return Publisher(broker, ANYWHERE, rate, Limits(5.0, 10, 1_000), retain=False, one_topic=False, beside=words)


async def sent(it: Publisher) -> Outcome:
    return await it.send([], lambda _: [], None)


async def test_p4_a_connection_that_ends_by_itself_makes_no_message_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    """By MQTT 3.1.1 a broker ends it without a word when another client with our id has come."""
    monkeypatch.setattr(suspect, "_HOLDS_S", 0.3)

    async def comes_again(fake: FakeBroker) -> None:
        while True:
            await asyncio.sleep(0.05)
            await fake.cut()

    words = Words(("a", b"1"), ("b", b"2"))
    async with fake_broker(level=4, hangs=True) as fake:
        it = publisher(fake, words)
        other = asyncio.create_task(comes_again(fake))
        for _ in range(6):
            assert isinstance(await sent(it), NotConnected)
        other.cancel()
        fake.hangs = False
        while await sent(it) != Ok():
            pass
        assert [one.topic for one in fake.came[-2:]] == ["a", "b"]
        await it.close()


async def test_p4_what_is_sent_before_the_one_at_fault_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was on its way with it may have no answer either."""
    monkeypatch.setattr(suspect, "_HOLDS_S", 0.01)
    words = Words(("a", b"1"), ("b", b"bad"), ("c", b"3"))
    async with fake_broker(level=4, cuts_at=b"bad") as fake:
        it = publisher(fake, words)
        fake.hangs = True  # nothing is answered any more
        outcomes = [await sent(it)]
        fake.hangs = False
        outcomes += [await sent(it) for _ in range(4)]
        assert [one == Ok() for one in outcomes] == [False, False, False, False, True]
        assert [one.topic for one in fake.came[-2:]] == ["a", "c"]
        assert await sent(it) == Ok()
        assert words.times_told == 2
        await it.close()
