"""Dead letters that are sent again: those that were asked for, in turns with live readings, none lost or twice."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from cloud_sync.contract import Batch, Gone, NotConnected, Outcome
from tests.cloud_sync.dead_letters import (
    NAME,
    Remote,
    Server,
    Snapshots,
    flush,
    letters,
    replays_settled,
    resume,
    settled,
    snapshotting,
)
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import DOWN, Site, deliver_all, open_site, running, until


async def with_dead_letters(site: Site, server: Server, readings: int = 20) -> None:
    await append(site.log, readings)
    await deliver_all(site, Remote(server))
    assert await letters(site) == sorted(server.poison)


async def request_all(site: Site) -> None:
    await site.log.dead_letters.request_replay(await site.log.dead_letters.keys())


async def test_p4_a_replay_sends_again_what_was_asked_for_and_nothing_else(site: Site) -> None:
    server = Server({3, 7, 8, 15})
    await with_dead_letters(site, server)
    server.poison.clear()
    await site.log.dead_letters.request_replay([(NAME, 7), (NAME, 15), ("another", 3)])
    before = len(server.requests)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await replays_settled(forwarder)
    assert server.requests[before:] == [[7, 15]]
    assert await letters(site) == [3, 8]
    assert (await forwarder.status()).dead_letters == 2


async def test_p4_a_replay_is_taken_up_while_the_gateway_runs(site: Site) -> None:
    server = Server({3})
    await append(site.log, 5)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await until(lambda: forwarder._live.position == 5)
        await flush(site)
        server.poison.clear()
        await site.log.dead_letters.request_replay([(NAME, 3)])
        forwarder.replay()
        await until(lambda: 3 in server.accepted)
        await until(lambda: forwarder._replay._encoded is None)
        assert await letters(site) == []
        assert forwarder._live.position == 5


async def test_p4_a_replay_that_is_refused_again_says_so_and_frees_the_others(site: Site) -> None:
    server = Server({3, 7, 8, 15, 16})
    await with_dead_letters(site, server)
    server.poison = {7, 16}
    site.clock.advance(5_000)
    await request_all(site)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await replays_settled(forwarder)
    left = await site.log.dead_letters.letters()
    assert [(one.reading.row, one.attempts, one.replay_requested) for one in left] == [(7, 2, False), (16, 2, False)]
    assert all(one.last_at_ms - one.first_at_ms == 5_000 for one in left)
    assert {3, 8, 15} <= server.accepted.keys()
    assert all(len(ids) == 1 for ids in server.accepted.values())


async def test_p4_more_than_ten_renewed_rejections_change_nothing_for_live_readings(site: Site) -> None:
    server = Server({*range(2, 10), *range(20, 28)})
    await with_dead_letters(site, server, 40)
    await request_all(site)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await replays_settled(forwarder)
        await append(site.log, 1, first_seq=40)
        await until(lambda: forwarder._live.position == 41)
    assert await letters(site) == sorted(server.poison)
    assert site.waits == []


async def test_p4_a_replay_and_live_readings_take_turns(site: Site) -> None:
    server = Server({*range(1, 9)})
    await with_dead_letters(site, server, 10)
    server.poison.clear()
    await request_all(site)
    await append(site.log, 4, first_seq=10)
    before = len(server.requests)
    await deliver_all(site, Remote(server, batch_max_readings=1))
    assert server.requests[before:][:8] == [[11], [1], [12], [2], [13], [3], [14], [4]]


async def test_p4_a_replay_that_cannot_be_delivered_holds_no_live_reading_up(site: Site) -> None:
    """The destination fails on this very reading: 500 and not 4xx."""

    class Falls(Remote):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if 3 in (reading.row for reading in batch.readings):
                self.sent.append((batch, body))
                return NotConnected("500")
            return await super().send(batch, body)

    server = Server({3})
    await with_dead_letters(site, server, 5)
    await request_all(site)
    destination = Falls(server)
    async with running(site.forwarder(destination)) as forwarder:
        for number in range(20):
            await append(site.log, 1, first_seq=5 + number)
            await until(lambda: forwarder._live.position == site.log.last_row)
        await until(lambda: len([batch for batch, _ in destination.sent if batch.readings[0].row == 3]) > 5)
    assert await letters(site) == [3]
    replays = {batch.id for batch, _ in destination.sent if batch.readings[0].row == 3}
    assert len(replays) == 1, "a retry is the same batch"
    assert site.waits[:3] == [1, 2, 4]


async def test_a_replay_that_succeeds_confirms_what_was_provisional(site: Site) -> None:
    server = Server({2, 5})
    await append(site.log, 5)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await until(settled(forwarder, site))
        assert (await letters(site), await letters(site, provisional=True)) == ([2], [5])
        server.poison.clear()
        await request_all(site)
        forwarder.replay()
        await until(lambda: forwarder._live.position == 5)
        await until(lambda: forwarder._standing.state == "idle")
        assert (await letters(site), await letters(site, provisional=True)) == ([5], [])


async def test_a_destination_that_has_gone_gets_no_replay(site: Site) -> None:
    server = Server({2})
    await with_dead_letters(site, server, 3)
    await request_all(site)
    destination = Remote(server, Gone("no more"))
    async with running(site.forwarder(destination)) as forwarder:
        await until(lambda: forwarder._standing.state == "error")
        await append(site.log, 1, first_seq=3)
        await asyncio.sleep(0.02)
    assert len(destination.sent) == 1
    assert await letters(site) == [2]


async def test_p2_a_crash_at_any_step_of_a_replay_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    server = Server({2, 3, 5, 6, 9})
    (tmp_path / "live").mkdir()
    snapshots = Snapshots(tmp_path / "live", tmp_path, server)
    async with open_site(tmp_path / "live" / "log.db") as site:
        await with_dead_letters(site, server, 10)
        server.poison = {5}
        await request_all(site)
        remote = Remote(server, batch_max_readings=8)
        snapshotting(site, remote, snapshots)
        async with running(site.forwarder(remote)) as forwarder:
            await replays_settled(forwarder)
    assert len(snapshots.taken) > 10
    for copy, known in snapshots.taken:
        assert await resume(copy, known) == [(5, 0, 2)]
        assert sorted(known.accepted) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert all(len(ids) == 1 for ids in known.accepted.values()), "delivered under two ids"


async def test_p2_a_replay_that_is_written_differently_now_gets_a_new_id(tmp_path: Path) -> None:
    server = Server({2})
    ids = []
    for dialect in (b"", b"new release:"):
        async with open_site(tmp_path / "log.db") as site:
            if not dialect:
                await with_dead_letters(site, server, 3)
                await request_all(site)
            destination = Remote(server, *[DOWN] * 10_000)
            destination.dialect = dialect
            async with running(site.forwarder(destination)):
                await until(lambda: bool(destination.sent))  # noqa: B023
            ids.append(destination.ids[0])
    assert len(set(ids)) == 2


async def test_a_dead_letter_outlives_its_row_in_the_log(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        server = Server({2})
        await with_dead_letters(site, server, 3)
        with closing(sqlite3.connect(tmp_path / "log.db")) as db:
            db.execute("DELETE FROM device_telemetry_history")
            db.commit()
        server.poison.clear()
        await request_all(site)
        async with running(site.forwarder(Remote(server))) as forwarder:
            await replays_settled(forwarder)
        assert 2 in server.accepted
