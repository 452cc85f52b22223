"""What a kept session is told again, and what not."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from cloud_sync.contract import Inbox, Incoming, Line, NotConnected
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, Login
from cloud_sync.integrations.mqtt_client.receiving import Receiving, _Line, _Replies
from tests.cloud_sync.integrations.mqtt_client.fake_broker import FakeBroker, fake_broker
from tests.cloud_sync.samples import ANYWHERE


def at(fake: FakeBroker) -> Broker:
    login = Login("a", is_clean=False)
    return Broker("127.0.0.1", fake.port, uses_tls=False, websocket_path=None, login=login, level=MQTT_5)


class Ending(Inbox):
    """It lets the connection end as soon as messages can come."""

    gateway_id = "site-1"

    def __init__(self, fake: FakeBroker) -> None:
        self.problems: list[str] = []
        self._fake = fake
        self._cut: list[asyncio.Task[None]] = []

    def opened(self, line: Line, problem: str = "") -> None:  # noqa: ARG002 - the contract's
        self.problems.append(problem)
        self._cut.append(asyncio.create_task(self._fake.cut()))

    async def take(self, messages: Sequence[Incoming]) -> None:
        assert not messages

    async def settled(self) -> None:
        """Nothing is owed."""


async def test_a_topic_that_was_refused_is_asked_for_again_and_one_that_was_not_is_not() -> None:
    async with fake_broker(has_session=True, refuses={"b": 0x87}) as fake:
        receiving, inbox = Receiving(at(fake), ("a", "b"), ANYWHERE, timeout_s=5), Ending(fake)
        for _ in range(2):
            assert isinstance(await receiving.receive(inbox), NotConnected)
        fake.refuses.clear()  # its owner has mended our rights
        for _ in range(2):
            await receiving.receive(inbox)
        assert ["hear b" in one for one in inbox.problems] == [True, True, False, False]
        assert fake.subscribed == [["a", "b"]] * 3


async def test_p4_a_reply_that_no_topic_can_carry_holds_up_nothing() -> None:
    async with fake_broker() as fake, aclosing(await open_connection(at(fake), ANYWHERE, timeout_s=5)) as connection:
        line = _Line(connection, 5, _Replies())
        assert await line.reply("x" * 65_536, b"")
        assert await line.reply("x", b"")
        assert [one.topic for one in fake.came] == ["x"]


async def test_p4_a_reply_at_which_the_broker_goes_is_left_out_and_others_are_not() -> None:
    replies, answers = _Replies(), []
    async with fake_broker(cuts_at=b"not this") as fake:
        for _ in range(5):
            async with aclosing(await open_connection(at(fake), ANYWHERE, timeout_s=5)) as connection:
                line = _Line(connection, 5, replies)
                both = (line.reply("hub/1", b"fine"), line.reply("hub/2", b"not this"), line.reply("hub/3", b"fine"))
                answers.append(all(await asyncio.gather(*both)))
        assert answers == [False, False, False, True, True]
        assert "hub/2" in replies.problem
        assert [one.topic for one in fake.came[-2:]] == ["hub/1", "hub/3"]


async def test_p4_of_replies_that_are_sent_at_once_the_one_at_which_the_broker_goes_is_found() -> None:
    """The answers to those before it are lost with the connection."""
    replies = _Replies()
    async with fake_broker(cuts_at=b"not this", late_s=0.02) as fake:
        for _ in range(6):
            async with aclosing(await open_connection(at(fake), ANYWHERE, timeout_s=5)) as connection:
                line = _Line(connection, 5, replies)
                both = (line.reply("hub/1", b"fine"), line.reply("hub/2", b"not this"), line.reply("hub/3", b"fine"))
                fake.came.clear()
                are_done = all(await asyncio.gather(*both))
        assert are_done
        assert "hub/2" in replies.problem
        assert sorted(one.topic for one in fake.came) == ["hub/1", "hub/3"]
