"""After an outage: in order, or what comes now first and the backlog beside it; and what goes out late says so."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import Batch, Ok, Outcome, Rejected
from gateway.model.reading import NewQuarantine, NewReading, TimeSource, wire_reading
from gateway.storage.cursors import Attempt, backlog_of
from gateway.storage.log import Log
from tests.cloud_sync.samples import NOW_MS
from tests.cloud_sync.site import DOWN, Scripted, Site, deliver_all, open_site, running, until


class Wire(Scripted):
    """Sends what is real of a reading, and hears of each batch."""

    def encode(self, batch: Batch) -> bytes:
        return json.dumps([wire_reading(one, gateway_id="g", log_uuid="l") for one in batch.readings]).encode()

    @property
    def historical(self) -> dict[int, bool]:
        readings = [json.loads(body) for _, body in self.sent]
        return {int(one["id"].rpartition(":")[2]): one["historical"] for body in readings for one in body}


async def append(log: Log, count: int, *, monotonic_ms: int = 0) -> None:
    stream = log.stream("default", "a", "boot-1")
    payload = b'{"sensors":{"pir":{"motion_detected":true}}}'
    one = NewReading(stream, None, NOW_MS, TimeSource.DEVICE, NOW_MS, monotonic_ms, payload)
    await log.append([one] * count)


async def leave_backlog(path: Path, count: int) -> None:
    async with open_site(path) as site:
        await append(site.log, count)


async def test_newest_first_overtakes_the_backlog_and_takes_turns(tmp_path: Path) -> None:
    await leave_backlog(tmp_path / "log.db", 8)

    class Busy(Wire):
        """Something new comes with every request of the first four."""

        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if len(self.sent) < 4:
                await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
            return await super().send(batch, body)

    async with open_site(tmp_path / "log.db") as site:
        destination = Busy(catch_up="newest_first", batch_max_readings=2)
        forwarder = await deliver_all(site, destination)
        status = await forwarder.status()
        assert [cursor.name for cursor in await site.log.cursors()] == ["cloud"]
    assert destination.accepted == [1, 2, 9, 3, 4, 10, 11, 5, 6, 12, 7, 8]
    assert [row for row, old in destination.historical.items() if old] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (status.position, status.undelivered, status.backlog) == (12, 0, 0)


async def test_what_fits_into_one_batch_is_no_backlog(tmp_path: Path) -> None:
    await leave_backlog(tmp_path / "log.db", 8)
    async with open_site(tmp_path / "log.db") as site:
        destination = Wire(catch_up="newest_first")
        await deliver_all(site, destination)
    assert destination.sizes == [8]


@pytest.mark.parametrize("catch_up", ["newest_first", "oldest_first"])
async def test_a_backlog_survives_a_restart_and_a_change_of_the_setting(tmp_path: Path, catch_up: str) -> None:
    await leave_backlog(tmp_path / "log.db", 6)

    class Fails(Wire):
        """Takes a batch of the backlog and one that is new; then it fails."""

        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if not self.sent:
                await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
            return await super().send(batch, body)

    async with open_site(tmp_path / "log.db") as site:
        before = Fails(Ok(), Ok(), *[DOWN] * 1_000_000, catch_up="newest_first", batch_max_readings=2)
        async with running(site.forwarder(before)) as forwarder:
            await until(lambda: len(before.sent) > 2)
            status = await forwarder.status()
        assert before.accepted == [1, 2, 7]
        assert (status.position, status.undelivered, status.backlog) == (2, 4, 4)
        assert {one.name: (one.position, one.until) for one in await site.log.cursors()} == {
            "cloud": (7, None),
            "cloud/backlog": (2, 6),
        }
        await append(site.log, 1)
    async with open_site(tmp_path / "log.db") as site:
        after = Wire(catch_up=catch_up, batch_max_readings=2)
        await deliver_all(site, after)
    assert (after.sent[0][0].id, after.sent[0][1]) == (before.sent[2][0].id, before.sent[2][1])
    assert after.accepted == ([3, 4, 5, 6, 8] if catch_up == "oldest_first" else [3, 4, 8, 5, 6])


async def test_p5_overflow_counts_what_each_range_loses(tmp_path: Path) -> None:
    """Of rows 1 to 9, those up to 2 and row 7 are delivered, and 3 and 4 are under way."""
    async with open_site(tmp_path / "log.db") as site:
        log = site.log
        await append(log, 9)
        await log.open_cursor("cloud", start="oldest")
        await log.split_cursor("cloud", 6)
        log.move_cursor(backlog_of("cloud"), 2)
        log.move_cursor("cloud", 7)
        assert await log.freeze(Attempt(backlog_of("cloud"), "msg_1", 2, 4, 2, "00", 0))
        log.bounds._reclaim(6, may_lose=True)
        await log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])  # goes through the same thread, after it
        assert [one.row for one in await log.read(0, limit=20)] == [3, 4, 9]
        loss = await log.loss("cloud")
    assert loss is not None
    assert (loss.readings, loss.first_row, loss.last_row) == (3, 5, 8)


async def test_p5_what_only_the_backlog_needs_stays(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        log = site.log
        await append(log, 9)
        await log.open_cursor("cloud", start="oldest")
        await log.split_cursor("cloud", 6)
        log.move_cursor(backlog_of("cloud"), 2)
        log.move_cursor("cloud", 9)
        log.bounds._reclaim(20, may_lose=False)
        await log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])
        assert [one.row for one in await log.read(0, limit=20)] == [3, 4, 5, 6, 7, 8, 9]
        await log.drop_cursor("cloud")
        assert await log.cursors() == []
        log.bounds._reclaim(20, may_lose=False)
        await log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])
        assert await log.read(0, limit=20) == []


@pytest.mark.parametrize(
    ("waits_s", "settings", "historical"), [(60, {}, False), (61, {}, True), (61, {"min_interval_s": 300}, False)]
)
async def test_what_has_waited_is_historical(
    site: Site, waits_s: int, settings: dict[str, Any], historical: bool
) -> None:
    await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
    site.clock.advance(waits_s * 1000)
    await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
    destination = Wire(**settings)
    await deliver_all(site, destination)
    assert destination.historical == {1: historical, 2: False}


async def test_a_clock_that_jumps_makes_nothing_historical(site: Site) -> None:
    await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
    site.clock.now += 10**10
    destination = Wire()
    await deliver_all(site, destination)
    assert destination.historical == {1: False}


async def test_p2_a_batch_stays_as_it_was_however_long_it_waits(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
        before = Wire(*[DOWN] * 1_000_000)
        async with running(site.forwarder(before)):
            await until(lambda: len(before.sent) > 20)
        await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())
    async with open_site(tmp_path / "log.db") as site:
        after = Wire()
        await deliver_all(site, after)
    assert {(batch.id, body) for batch, body in before.sent} == {(after.sent[0][0].id, after.sent[0][1])}
    assert after.historical == {1: False, 2: True}


async def test_a_replayed_dead_letter_is_historical(site: Site) -> None:
    await append(site.log, 2, monotonic_ms=site.clock.monotonic_ms())
    destination = Wire(Rejected("no"), batch_max_readings=1)
    forwarder = site.forwarder(destination)
    async with running(forwarder):
        await until(lambda: forwarder._live.position == 2)
        await append(site.log, 1, monotonic_ms=site.clock.monotonic_ms())  # takes the move along
        await site.log.dead_letters.request_replay([("cloud", 1)])
        forwarder.replay()
        await until(lambda: 1 in destination.accepted)
    assert [json.loads(body)[0]["historical"] for batch, body in destination.sent if batch.readings[0].row == 1] == [
        False,
        True,
    ]


async def test_p4_a_success_confirms_what_was_refused_in_both_ranges(tmp_path: Path) -> None:
    await leave_backlog(tmp_path / "log.db", 4)

    class Picky(Wire):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if not self.sent:
                await append(site.log, 2, monotonic_ms=site.clock.monotonic_ms())
            if batch.readings[0].row in refused:
                self.sent.append((batch, body))
                return Rejected("not this one")
            return await super().send(batch, body)

    refused = {2, 5}
    async with open_site(tmp_path / "log.db") as site:
        destination = Picky(catch_up="newest_first", batch_max_readings=1)
        await deliver_all(site, destination)
        letters = await site.log.dead_letters.letters()
        assert [letter.reading.row for letter in letters] == [2, 5]
    async with open_site(tmp_path / "log.db") as site:
        assert [letter.provisional for letter in await site.log.dead_letters.letters()] == [False, False]
        assert [one.name for one in await site.log.cursors()] == ["cloud"]
    assert sorted(destination.accepted) == [1, 3, 4, 6]


async def test_p4_a_destination_that_refuses_everything_loses_nothing_of_either_range(tmp_path: Path) -> None:
    await leave_backlog(tmp_path / "log.db", 12)

    class Wrong(Wire):
        mended = False

        async def send(self, batch: Batch, body: bytes) -> Outcome:
            if self.mended:
                return await super().send(batch, body)
            if not self.sent:
                await append(site.log, 12, monotonic_ms=site.clock.monotonic_ms())
            self.sent.append((batch, body))
            self.mended = len(self.sent) > 40
            return Rejected("all is wrong")

    async with open_site(tmp_path / "log.db") as site:
        destination = Wrong(catch_up="newest_first", batch_max_readings=4)
        await deliver_all(site, destination)
        letters = {letter.reading.row for letter in await site.log.dead_letters.letters()}
    assert letters | set(destination.accepted) == set(range(1, 25))
    assert len(letters) < 10


class RefusesAll(Wire):
    """Refuses what it is sent, until it is sent exactly these rows: then it hangs."""

    hangs_at: tuple[int, ...] = ()
    site: Site
    is_reached = False

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        if not self.sent:
            await append(self.site.log, 11, monotonic_ms=self.site.clock.monotonic_ms())
        self.sent.append((batch, body))
        if tuple(one.row for one in batch.readings) == self.hangs_at:
            self.is_reached = True
            await asyncio.get_running_loop().create_future()
        return Rejected("all is wrong")


async def test_p2_only_the_batch_that_is_under_way_is_frozen(tmp_path: Path) -> None:
    """The other range's has had its answer; sent again after a restart, it could pass over what was set aside."""
    await leave_backlog(tmp_path / "log.db", 12)
    async with open_site(tmp_path / "log.db") as site:
        refusing = RefusesAll(catch_up="newest_first", batch_max_readings=4)
        refusing.site, refusing.hangs_at = site, (22, 23)
        async with running(site.forwarder(refusing)):
            await until(lambda: refusing.is_reached)
            under_way = [one.attempt.batch_id for one in await site.log.cursors() if one.attempt is not None]
        assert under_way == [refusing.ids[-1]]
    async with open_site(tmp_path / "log.db") as site:
        after = Wire(catch_up="newest_first", batch_max_readings=4)
        await deliver_all(site, after)
        assert after.ids[0] == refusing.ids[-1]
        letters = {letter.reading.row for letter in await site.log.dead_letters.letters()}
        assert letters | set(after.accepted) == set(range(1, 24))


async def test_the_counts_of_a_backlog_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave_backlog(tmp_path / "log.db", 6)
    async with open_site(tmp_path / "log.db") as site:
        wire = Wire(Ok(), *[DOWN] * 1_000, catch_up="newest_first", batch_max_readings=2)
        async with running(site.forwarder(wire)) as forwarder:
            await until(lambda: len(wire.sent) > 2)
            count_after = site.log.count_after

            async def grows(*arguments: Any) -> tuple[int, int | None]:
                found = await count_after(*arguments)
                await append(site.log, 10)
                return found

            monkeypatch.setattr(site.log, "count_after", grows)
            assert (await forwarder.status()).backlog == 4


@pytest.mark.parametrize("field", ["chosen", "epochs"])
async def test_p4_a_frozen_batch_that_cannot_be_read_goes_out_anew(site: Site, field: str) -> None:
    await append(site.log, 3)
    await site.log.open_cursor("cloud", start="oldest")
    values: dict[str, Any] = {field: "[1,"}
    await site.log.freeze(replace(Attempt("cloud", "m", 0, 3, 3, "00", 0), **values))
    wire = Wire()
    await deliver_all(site, wire)
    assert (wire.accepted, "m" in wire.ids) == ([1, 2, 3], False)


async def test_p4_a_huge_number_is_a_change_and_blocks_nothing(site: Site) -> None:
    stream = site.log.stream("default", "a", "b")
    for value in (b"1.5", b"9" * 400, b"100"):
        payload = b'{"sensors":{"x":{"v":%b}}}' % value
        await site.log.append([NewReading(stream, None, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, payload)])
    wire = Wire(report={"on_change": True, "dead_band": {"x.v": 10}, "heartbeat_s": 300}, start="oldest")
    await deliver_all(site, wire)
    assert wire.accepted == [1, 2, 3]
