"""P10: whatever the clocks of gateway and board do, a reading's time is right or says what it is."""

import ast
import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from cloud_sync.contract import AuthFailed, Batch, NotConnected, Outcome
from cloud_sync.forwarder import Forwarder
from cloud_sync.integrations.webhook import Webhook
from cloud_sync.payload.readings_batch import readings_batch
from cloud_sync.rate_limit import RateLimit
from cloud_sync.receiver.server import Receiver
from gateway.access import Device
from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import StoredReading, TimeSource, rfc3339
from gateway.rate_limit import RateLimits
from gateway.storage.log import Log
from tests.broker.raw import RawClient
from tests.cloud_sync.samples import ANYWHERE, STANDARD_SECRET
from tests.cloud_sync.site import Scripted, running, until
from tests.site import Site, reading
from tests.site import until as until_it

NOW = 1_795_176_000_000
DAY_MS = 86_400_000
SKEW_MS = 300_000
DEVICE, GATEWAY, CORRECTED = TimeSource.DEVICE, TimeSource.GATEWAY, TimeSource.CORRECTED
JUMPS = pytest.mark.parametrize(
    "jump", [DAY_MS, -DAY_MS, 400 * DAY_MS, -NOW + 5_000], ids=["+day", "-day", "+year", "1970"]
)


class Gateway:
    """Log and ingest, with a clock of ours: `clock.now` is what the machine believes, `true` what time it is."""

    def __init__(self, log: Log, clock: ManualClock) -> None:
        self.log = log
        self.clock = clock
        self.ingest = Ingest(log, clock, Metrics(), max_skew_ms=SKEW_MS)
        self.board = Device("default", "kitchen")
        self._acknowledged = 0

    def committed(self, count: int) -> None:
        self._acknowledged += count

    def failed(self, error: StoreFailed) -> None:
        raise AssertionError(error)

    async def take(self, *, dup: bool = False, **fields: Any) -> None:
        """Let the board publish; returns after the acknowledgement."""
        before = self._acknowledged
        self.ingest.take(self.board, reading(**fields), self, source="test", maybe_repeated=dup)
        await until(lambda: self._acknowledged > before)

    async def read(self) -> list[StoredReading]:
        return await self.log.read(0, limit=1_000)

    async def times(self) -> list[tuple[int, TimeSource]]:
        return [(one.time_ms, one.time_source) for one in await self.read()]

    async def tick(self) -> int:
        """Let the store look after itself; returns how many readings are left."""
        self.log.bounds.tick()
        await self.log.transact(_Nothing())
        return (await self.log.buffer()).readings


class _Nothing:
    def write(self, db: sqlite3.Connection) -> None:
        pass

    def rolled_back(self) -> None:
        pass


@asynccontextmanager
async def started(folder: Path, clock: ManualClock, **settings: Any) -> AsyncIterator[Gateway]:
    create = Log.create(folder / "log.db", StorageSettings(**settings), clock=clock, metrics=Metrics())
    async with create as log:
        yield Gateway(log, clock)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose clock is right and synchronised, and has been learned."""
    async with started(tmp_path, ManualClock(NOW)) as gateway:
        await gateway.log.learn_clock()
        yield gateway


# The gateway's clock


async def test_p10_a_pi_that_starts_in_1970_corrects_what_it_stored_when_its_clock_is_right(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        await gateway.take(seq=2, age_ms=4_000)
        await gateway.take(seq=3, timestamp=rfc3339(NOW - 1_000))
        clock.advance(60_000)
        await gateway.log.learn_clock()
        assert await gateway.times() == [(7_000, GATEWAY), (3_000, CORRECTED), (NOW - 1_000, DEVICE)]
        rows = on_disk(tmp_path)
        clock.now, clock.synced = NOW + 60_000, True
        await gateway.log.learn_clock()
        assert await gateway.times() == [(NOW, CORRECTED), (NOW - 4_000, CORRECTED), (NOW - 1_000, DEVICE)]
        assert [one.received_at_ms for one in await gateway.read()] == [NOW] * 3
        assert await gateway.log.count_after(0) == (3, NOW)
        assert await gateway.log.last_received_ms("default", "kitchen") == NOW
        assert on_disk(tmp_path) == rows, "stored rows are never rewritten"


def on_disk(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "log.db")) as db:
        return db.execute("SELECT * FROM device_telemetry_history").fetchall()


async def test_p10_every_row_has_the_boot_and_its_monotonic_time(tmp_path: Path) -> None:
    clock = ManualClock(NOW, synced=False)
    for monotonic in (500, 40):
        clock.monotonic = monotonic
        async with started(tmp_path, clock) as gateway:
            await gateway.take()
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        found = db.execute("SELECT gateway_boot, monotonic_ms FROM device_telemetry_history").fetchall()
    assert found == [(1, 500), (2, 40)]


@pytest.mark.parametrize(("rebooted", "time_ms"), [(False, NOW), (True, 7_000)], ids=["restarted", "rebooted"])
async def test_p10_what_is_learned_holds_for_earlier_starts_of_the_same_boot_of_the_machine(
    tmp_path: Path, rebooted: bool, time_ms: int
) -> None:
    """And for no other: how long the power was away, nobody knows."""
    clock = ManualClock(7_000, synced=False)
    clock.boot = "boot-1"
    async with started(tmp_path, clock) as gateway:
        await gateway.take()
    clock.advance(60_000)
    if rebooted:
        clock.boot, clock.monotonic = "boot-2", 0
    async with started(tmp_path, clock) as gateway:
        clock.now, clock.synced = NOW + 60_000, True
        await gateway.log.learn_clock()
        ((found, source),) = await gateway.times()
    assert (found, source) == (time_ms, GATEWAY if rebooted else CORRECTED)


@JUMPS
async def test_p10_a_jump_while_running_changes_no_time(gateway: Gateway, jump: int) -> None:
    """A clock that is set by hand is not synchronised from then on."""
    await gateway.take(seq=1)
    gateway.clock.advance(1_000)
    gateway.clock.now += jump
    gateway.clock.synced = False
    await gateway.log.learn_clock()
    await gateway.take(seq=2)
    await gateway.take(seq=3, age_ms=500)
    await gateway.take(seq=4, timestamp=rfc3339(NOW + 900))
    gateway.clock.advance(1_000)
    gateway.clock.now -= jump
    await gateway.take(seq=5)
    right = [
        (NOW, GATEWAY),
        (NOW + 1_000, CORRECTED),
        (NOW + 500, CORRECTED),
        (NOW + 900, DEVICE),
        (NOW + 2_000, GATEWAY),
    ]
    assert await gateway.times() == right
    gateway.clock.synced = True
    await gateway.log.learn_clock()
    assert await gateway.times() == right
    assert [one.seq for one in await gateway.read()] == [1, 2, 3, 4, 5]


@JUMPS
async def test_p10_a_time_server_that_lies_for_a_while_is_forgiven(gateway: Gateway, jump: int) -> None:
    await gateway.take()
    for by in (jump, -jump):
        gateway.clock.now += by
        await gateway.log.learn_clock()
        await gateway.take()
    assert await gateway.times() == [(NOW, GATEWAY), (NOW, CORRECTED), (NOW, GATEWAY)]


async def test_p10_whether_the_clock_is_synchronised_is_a_metric(site: Site) -> None:
    for synced in (True, False, True):
        site.clock.synced = synced
        assert await site.metric("neurogate_clock_synced") == synced


# The board's clock


@pytest.mark.parametrize("off_by", [-DAY_MS, -SKEW_MS, SKEW_MS, DAY_MS, 3_650 * DAY_MS])
@pytest.mark.parametrize("synced", [True, False], ids=["synchronised", "not synchronised"])
async def test_p10_a_boards_time_is_its_own_unless_it_is_surely_in_the_future(
    gateway: Gateway, off_by: int, synced: bool
) -> None:
    gateway.clock.synced = synced
    await gateway.take(timestamp=rfc3339(NOW + off_by))
    overruled = synced and off_by > SKEW_MS
    assert await gateway.times() == [(NOW, GATEWAY) if overruled else (NOW + off_by, DEVICE)]
    (one,) = await gateway.read()
    assert (one.received_at_ms, one.late) == (NOW, off_by < 0)


async def test_p10_a_clock_that_becomes_right_at_that_very_moment_overrules_no_board(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = gateway.clock
    clock.now, clock.synced = 7_000, False

    def is_synced() -> bool:
        clock.now = NOW
        return True

    monkeypatch.setattr(clock, "is_synced", is_synced)
    await gateway.take(timestamp=rfc3339(NOW))
    assert await gateway.times() == [(NOW, DEVICE)]


@pytest.mark.parametrize("timestamp", [0, 3_600, "1970-01-01T00:01:00Z", "2000-01-01T00:00:00Z", None, "now"])
async def test_p10_a_board_that_never_had_a_clock_gets_the_gateways_time(gateway: Gateway, timestamp: object) -> None:
    await gateway.take(timestamp=timestamp)
    await gateway.take(timestamp=timestamp, age_ms=90_000)
    assert await gateway.times() == [(NOW, GATEWAY), (NOW - 90_000, CORRECTED)]
    assert [one.late for one in await gateway.read()] == [False, True]


# What leaves, and what repeats


async def test_p10_retention_waits_for_the_time_to_be_known(tmp_path: Path) -> None:
    """Between the moment the clock is right and the moment that is noted, what came in 1970 seems very old."""
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock, retention_days=30) as gateway:
        await gateway.take()
        assert await gateway.tick() == 1
        clock.now, clock.synced = NOW, True
        assert await gateway.tick() == 1
        await gateway.log.learn_clock()
        assert await gateway.tick() == 1
        clock.advance(31 * DAY_MS)
        assert await gateway.tick() == 0


async def test_p10_what_no_right_clock_ever_saw_is_as_old_as_the_first_right_time_after_it(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take()
    clock.now, clock.monotonic, clock.synced = NOW, 0, True
    async with started(tmp_path, clock, retention_days=30) as gateway:
        assert await gateway.tick() == 1
        await gateway.log.learn_clock()
        clock.advance(29 * DAY_MS)
        assert await gateway.tick() == 1
    async with started(tmp_path, clock, retention_days=30) as gateway:  # a later start does not begin anew
        await gateway.log.learn_clock()
        clock.advance(2 * DAY_MS)
        assert await gateway.tick() == 0


@pytest.mark.parametrize("jump", [400 * DAY_MS, -400 * DAY_MS])
async def test_p10_retention_takes_nothing_because_of_a_jump(tmp_path: Path, jump: int) -> None:
    clock = ManualClock(NOW)
    async with started(tmp_path, clock, retention_days=30) as gateway:
        await gateway.log.learn_clock()
        await gateway.take()
        clock.now += jump
        clock.synced = False
        await gateway.take()
        assert await gateway.tick() == 2
        clock.now -= jump
        clock.synced = True
        await gateway.log.learn_clock()
        assert await gateway.tick() == 2
        clock.advance(31 * DAY_MS)
        assert await gateway.tick() == 0


@JUMPS
async def test_p10_a_jump_neither_makes_nor_hides_a_repeat(gateway: Gateway, jump: int) -> None:
    await gateway.take(boot_id="b", seq=1)
    await gateway.take(x=1)
    gateway.clock.now += jump
    await gateway.take(boot_id="b", seq=1)
    await gateway.take(x=1, dup=True)  # within a minute, whatever the clock says
    assert len(await gateway.read()) == 2
    gateway.clock.advance(60_001)
    await gateway.take(x=1, dup=True)  # too late, whatever the clock says
    await gateway.take(boot_id="b", seq=1)
    assert [one.body.get("x") for one in await gateway.read()] == [None, 1, 1]


async def test_p10_after_a_start_in_1970_equal_bytes_from_before_are_no_repeat(tmp_path: Path) -> None:
    """They came later than now; to store a reading twice is better than to lose one."""
    clock = ManualClock(NOW)
    for now in (NOW, 7_000):
        clock.now = now
        async with started(tmp_path, clock) as gateway:
            await gateway.take(dup=True)
            count = len(await gateway.read())
    assert count == 2


# Delivery


class Timed(Scripted):
    """A destination with the webhook's own body."""

    def encode(self, batch: Batch) -> bytes:
        return readings_batch(batch)

    def times(self, request: int) -> list[tuple[str, str]]:
        return [(one["time"], one["time_source"]) for one in json.loads(self.sent[request][1])["readings"]]


def forwarder(gateway: Gateway, destination: Any, waits: list[float] | None = None) -> Forwarder:
    """A forwarder whose sleeps pass at once."""

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)
        gateway.clock.advance(round(seconds * 1000))
        await gateway.log.learn_clock()

    return Forwarder(destination, gateway.log, gateway.clock, Metrics(), "site-1", sleep=sleep, random=lambda: 1.0)


class SetsTheClock(Timed):
    """Fails once, and meanwhile the clock becomes right."""

    def __init__(self, clock: ManualClock, first: Outcome) -> None:
        super().__init__()
        self._clock = clock
        self._first = first

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        if not self.sent:
            self._clock.now, self._clock.synced = NOW, True
            self.sent.append((batch, body))
            return self._first
        return await super().send(batch, body)


async def deliver(gateway: Gateway, destination: Scripted) -> None:
    async with running(forwarder(gateway, destination)) as running_forwarder:
        await until(lambda: running_forwarder._live.position == gateway.log.last_row)


async def test_p10_a_retry_is_the_same_bytes_though_the_clock_was_set_in_between(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        destination = SetsTheClock(clock, NotConnected("broke off"))
        await deliver(gateway, destination)
        await gateway.take(seq=2)
        await deliver(gateway, destination)
    first, again, later = destination.sent
    assert (first[0].id, first[1]) == (again[0].id, again[1])
    assert destination.times(1) == [("1970-01-01T00:00:07.000Z", "gateway")]
    assert later[0].id != first[0].id
    assert destination.times(2) == [(rfc3339(NOW + 1_000), "gateway")]


async def test_p10_also_after_a_restart_of_the_gateway(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    clock.boot = "boot-1"
    destination = Timed(*[NotConnected("broke off")] * 3)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        async with running(forwarder(gateway, destination)):
            await until(lambda: len(destination.sent) >= 2)
    clock.now, clock.synced = NOW, True
    async with started(tmp_path, clock) as gateway:
        await gateway.log.learn_clock()
        await deliver(gateway, destination)
        assert await gateway.times() != [(7_000, GATEWAY)], "what is read now is corrected"
    assert len({(batch.id, body) for batch, body in destination.sent}) == 1
    assert destination.accepted == [1]


@pytest.mark.parametrize("outcome", [NotConnected("nobody listens", sent=False), AuthFailed("HTTP 401")])
async def test_p10_what_has_certainly_not_arrived_goes_out_with_the_right_time(
    tmp_path: Path, outcome: Outcome
) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        destination = SetsTheClock(clock, outcome)
        await deliver(gateway, destination)
    first, second = destination.sent
    assert first[0].id != second[0].id
    assert destination.times(1) == [(rfc3339(NOW), "corrected")]


async def test_p10_a_clock_that_is_right_is_learned_before_anything_is_sent(tmp_path: Path) -> None:
    """Nobody may have looked at it since: the receiver believes the signature, and would get times of 1970."""
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        destination = SetsTheClock(clock, AuthFailed("HTTP 401"))
        sender = Forwarder(destination, gateway.log, clock, Metrics(), "site-1", sleep=lambda _: asyncio.sleep(0))
        async with running(sender):
            await until(lambda: destination.accepted == [1])
    assert destination.times(1) == [(rfc3339(NOW), "corrected")]


async def test_p10_a_clock_that_is_right_is_learned_before_anything_is_read(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        clock.now, clock.synced = NOW, True
        destination = Timed()
        async with running(Forwarder(destination, gateway.log, clock, Metrics(), "site-1")):
            await until(lambda: destination.accepted == [1])
    assert destination.times(0) == [(rfc3339(NOW), "corrected")]


async def test_p10_what_was_once_sent_stays_frozen_though_nobody_listens_any_more(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        destination = Timed(NotConnected("broke off"), NotConnected("nobody listens", sent=False))
        async with running(forwarder(gateway, destination)):
            await until(lambda: len(destination.sent) >= 2)
            clock.now, clock.synced = NOW, True
            await gateway.log.learn_clock()
            await until(lambda: destination.accepted == [1])
    assert len({(batch.id, body) for batch, body in destination.sent}) == 1


async def test_p10_a_receiver_that_refuses_old_timestamps_costs_time_and_no_reading(tmp_path: Path) -> None:
    """`webhook-timestamp` is the machine's time: until that is right, a careful receiver believes no signature."""
    clock = ManualClock(7_000, synced=False)
    receiver = Receiver(STANDARD_SECRET, ManualClock(NOW))
    async with started(tmp_path, clock) as gateway, TestServer(receiver.app()) as server:
        for seq in range(20):
            await gateway.take(boot_id="b", seq=seq)
        table = {"type": "webhook", "name": "api", "url": str(server.make_url("/")), "secret": STANDARD_SECRET}
        config = Webhook.Config.model_validate(table | {"start": "oldest", "rate_limit_per_minute": 0})
        waits: list[float] = []
        async with running(forwarder(gateway, Webhook(config, clock, ANYWHERE), waits)) as api:
            await until(lambda: receiver.stats.untimely >= 3)
            status = await api.status()
            assert (status.undelivered, status.dead_letters, status.last_error[:8]) == (20, 0, "HTTP 401")
            clock.now, clock.synced = NOW, True
            await until(lambda: receiver.stats.unique == 20)
        assert receiver.stats.signature_failures == 0
        assert set(waits) == {300.0}, "it asks again every five minutes"
        assert not await gateway.log.dead_letters.letters()


async def test_p10_a_clock_that_becomes_right_ends_the_wait_after_a_refusal(tmp_path: Path) -> None:
    clock = ManualClock(7_000, synced=False)
    async with started(tmp_path, clock) as gateway:
        await gateway.take(seq=1)
        destination = Timed(AuthFailed("HTTP 401"))
        async with running(Forwarder(destination, gateway.log, clock, Metrics(), "site-1")):
            await until(lambda: len(destination.sent) == 1)
            clock.now, clock.synced = NOW, True
            await gateway.log.learn_clock()
            await until(lambda: destination.accepted == [1])  # and not after five minutes


async def test_p10_the_age_of_the_oldest_reading_follows_the_correction(tmp_path: Path) -> None:
    clock, metrics = ManualClock(7_000, synced=False), Metrics()
    async with started(tmp_path, clock) as gateway:
        await gateway.take()
        metric = ("neurogate_buffer_oldest_seconds", {"destination": "cloud"})
        hanging = Forwarder(Timed(*[NotConnected("away")] * 99), gateway.log, clock, metrics, "site-1")
        async with running(hanging):
            await until(lambda: hanging._standing.failures > 0)
            clock.now, clock.synced = NOW, True
            assert metrics.registry.get_sample_value(*metric) == NOW / 1000 - 7
            await gateway.log.learn_clock()
            assert (await hanging.status()).oldest_seconds == 0
            assert metrics.registry.get_sample_value(*metric) == 0


# Waiting


@JUMPS
async def test_p10_no_rate_limit_hangs_or_opens_because_of_a_jump(jump: int) -> None:
    clock = ManualClock(NOW)
    limits = RateLimits(clock, per_minute=60, burst=1)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(round(seconds * 1000))

    rate = RateLimit(clock, sleep, per_minute=0, min_interval_s=2)
    assert limits.take("a") == 0
    await rate.take()
    clock.now += jump
    assert limits.take("a") == 1
    await rate.take()
    assert waits == [2]
    assert limits.take("a") == 0


@JUMPS
async def test_p10_keepalives_neither_fire_nor_wait_because_of_a_jump(site: Site, jump: int) -> None:
    async with (
        RawClient.login(site, keepalive=60) as patient,
        RawClient.login(site, client_id="b", keepalive=1) as dead,
    ):
        site.clock.now += jump
        assert await patient.is_alive()
        assert await dead.rest() == b"", "silent for one and a half seconds"
        assert await patient.is_alive()
        assert await site.metric("active_connections") == 1


async def test_p10_what_comes_in_after_a_jump_is_acknowledged_and_delivered(site: Site) -> None:
    headers = {"x-api-key": site.kitchen.password, "content-type": "application/json"}
    for jump in (DAY_MS, -2 * DAY_MS, DAY_MS):
        site.clock.now += jump
        async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(), headers=headers) as answer:
            assert answer.status == 202
    await until_it(lambda: site.log.last_row == 3)


def test_p10_only_the_clock_asks_what_time_it_is() -> None:
    """Whoever needs the wall clock gets it injected; everything that waits uses the monotonic one."""
    house = Path(__file__).parents[2]
    wall = {"time", "time_ns", "now", "utcnow", "today"}
    asking = [
        f"{path.relative_to(house)}:{call.lineno}"
        for room in ("gateway", "cloud_sync")
        for path in sorted((house / room).rglob("*.py"))
        if path != house / "gateway" / "clock.py"
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in wall
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in {"time", "datetime", "date"}
    ]
    assert asking == []
