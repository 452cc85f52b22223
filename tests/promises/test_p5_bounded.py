"""P5: the store stays within its bounds, loses nothing it need not, and counts what it must lose."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFull
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.operations.buffer import buffer_status
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.reclaim import read_pages
from gateway.storage.space import HIGH_WATER_BYTES, Pages, Space
from tests.broker.raw import RawClient, connect
from tests.promises.dead_ends import refusing_port
from tests.promises.filler import AT_ONCE, READER, a_log, fill, readings
from tests.site import Site, reading, running_site, until

MAX_BYTES = 80_000_000
DAY_MS = 86_400_000


async def test_p5_drop_oldest_stays_below_max_bytes_and_counts_every_loss(tmp_path: Path) -> None:
    done = await fill(tmp_path, StorageSettings(max_bytes=MAX_BYTES, min_free_bytes=0), 300)
    assert (done["acked"], done["refused"]) == (300 * AT_ONCE, 0)
    lost = done["lost"]
    assert isinstance(lost, dict)
    stored = done["stored"]
    assert isinstance(stored, int)
    assert lost["readings"] + stored == 300 * AT_ONCE
    assert (lost["first_row"], lost["last_row"]) == (1, lost["readings"])
    largest = done["largest_bytes"]
    assert isinstance(largest, int)
    assert largest < MAX_BYTES


async def test_p5_reject_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    settings = StorageSettings(max_bytes=MAX_BYTES, min_free_bytes=0, overflow="reject")
    done = await fill(tmp_path, settings, 300)
    assert done["stored"] == done["acked"]
    assert done["lost"] is None
    assert done["reasons"] == {"StoreFull": done["refused"] // AT_ONCE}  # type: ignore[operator]
    assert (done["full"], done["full_after_delivery"]) == (True, False)


@pytest.mark.parametrize("overflow", ["drop_oldest", "reject"])
@pytest.mark.parametrize("others", [False, True], ids=["by us", "by others, too"])
def test_p5_a_small_disk_is_filled(tmp_path: Path, overflow: str, others: bool) -> None:
    """In a namespace of its own, so that anybody may mount a file system of 120 MB."""
    command = [sys.executable, "-m", "tests.promises.filler", str(tmp_path), "--overflow", overflow]
    command += ["--others"] if others else []
    mount = 'mount -t tmpfs -o size=120m tmpfs "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(tmp_path), *command],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    lost = told["lost"]["readings"] if told["lost"] else 0
    assert told["stored"] + lost == told["acked"]
    assert told["full_after_delivery"] is False
    if overflow == "reject":
        assert lost == 0
        assert told["refused"] > 0
    else:
        assert lost > 0


async def test_p5_commits_see_for_themselves_that_room_gets_scarce_and_look_seldom_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a tick: within the second until the next one, more may come than there was room for."""
    room_bytes = Space.room_bytes
    rooms: list[int] = []

    def looked(space: Space, pages: Pages) -> int:
        rooms.append(room_bytes(space, pages))
        return rooms[-1]

    monkeypatch.setattr(Space, "room_bytes", looked)
    async with a_log(tmp_path, StorageSettings(max_bytes=MAX_BYTES, min_free_bytes=0)) as log:
        log.bounds.tick()
        for number in range(120):
            await log.append(readings(log, "b1", number * AT_ONCE))
        await until(lambda: rooms[-1] >= HIGH_WATER_BYTES, "room made")
        assert min(rooms) > 0
        assert await log.loss(READER) is not None
    plenty = [room for room in rooms if room > HIGH_WATER_BYTES * 5 // 4]
    assert 2 <= len(plenty) <= 5, "of a hundred commits that did not have to care"


async def test_p5_readings_are_taken_in_again_with_the_commit_that_finds_room(tmp_path: Path) -> None:
    """Also where the last look at the disk found so much room that a commit need not look."""
    async with a_log(tmp_path, StorageSettings(max_bytes=MAX_BYTES, min_free_bytes=0)) as log:
        log.bounds.tick()
        await log.append(readings(log, "b1", 0))
        log.bounds.full = StoreFull("The store is full.")
        log.move_cursor(READER, 1)
        await until(lambda: log.bounds.full is None, "taken in again")
        await log.append(readings(log, "b1", AT_ONCE))


async def test_p5_a_fresh_log_does_not_count_on_what_there_was_room_for_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a damaged log has left behind takes of that room."""
    async with a_log(tmp_path, StorageSettings(max_bytes=MAX_BYTES, min_free_bytes=0)) as log:
        log.bounds.tick()
        looks: list[Pages] = []

        def look(_: Space, pages: Pages) -> int:
            looks.append(pages)
            return MAX_BYTES

        monkeypatch.setattr(Space, "room_bytes", look)
        await log.append(readings(log, "b1", 0))
        assert not looks
        log.bounds.suspend()
        log.bounds.resume()
        await log.append(readings(log, "b1", AT_ONCE))
        assert len(looks) == 1


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[tuple[Log, ManualClock]]:
    """A log whose clock is ours."""
    clock = ManualClock()
    settings = StorageSettings(retention_days=30, quarantine_max_bytes=10_000)
    async with Log.create(tmp_path / "log.db", settings, clock=clock, metrics=Metrics()) as log:
        yield log, clock


def a_reading(log: Log, clock: ManualClock, seq: int) -> NewReading:
    now = clock.now_ms()
    stream = log.stream("default", "kitchen", "b1")
    return NewReading(stream, seq, now, TimeSource.DEVICE, now, clock.monotonic_ms(), reading(seq=seq))


async def after_a_tick(log: Log) -> int:
    """Return how many readings there are after the store has looked after itself."""
    log.bounds.tick()
    await log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])  # goes through the same thread, after it
    return (await log.buffer()).readings


async def test_p5_retention_takes_what_is_old_and_delivered(log: tuple[Log, ManualClock]) -> None:
    store, clock = log
    store.bounds.readers["api"] = 0
    await store.open_cursor("api", start="oldest")
    await store.append([a_reading(store, clock, seq) for seq in range(10)])
    await store.learn_clock()
    clock.advance(29 * DAY_MS)
    await store.append([a_reading(store, clock, 10)])
    store.move_cursor("api", 4)
    assert await after_a_tick(store) == 11
    clock.advance(2 * DAY_MS)
    assert await after_a_tick(store) == 7, "the reader still needs what is after row 4"
    store.move_cursor("api", 11)
    assert await after_a_tick(store) == 1, "the youngest is not old enough"
    assert await store.loss("api") is None


async def test_p5_retention_does_not_believe_a_clock_that_is_not_synchronised(log: tuple[Log, ManualClock]) -> None:
    store, clock = log
    await store.append([a_reading(store, clock, 1)])
    await store.learn_clock()
    clock.advance(400 * DAY_MS)
    clock.synced = False
    assert await after_a_tick(store) == 1
    clock.synced = True
    assert await after_a_tick(store) == 0


async def test_p5_rows_of_an_attempt_under_way_stay(log: tuple[Log, ManualClock]) -> None:
    store, clock = log
    store.bounds.readers["api"] = 0
    await store.open_cursor("api", start="oldest")
    await store.append([a_reading(store, clock, seq) for seq in range(10)])
    assert await store.freeze(Attempt("api", "msg_1", 0, 3, 3, "00", 0))
    store.bounds._settings = StorageSettings(overflow="drop_oldest")
    store.bounds._reclaim(5, may_lose=True)
    await store.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])
    assert [one.row for one in await store.read(0, limit=20)][:4] == [1, 2, 3, 9]
    loss = await store.loss("api")
    assert loss is not None
    assert (loss.readings, loss.first_row, loss.last_row) == (5, 4, 8)


async def test_p5_a_batch_whose_rows_have_left_is_not_frozen(log: tuple[Log, ManualClock]) -> None:
    store, clock = log
    await store.open_cursor("api", start="oldest")
    await store.append([a_reading(store, clock, seq) for seq in range(10)])
    store.bounds._reclaim(2, may_lose=True)
    assert not await store.freeze(Attempt("api", "msg_1", 0, 5, 5, "00", 0))
    assert await store.freeze(Attempt("api", "msg_2", 0, 5, 3, "00", 0))


async def pages_of(store: Log) -> Pages:
    """Return how the file is used now, which not every commit tells."""
    seen: list[Pages] = []
    await store.outside_transaction(lambda db: seen.append(read_pages(db)))
    return seen[0]


async def test_p5_space_is_given_back_in_steps_that_nobody_waits_for(
    log: tuple[Log, ManualClock], tmp_path: Path
) -> None:
    store, clock = log
    stream = store.stream("default", "kitchen", "b1")
    now = clock.now_ms()
    for first in range(0, 30_000, 5_000):
        seqs = range(first, first + 5_000)
        await store.append([NewReading(stream, n, now, TimeSource.DEVICE, now, 0, b"%01000d" % n) for n in seqs])
    await store.learn_clock()
    clock.advance(31 * DAY_MS)
    store.bounds.tick()
    async with asyncio.timeout(20):
        while (await store.buffer()).readings:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    before = (tmp_path / "log.db").stat().st_size
    steps: list[int] = []
    pages = await pages_of(store)
    async with asyncio.timeout(20):
        while (last := pages).free_bytes > 16_000_000:
            store.bounds.tick()
            await store.append([a_reading(store, clock, 100_000 + len(steps))])
            pages = await pages_of(store)
            steps.append(last.count - pages.count)
    await store.outside_transaction(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").close())
    left = (tmp_path / "log.db").stat().st_size
    assert left < before - 10_000_000
    assert max(steps) <= 512, "two megabytes at once at most, with a commit between"


async def test_p5_nothing_leaves_before_it_is_known_who_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that has a full log to itself knows no destinations: what they need must not count as delivered."""
    settings = StorageSettings()
    async with Log.create(tmp_path / "log.db", settings, clock=ManualClock(), metrics=Metrics()) as store:
        await store.open_cursor("api", start="oldest")
        await store.append([a_reading(store, ManualClock(), seq) for seq in range(10)])
    monkeypatch.setattr(Space, "room_bytes", lambda *_: 0)
    async with Log.create(tmp_path / "log.db", settings, clock=ManualClock(), metrics=Metrics()) as store:
        await store.dead_letters.drop([("api", 1)])
        await store.append([a_reading(store, ManualClock(), 10)])
        await store.append([a_reading(store, ManualClock(), 11)])
        assert (await store.buffer()).readings == 12


async def test_p5_quarantine_has_its_own_bound(log: tuple[Log, ManualClock]) -> None:
    store, _ = log
    for number in range(20):
        await store.append([NewQuarantine("o", "d", "s", "c", f"{number}", 0, b"x" * 800)])
        _, kept = zip(*await store.quarantined(), strict=True)
        assert sum(len(entry.payload) + 200 for entry in kept) <= 10_000, "kept by each commit, not by the clock"
    assert [entry.reason for entry in kept] == [str(number) for number in range(10, 20)]


async def test_p5_dead_letters_have_their_own_bound_and_what_leaves_is_reported(tmp_path: Path) -> None:
    with refusing_port() as port:
        webhook = {"type": "webhook", "name": "api", "url": f"http://127.0.0.1:{port}/", "start": "oldest"}
        async with running_site(tmp_path, integrations=[webhook], storage={"dead_letters_max_bytes": 2_000}) as site:
            for seq in range(10):
                await site.log.append([a_reading(site.log, site.clock, seq)])
                (one,) = await site.log.read(seq, limit=1)
                await site.log.dead_letters.set_aside("api", one, "HTTP 422", site.clock.now_ms())
                site.log.move_cursor("api", one.row)
                site.log._flush_moves()
                await site.log._idle.wait()
            report = await site.command(buffer_status)
            (place,) = report.destinations
            assert place.dead_letters_lost is not None
            left = place.dead_letters_lost
            assert (left.readings + place.dead_letters, left.first_row, left.last_row) == (10, 1, left.readings)
            assert 0 < place.dead_letters < 10
            async with site.http.get(site.url("/ready")) as answer:
                assert answer.status == 200, "dead letters keep nobody from being taken in"
                (destination,) = (await answer.json())["destinations"]
            assert destination["dead_letters_lost"]["readings"] == left.readings
            dropped = 'neurogate_events_dropped_total{destination="api",reason="dead_letters_full"}'
            assert await site.metric(dropped) == left.readings


async def test_p5_freed_pages_go_back_to_the_disk(tmp_path: Path) -> None:
    settings = StorageSettings(max_bytes=MAX_BYTES * 2, min_free_bytes=0)
    async with Log.create(tmp_path / "log.db", settings, clock=ManualClock(), metrics=Metrics()) as store:
        clock = ManualClock()
        await store.append([a_reading(store, clock, seq)._replace(payload=b"x" * 600) for seq in range(80_000)])
        store.bounds._reclaim(70_000, may_lose=False)
        await store.append([a_reading(store, clock, 80_001)])
        before = store.size_bytes()
        for _ in range(10):
            await after_a_tick(store)
        store._files.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await after_a_tick(store)
        assert store.size_bytes() < before - 10_000_000


async def test_p5_a_full_store_turns_clients_away_until_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.log.bounds, "_settings", StorageSettings(overflow="reject"))
    async with RawClient.login(site) as client:
        with monkeypatch.context() as full:
            full.setattr(Space, "room_bytes", lambda *_: 0)
            site.log.bounds.tick()
            await until(lambda: site.log.bounds.full is not None, "the store is full")
            assert await client.rest() == b""
            hello = connect("raw", site.kitchen.username, site.kitchen.password)
            async with RawClient.open(site, hello) as refused:
                assert await refused.read(4) == b"\x20\x02\x00\x03"
            headers = {"x-api-key": site.kitchen.password, "content-type": "application/json"}
            async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(), headers=headers) as answer:
                assert answer.status == 503
                assert "Retry-After" in answer.headers
            async with site.http.get(site.url("/ready")) as answer:
                assert answer.status == 503
                assert (await answer.json())["problems"][0].startswith("The store is full")
    site.log.bounds.tick()
    await until(lambda: site.log.bounds.full is None, "there is room again")
    async with RawClient.login(site):
        pass
