"""What the broker keeps for others is bounded by bytes, and given back exactly when it goes."""

from pathlib import Path

import pytest

from gateway.broker.kept import Room, Share, kept_bytes
from tests.broker.raw import DISCONNECT, RawClient, connect, puback, publish
from tests.broker.test_limits import STATUS, dropped, leave_behind, subscriber
from tests.site import Site, running_site, until

ONE = 1_000
"""What each message of these tests takes."""


def payload(topic: str = STATUS) -> bytes:
    return b"x" * (ONE - kept_bytes(f"default/{topic}", b""))


def waiting(site: Site) -> int:
    """Return what all outboxes take."""
    return site.gateway._running.door.delivery.sessions.outbox_bytes


def retained(site: Site) -> int:
    return site.gateway._running.door.delivery.retained.used_bytes


async def say(board: RawClient, topic: str, data: bytes, *, retain: bool = False) -> None:
    board.send(publish(topic, data, qos=1, retain=retain))
    await board.expect(puback(1))


def test_a_queue_takes_no_more_than_it_leaves() -> None:
    whole = Room(10)
    one, other = Share(whole), Share(whole)
    assert [one.take(2), one.take(2), one.take(1), one.take(1)] == [True, True, True, False]
    assert [other.take(2), other.take(1)] == [True, False]
    one.close()
    assert whole.used == 2
    one.give(5)  # what was on its way when it was closed
    assert whole.used == 2
    assert other.take(3)


def test_the_whole_room_can_be_taken_by_retained_messages() -> None:
    whole = Room(10)
    assert [whole.take(6), whole.take(5), whole.take(4), whole.take(1)] == [True, False, True, False]
    whole.give(4)
    assert whole.take(3)


async def test_p5_retained_messages_are_bounded_by_bytes_and_given_back(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"retained_max_bytes": 3 * ONE}) as site,
        RawClient.login(site) as board,
    ):
        topics = [f"{STATUS}/{number}" for number in range(5)]
        for topic in topics:
            await say(board, topic, payload(topic), retain=True)
        assert (retained(site), await dropped(site, "retained_full")) == (3 * ONE, 2)
        await say(board, topics[0], payload(topics[0])[1:], retain=True)  # replaced by a smaller one
        assert retained(site) == 3 * ONE - 1
        await say(board, topics[1], payload(topics[1]) + b"xx", retain=True)  # too large: the old one stays
        assert (retained(site), await dropped(site, "retained_full")) == (3 * ONE - 1, 3)
        await say(board, topics[1], b"", retain=True)
        assert retained(site) == 2 * ONE - 1
        await say(board, topics[1], b"", retain=True)  # there is none any more
        await say(board, topics[4], payload(topics[4]), retain=True)
        assert (retained(site), await dropped(site, "retained_full")) == (3 * ONE - 1, 3)
        for topic in topics:
            await say(board, topic, b"", retain=True)
        assert retained(site) == 0


async def test_p5_retained_messages_are_bounded_by_their_number(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"retained_max_messages": 2}) as site,
        RawClient.login(site) as board,
    ):
        for number in (1, 2, 3, 2):
            await say(board, f"{STATUS}/{number}", b"x", retain=True)
        assert (len(site.gateway._running.door.delivery.retained), await dropped(site, "retained_full")) == (2, 1)
        await say(board, f"{STATUS}/1", b"", retain=True)
        await say(board, f"{STATUS}/3", b"x", retain=True)
        assert (len(site.gateway._running.door.delivery.retained), await dropped(site, "retained_full")) == (2, 1)


async def test_p5_what_waits_for_a_client_that_is_away_is_bounded_by_bytes(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"outbox_max_bytes": 6 * ONE}) as site:
        await leave_behind(site, "sleeper")
        async with RawClient.login(site, client_id="board") as board:
            for _ in range(5):
                await say(board, STATUS, payload())
        assert (waiting(site), await dropped(site, "outbox_full")) == (3 * ONE, 2)
        back = connect("sleeper", site.kitchen.username, site.kitchen.password, clean=False)
        async with RawClient.open(site, back) as client:
            await client.packet()
            for _ in range(3):
                packet = await client.read(len(publish(STATUS, payload(), qos=1)))
                client.send(b"\x40\x02" + packet.removesuffix(payload())[-2:])
            await until(lambda: waiting(site) == 0, "the room given back")


@pytest.mark.parametrize("how", ["clean session", "one too many"])
async def test_p5_a_session_that_goes_gives_its_room_back(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_site(tmp_path) as site:
        await leave_behind(site, "sleeper")
        async with RawClient.login(site, client_id="board") as board:
            await say(board, STATUS, payload())
        assert waiting(site) == ONE
        if how == "clean session":
            async with RawClient.login(site, client_id="sleeper") as client:
                client.send(DISCONNECT)
                await client.rest()
        else:
            monkeypatch.setattr("gateway.broker.sessions.SESSIONS_KEPT", 1)
            await leave_behind(site, "another")
        await until(lambda: waiting(site) == 0, "the room given back")


async def test_p5_what_waits_for_a_client_that_acknowledges_nothing_is_bounded_by_bytes(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"outbox_max_bytes": 10 * ONE}) as site:
        async with subscriber(site, "silent", qos=1), RawClient.login(site, client_id="board") as board:
            for _ in range(9):
                await say(board, STATUS, payload())
            assert (waiting(site), await dropped(site, "outbox_full")) == (5 * ONE, 4)
        await until(lambda: waiting(site) == 0, "the room given back")
