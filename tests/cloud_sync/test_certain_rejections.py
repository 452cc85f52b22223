"""A destination that is known to work may refuse as many readings in a row as it likes: it holds up nothing."""

from pathlib import Path

import pytest

from cloud_sync.contract import Batch, Outcome
from tests.cloud_sync.dead_letters import READINGS, Remote, Server, Snapshots, columns, letters, resume, snapshotting
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import Site, deliver_all, open_site


@pytest.mark.parametrize("names_culprits", [False, True])
async def test_p4_thirty_in_a_row_are_dead_letters_at_once(site: Site, names_culprits: bool) -> None:
    await append(site.log, 100)
    poison = set(range(20, 50)) | {100}
    server = Server(poison, names_culprits=names_culprits, is_certain=True)
    forwarder = await deliver_all(site, Remote(server))
    assert await letters(site) == sorted(poison)
    assert server.order == [row for row in range(1, 101) if row not in poison]
    assert site.waits == []
    status = await forwarder.status()
    assert (status.state, status.delivery, status.undelivered, status.dead_letters) == ("idle", "ok", 0, 31)


async def test_p4_what_is_certain_confirms_what_was_not(site: Site) -> None:
    await append(site.log, 30)
    server = Server(set(range(1, 10)))
    remote = Remote(server)
    real = server.take

    def take(batch: Batch, body: bytes) -> Outcome:
        server.is_certain = batch.readings[0].row > 9
        return real(batch, body)

    server.poison |= set(range(10, 31))
    server.take = take  # type: ignore[method-assign]
    await deliver_all(site, remote)
    assert await letters(site) == list(range(1, 31))
    assert site.waits == []


async def test_p2_a_crash_at_any_step_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    poison = set(range(3, 14))
    server = Server(poison, names_culprits=True, is_certain=True)
    (tmp_path / "live").mkdir()
    snapshots = Snapshots(tmp_path / "live", tmp_path, server)
    async with open_site(tmp_path / "live" / "log.db") as site:
        await append(site.log, READINGS)
        remote = Remote(server, batch_max_readings=8)
        snapshotting(site, remote, snapshots)
        await deliver_all(site, remote)
    for copy, known in snapshots.taken[::3]:
        provisional = columns(copy / "log.db", "SELECT row FROM dead_letters WHERE provisional")
        assert len(provisional) <= 1
        dead = await resume(copy, known)
        assert dead == [(row, 0, 1) for row in sorted(poison)]
        assert known.order == [row for row in range(1, READINGS + 1) if row not in poison]
        assert all(len(ids) == 1 for ids in known.accepted.values())
