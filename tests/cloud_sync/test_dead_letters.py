"""Rejections: the culprit alone becomes a dead letter, on disk at every moment."""

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cloud_sync.backoff import LONGEST_WAIT_S
from cloud_sync.contract import AuthFailed, Batch, Outcome, TooLarge
from cloud_sync.forwarder import LONE_REJECTIONS, Forwarder
from tests.cloud_sync.dead_letters import (
    NAME,
    READINGS,
    Remote,
    Server,
    Snapshots,
    columns,
    flush,
    letters,
    resume,
    settled,
    snapshotting,
)
from tests.cloud_sync.samples import NOW_MS, append
from tests.cloud_sync.site import Scripted, Site, deliver_all, open_site, running, until


@pytest.mark.parametrize(("poison", "most"), [({1}, 26), ({2345}, 26), ({4999}, 26), ({7, 8, 9, 2500, 4000}, 90)])
async def test_p4_exactly_the_culprits_become_dead_letters(site: Site, poison: set[int], most: int) -> None:
    await append(site.log, 5_001)
    server = Server(poison)
    destination = Remote(server, batch_max_bytes=10_000_000)
    forwarder = await deliver_all(site, destination)
    assert await letters(site) == sorted(poison)
    assert server.order == [row for row in range(1, 5_002) if row not in poison]
    assert all(len(ids) == 1 for ids in server.accepted.values())
    assert len(destination.sent) <= most
    status = await forwarder.status()
    assert (status.state, status.undelivered, status.dead_letters, status.last_error) == ("idle", 0, len(poison), "")
    assert site.metric("neurogate_dead_letters") == len(poison)
    assert site.waits == []


async def test_p4_named_culprits_are_cut_out_at_once(site: Site) -> None:
    await append(site.log, 1_000)
    server = Server({100, 101, 900}, names_culprits=True)
    await deliver_all(site, Remote(server))
    assert await letters(site) == [100, 101, 900]
    assert [len(rows) for rows in server.requests] == [1000, 99, 1, 1, 798, 1, 100]


async def test_p4_a_dead_letter_says_what_it_is(site: Site) -> None:
    await append(site.log, 3)
    await deliver_all(site, Remote(Server({2})))
    await flush(site)
    (letter,) = await site.log.dead_letters.letters()
    (reading,) = await site.log.read(1, limit=1)
    assert letter.reading == reading
    assert letter.key == (NAME, 2)
    assert (letter.reason, letter.attempts, letter.provisional) == ("cannot be read", 1, False)
    assert letter.first_at_ms == letter.last_at_ms == NOW_MS


async def test_p4_one_reading_too_large_is_a_dead_letter_too(site: Site) -> None:
    class Narrow(Scripted):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if 3 in (reading.row for reading in batch.readings):
                return TooLarge("over 256 KB")
            return await super().send(batch, body)

    await append(site.log, 6)
    destination = Narrow()
    await deliver_all(site, destination)
    assert destination.accepted == [1, 2, 4, 5, 6]
    assert await letters(site) == [3]


async def test_p4_a_limit_on_the_size_and_poison_together(site: Site) -> None:
    await append(site.log, 300)
    server = Server({77, 200}, takes_at_most=20)
    await deliver_all(site, Remote(server))
    assert await letters(site) == [77, 200]
    assert server.order == [row for row in range(1, 301) if row not in {77, 200}]
    assert site.waits == []


async def test_p4_the_newest_reading_stays_provisional_until_something_succeeds(tmp_path: Path) -> None:
    server = Server({3})
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 3)
        async with running(site.forwarder(Remote(server))) as forwarder:
            await until(settled(forwarder, site))
            await until(lambda: forwarder._standing.state == "error")
            status = await forwarder.status()
        assert (status.position, status.undelivered, status.dead_letters) == (2, 1, 0)
        assert status.last_error == "cannot be read"
        assert (await letters(site), await letters(site, provisional=True)) == ([], [3])
    requests = len(server.requests)
    async with open_site(tmp_path / "log.db") as site:  # also after a restart
        async with running(site.forwarder(Remote(server))) as forwarder:
            await until(lambda: forwarder._standing.state == "error")
            site.clock.advance(7_000)
            assert site.metric("neurogate_buffer_oldest_seconds") == 7
            await asyncio.sleep(0.05)
            assert len(server.requests) == requests, "it is not sent again by itself"
            assert columns(tmp_path / "log.db", "SELECT position FROM cursors") == [(2,)]
            await append(site.log, 1, first_seq=3)
            await until(lambda: forwarder._live.position == 4)
            assert (await forwarder.status()).state in {"sending", "idle"}
        assert server.order == [1, 2, 4]
    # the move and the confirmation were one commit
    assert columns(tmp_path / "log.db", "SELECT position FROM cursors") == [(4,)]
    assert columns(tmp_path / "log.db", "SELECT row, provisional FROM dead_letters") == [(3, 0)]


async def test_p4_the_cursor_and_its_dead_letters_move_in_one_commit(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 3)
        destination = Remote(Server({2}))
        forwarder = await deliver_all(site, destination)
        assert forwarder._live.position == 3
        on_disk = "SELECT (SELECT position FROM cursors), provisional FROM dead_letters"
        assert columns(tmp_path / "log.db", on_disk) == [(1, 1)]  # the move waits for a commit, and so does the other
        await until(lambda: columns(tmp_path / "log.db", on_disk) == [(3, 0)])


async def test_p4_erased_readings_confirm_nothing(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 2)
        server = Server({1})
        destination = Remote(server, batch_max_readings=1)
        with closing(sqlite3.connect(tmp_path / "log.db")) as db:
            db.execute("DELETE FROM device_telemetry_history WHERE id = 2")
            db.commit()
        async with running(site.forwarder(destination)) as forwarder:
            await until(settled(forwarder, site))
            assert (forwarder._live.position, await letters(site, provisional=True)) == (0, [1])


async def refuse_everything(site: Site, forwarder: Forwarder, *, rounds: int) -> list[float]:
    """Run until it has waited so often; returns the waits."""
    waits: list[float] = []
    passed, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == rounds:
            passed.set()
            await go_on.wait()
        await site.sleep(seconds)

    forwarder._sleep = sleep
    async with running(forwarder):
        async with asyncio.timeout(10):
            await passed.wait()
        status = await forwarder.status()
        assert (status.state, status.position, status.dead_letters) == ("error", 0, 0)
        assert "10 readings in a row were refused" in status.last_error
        assert await site.log.dead_letters.letters() == []
    return waits


@pytest.mark.parametrize("readings", [10, 11, 40, 1000])
async def test_p4_ten_in_a_row_are_the_destinations_error(
    site: Site, readings: int, caplog: pytest.LogCaptureFixture
) -> None:
    await append(site.log, readings)
    server = Server(set(range(1, readings + 1)))
    waits = await refuse_everything(site, site.forwarder(Remote(server)), rounds=5)
    assert waits == [LONGEST_WAIT_S] * 5
    first_round, second_round = server.requests[:-40], server.requests[-10:]
    assert len(first_round) < 60
    assert second_round == [[row] for row in range(1, 11)], "after that, it asks with single readings"
    assert caplog.text.count("delivery failed") == 1
    server.poison.clear()
    await deliver_all(site, Remote(server))
    assert server.order == list(range(1, readings + 1))
    assert all(len(ids) == 1 for ids in server.accepted.values())
    assert await site.log.dead_letters.letters() == []


async def test_p4_a_destination_that_is_repaired_while_it_waits_gets_everything(site: Site) -> None:
    await append(site.log, 500)
    server = Server(set(range(1, 501)))
    forwarder = site.forwarder(Remote(server))
    sleep = site.sleep

    async def repaired(seconds: float) -> None:
        server.poison = {3}  # one of them was really bad
        await sleep(seconds)

    forwarder._sleep = repaired
    async with running(forwarder):
        await until(lambda: forwarder._live.position == 500)
        status = await forwarder.status()
    assert await letters(site) == [3]
    assert server.order == [row for row in range(1, 501) if row != 3]
    assert (status.failures, status.last_error) == (0, "")
    assert len(server.requests[-1]) > 50, "and in large batches again"


async def test_p4_nine_in_a_row_are_bad_records(site: Site) -> None:
    await append(site.log, 100)
    poison = set(range(20, 20 + LONE_REJECTIONS - 1)) | set(range(50, 50 + LONE_REJECTIONS - 1))
    server = Server(poison)
    await deliver_all(site, Remote(server))
    assert await letters(site) == sorted(poison)
    assert site.waits == []


async def test_p4_ten_in_a_row_count_over_a_restart(tmp_path: Path) -> None:
    server = Server(set(range(1, 100)))
    for run in range(3):
        async with open_site(tmp_path / "log.db") as site:
            await append(site.log, 3, first_seq=3 * run)
            async with running(site.forwarder(Remote(server))) as forwarder:
                await until(settled(forwarder, site))
            assert await letters(site, provisional=True) == list(range(1, 3 * run + 4))
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 1, first_seq=9)
        await refuse_everything(site, site.forwarder(Remote(server)), rounds=1)


async def test_p4_a_wrong_address_among_rejections_is_no_rejection(site: Site) -> None:
    await append(site.log, 4)
    server = Server({1, 2})
    destination = Remote(server, *[AuthFailed("who?")] * 12)
    await deliver_all(site, destination)
    assert await letters(site) == [1, 2]
    assert site.waits == [LONGEST_WAIT_S] * 12


async def test_rejections_are_logged_where_they_happen_and_when_they_are_final(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cloud_sync")
    await append(site.log, 8)
    await deliver_all(site, Remote(Server({2, 3})))
    assert [record.getMessage() for record in caplog.records] == [
        "a reading was refused and is set aside: cannot be read",
        "a reading was refused and is set aside: cannot be read",
        "refused readings are dead letters now; see: neurogate buffer dead-letters",
    ]
    assert [getattr(record, "row", None) for record in caplog.records] == [2, 3, None]


async def test_giving_up_a_place_forgets_what_was_provisional(site: Site) -> None:
    server = Server({2, 4})
    await append(site.log, 4)
    async with running(site.forwarder(Remote(server))) as forwarder:
        await until(settled(forwarder, site))
    await site.log.drop_cursor(NAME)
    assert [letter.reading.row for letter in await site.log.dead_letters.letters()] == [2]


# A crash at every step


@pytest.mark.parametrize("poison", [{5, 11}, {1}, {8, 9}, {2, 3, 4, 5, 6, 7}])
@pytest.mark.parametrize("names_culprits", [False, True])
async def test_p2_a_crash_at_any_step_of_a_split_loses_and_duplicates_nothing(
    tmp_path: Path, poison: set[int], names_culprits: bool
) -> None:
    server = Server(poison, names_culprits=names_culprits)
    (tmp_path / "live").mkdir()
    snapshots = Snapshots(tmp_path / "live", tmp_path, server)
    async with open_site(tmp_path / "live" / "log.db") as site:
        await append(site.log, READINGS)
        remote = Remote(server, batch_max_readings=8)
        snapshotting(site, remote, snapshots)
        await deliver_all(site, remote)
    assert len(snapshots.taken) > 2 * len(poison)
    for copy, known in snapshots.taken:
        provisional = columns(copy / "log.db", "SELECT row FROM dead_letters WHERE provisional")
        answered = [known.requests.count([row]) for (row,) in provisional]
        dead = await resume(copy, known)
        assert answered == [known.requests.count([row]) for (row,) in provisional], "asked again about an answer"
        assert dead == [(row, 0, 1) for row in sorted(poison)]
        assert known.order == [row for row in range(1, READINGS + 1) if row not in poison]
        assert all(len(ids) == 1 for ids in known.accepted.values()), "delivered under two ids"


async def test_p2_a_crash_at_any_step_of_ten_rejections_withdraws_or_repeats_them(tmp_path: Path) -> None:
    server = Server(set(range(1, READINGS + 1)))
    (tmp_path / "live").mkdir()
    snapshots = Snapshots(tmp_path / "live", tmp_path, server)
    async with open_site(tmp_path / "live" / "log.db") as site:
        await append(site.log, READINGS)
        remote = Remote(server, batch_max_readings=8)
        snapshotting(site, remote, snapshots)
        await refuse_everything(site, site.forwarder(remote), rounds=2)
    for copy, known in snapshots.taken:
        async with open_site(copy / "log.db") as site:
            await refuse_everything(site, site.forwarder(Remote(known, batch_max_readings=8)), rounds=1)
        known.poison.clear()
        assert await resume(copy, known) == []
        assert known.order == list(range(1, READINGS + 1))
