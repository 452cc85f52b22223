"""A storm of notifications becomes few messages, and each notification is in one of them."""

import asyncio
from pathlib import Path

from cloud_sync.contract import Rejected, TooLarge
from tests.cloud_sync.notifications.desk import Channel, open_desk, until


async def test_ten_thousand_in_a_minute_become_few_messages_and_none_is_lost(tmp_path: Path) -> None:
    channel = Channel(rate_limit_per_minute=100)
    async with open_desk(tmp_path, channel) as desk:
        started = desk.clock.now
        for minute in range(6):  # 10 s each
            await asyncio.gather(
                *(
                    desk.send(f"Door {n % 40} is open.", priority="high" if n % 500 == 0 else "low")
                    for n in range(1_667)
                )
            )
            desk.clock.now = max(desk.clock.now, started + minute * 10_000)
        rows = await desk.settled()
        assert len(rows) == 10_002
        assert {row.status for row in rows} == {"sent"}
        assert len(channel.told) == 10_002  # each once
        assert 10 < len(channel.sent) < 40
        assert all(len(one.message.splitlines()) <= 23 for one in channel.sent)
        in_messages = {one.id: len(one.parts) or 1 for one in channel.sent}
        for message_id, count in in_messages.items():
            assert len(await desk.notifier.log.message(message_id)) == count


async def test_the_first_go_alone_and_the_rest_together_the_most_urgent_first(tmp_path: Path) -> None:
    channel = Channel()
    async with open_desk(tmp_path, channel, alone=2) as desk:
        names, _ = await asyncio.gather(
            desk.burst(*(f"Door {n % 3} is open." for n in range(20))),
            desk.burst(*["Fire."] * 4, priority="low", subject="Alarm"),
        )
        await desk.settled()
        alone, together = channel.sent[:-1], channel.sent[-1]
        assert [one.id for one in alone[:2]] == names[:2]
        assert together.kind == "digest"
        assert together.id not in names
        lines = together.message.splitlines()
        assert lines[:4] == [
            "6 x [medium] Door 2 is open.",
            "6 x [medium] Door 0 is open.",
            "6 x [medium] Door 1 is open.",
            "4 x [low] Alarm",
        ]
        assert together.subject == "22 more: 18 medium, 4 low"
        assert "each is in the notification log" in lines[-1]


async def test_a_flood_of_small_things_delays_nothing_urgent(tmp_path: Path) -> None:
    channel = Channel()
    async with open_desk(tmp_path, channel, alone=1, digest_interval_s=3_600) as desk:
        await asyncio.gather(desk.burst(*["noise"] * 50, priority="low"), desk.send("fire", priority="critical"))
        await desk.settled()
        assert channel.told[0] == "fire"
        assert channel.sent[[one.message for one in channel.sent].index("fire")].parts == ()


async def test_a_digest_is_one_organisations_and_for_one_set_of_recipients(tmp_path: Path) -> None:
    channel = Channel()
    async with open_desk(tmp_path, channel, alone=0) as desk:
        groups = [(one, who) for one in ("default", "other") for who in ((), ("a@x.org",))]
        desk.moves.clear()  # all of them within the same moment, however busy the machine is
        await asyncio.gather(*(desk.burst(*["hello"] * 3, organization_id=one, recipients=who) for one, who in groups))
        desk.moves.set()
        await desk.settled()
        assert sorted((one.organization_id, one.recipients, len(one.parts)) for one in channel.sent) == [
            ("default", (), 3),
            ("default", ("a@x.org",), 3),
            ("other", (), 3),
            ("other", ("a@x.org",), 3),
        ]


async def test_a_digest_that_is_too_large_is_halved_and_none_goes_twice(tmp_path: Path) -> None:
    channel = Channel(TooLarge("413"), TooLarge("413"))
    async with open_desk(tmp_path, channel, alone=0) as desk:
        await desk.burst(*(f"number {n}" for n in range(40)))
        rows = await desk.settled()
        assert {row.status for row in rows} == {"sent"}
        taken = [part.message for one in channel.sent[2:] for part in one.parts or (one,)]
        assert sorted(taken) == sorted(f"number {n}" for n in range(40))
        assert len({one.id for one in channel.sent}) == len(channel.sent)


async def test_a_digest_that_is_refused_fails_as_a_whole_and_is_sent_again_as_a_whole(tmp_path: Path) -> None:
    channel = Channel(Rejected("no"))
    async with open_desk(tmp_path, channel, alone=0) as desk:
        names = await desk.burst(*(f"number {n}" for n in range(5)))
        assert {row.status for row in await desk.settled()} == {"failed"}
        await desk.notifier.resend("default", names[3], by="cli")
        assert {row.status for row in await desk.settled()} == {"sent"}
        assert channel.sent[0] == channel.sent[1]


async def test_a_digest_under_way_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = Channel()
    first.hangs = True
    async with open_desk(tmp_path, first, alone=0) as desk:
        await desk.burst(*(f"number {n}" for n in range(5)))
        await until(lambda: len(first.sent) == 1)
        await desk.send("one more")
    second = Channel()
    async with open_desk(tmp_path, second, alone=0) as desk:
        await desk.settled()
        assert second.sent[0] == first.sent[0]
        assert sorted(second.told) == sorted([*(f"number {n}" for n in range(5)), "one more"])


async def test_what_is_large_is_spread_over_several(tmp_path: Path) -> None:
    channel = Channel(batch_max_bytes=20_000)
    async with open_desk(tmp_path, channel, alone=0) as desk:
        await desk.burst(*(f"{n}" * 7_000 for n in range(10)))
        await desk.settled()
        assert [len(one.parts) for one in channel.sent] == [2] * 5
