"""The engine against the real log; destinations are scripted, or real HTTP servers."""

import asyncio
import logging
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.receiver.server import Receiver
from cloud_sync.standing import DELIVERY_STATES
from gateway.clock import SystemClock
from tests.cloud_sync.samples import STANDARD_SECRET, append
from tests.cloud_sync.site import DOWN, Scripted, Site, deliver_all, open_site, running, serving, until, webhook


async def test_readings_go_out_in_order_and_once(site: Site) -> None:
    await append(site.log, 10)
    destination = Scripted(batch_max_readings=3)
    forwarder = await deliver_all(site, destination)
    assert destination.accepted == list(range(1, 11))
    assert destination.sizes == [3, 3, 3, 1]
    assert len(set(destination.ids)) == 4
    status = await forwarder.status()
    assert (status.state, status.position, status.undelivered, status.delivered) == ("idle", 10, 0, 10)
    assert site.metric("neurogate_delivery_total", outcome="ok") == 4


async def test_readings_that_come_later_wake_it(site: Site) -> None:
    destination = Scripted()
    async with running(site.forwarder(destination)):
        for expected in (1, 2, 3):
            await append(site.log, 1, first_seq=expected)
            await until(lambda: len(destination.accepted) == expected)  # noqa: B023
    assert destination.accepted == [1, 2, 3]


async def test_a_new_destination_starts_at_the_next_reading_unless_asked(site: Site) -> None:
    await append(site.log, 2)
    destination = Scripted(start="now")
    forwarder = site.forwarder(destination)
    async with running(forwarder):
        await until(lambda: forwarder._live.position == 2)
        await append(site.log, 1, first_seq=2)
        await until(lambda: bool(destination.sent))
    assert destination.accepted == [3]


async def test_it_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    for run in range(3):
        async with open_site(tmp_path / "log.db") as site:
            await append(site.log, 2, first_seq=2 * run)
            destination = Scripted()
            await deliver_all(site, destination)
        assert destination.accepted == [2 * run + 1, 2 * run + 2]


async def test_p2_a_retried_batch_is_the_same_batch(site: Site) -> None:
    await append(site.log, 3)
    destination = Scripted(DOWN, DOWN, AuthFailed("no"), RetryAfter(None, "busy"))
    async with running(site.forwarder(destination)):
        await until(lambda: bool(destination.sent))
        await append(site.log, 5, first_seq=3)  # must not slip into the batch that is under way
        await until(lambda: len(destination.accepted) == 8)
    assert len(set(destination.ids[:5])) == 1
    assert [body for _, body in destination.sent[:5]] == [b"1,2,3"] * 5
    assert destination.ids[5] != destination.ids[0]


async def send_once_and_stop(path: Path) -> Scripted:
    """Leave a site whose batch of 3 readings has left and was not acknowledged; 2 more came after."""
    async with open_site(path) as site:
        await append(site.log, 3)
        destination = Scripted(*[DOWN] * 1000)
        async with running(site.forwarder(destination)):
            await until(lambda: bool(destination.sent))
        await append(site.log, 2, first_seq=3)
    return destination


async def test_p2_a_retried_batch_is_the_same_batch_also_after_a_restart(tmp_path: Path) -> None:
    before = await send_once_and_stop(tmp_path / "log.db")
    async with open_site(tmp_path / "log.db") as site:
        after = Scripted(batch_max_readings=1, batch_max_bytes=1000)  # new bounds are for new batches
        await deliver_all(site, after)
    assert after.ids[0] == before.ids[0]
    assert after.sent[0][1] == before.sent[0][1] == b"1,2,3"
    assert after.accepted == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("erased", [1, 2, 3])
async def test_p2_a_batch_with_erased_readings_gets_a_new_id(
    tmp_path: Path, erased: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = await send_once_and_stop(tmp_path / "log.db")
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("DELETE FROM device_telemetry_history WHERE id = ?", (erased,))
    db.close()
    async with open_site(tmp_path / "log.db") as site:
        after = Scripted()
        await deliver_all(site, after)
    assert not set(before.ids) & set(after.ids)
    assert after.accepted == [row for row in range(1, 6) if row != erased]
    assert "cannot be made again" in caplog.text


async def test_p2_a_batch_that_is_written_differently_now_gets_a_new_id(tmp_path: Path) -> None:
    before = await send_once_and_stop(tmp_path / "log.db")
    async with open_site(tmp_path / "log.db") as site:
        after = Scripted()
        after.dialect = b"new release:"
        await deliver_all(site, after)
    assert not set(before.ids) & set(after.ids)
    assert after.accepted == [1, 2, 3, 4, 5]


async def test_p2_what_is_sent_is_frozen_on_disk_before(tmp_path: Path) -> None:
    class Looks(Scripted):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            with sqlite3.connect(tmp_path / "log.db") as db:
                on_disk.append(db.execute("SELECT batch_id, after_row, last_row, readings FROM cursors").fetchone())
            db.close()
            return await super().send(batch, body)

    on_disk: list[tuple[Any, ...]] = []
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 5)
        destination = Looks(batch_max_readings=3)
        await deliver_all(site, destination)
    assert on_disk == [(destination.ids[0], 0, 3, 3), (destination.ids[1], 3, 5, 2)]


async def test_rows_that_were_all_erased_are_passed(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 3)
        with sqlite3.connect(tmp_path / "log.db") as db:
            db.execute("DELETE FROM device_telemetry_history")
        db.close()
        destination = Scripted()
        forwarder = await deliver_all(site, destination)
        assert (destination.sent, forwarder._live.position) == ([], 3)


async def test_it_waits_longer_each_time_and_starts_afresh_after_a_success(site: Site) -> None:
    await append(site.log, 2)
    destination = Scripted(*[DOWN] * 10, Ok(), DOWN, batch_max_readings=1)
    await deliver_all(site, destination)
    assert site.waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 1]


@pytest.mark.parametrize(
    ("outcome", "state", "first_wait"),
    [
        (NotConnected("why"), "retrying", 1),
        (RetryAfter(None, "why"), "retrying", 1),
        (RetryAfter(120.0, "why"), "retrying", 132),
        (AuthFailed("why"), "error", 300),
        (WrongAddress("why"), "error", 300),
    ],
)
async def test_a_failure_is_shown_and_keeps_the_place(
    site: Site, outcome: Outcome, state: str, first_wait: float
) -> None:
    await append(site.log, 1)
    destination = Scripted(*[outcome] * 3)
    forwarder = site.forwarder(destination)
    shown = []

    async def sleep(seconds: float) -> None:
        shown.append(await forwarder.status())
        await site.sleep(seconds)

    forwarder._sleep = sleep
    async with running(forwarder):
        await until(lambda: forwarder._live.position == 1)
        recovered = await forwarder.status()
    assert [(s.state, s.position, s.undelivered, s.failures, s.last_error) for s in shown] == [
        (state, 0, 1, failures, "why") for failures in (1, 2, 3)
    ]
    assert site.waits[0] == first_wait
    assert (recovered.failures, recovered.last_error, recovered.delivered) == (0, "", 1)


async def test_what_its_delivery_does_is_shown_in_plain_words(site: Site) -> None:
    shown: list[tuple[str, float | None]] = []
    metrics: list[list[float | None]] = []

    async def look() -> None:
        status = await forwarder.status()
        shown.append((status.delivery, status.next_attempt_s))
        states = (site.metric("neurogate_delivery_state", state=state) for state in DELIVERY_STATES)
        metrics.append([*states, site.metric("neurogate_next_attempt_seconds")])

    class Looks(Scripted):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            await look()
            return await super().send(batch, body)

    async def sleep(seconds: float) -> None:
        await look()
        await site.sleep(seconds)

    await append(site.log, 1)
    forwarder = site.forwarder(Looks(DOWN, RetryAfter(10.0, "busy"), Ok(), Gone("no more")))
    forwarder._sleep = sleep
    async with running(forwarder):
        await until(lambda: forwarder._standing.state == "idle" and forwarder._live.position == 1)
        await look()
        await append(site.log, 1, first_seq=1)
        await until(lambda: forwarder._standing.state == "error")
        await look()
    waiting = "waiting after failures"
    assert shown == [
        ("ok", None), (waiting, 1), ("trying", None), (waiting, 11), ("trying", None),
        ("ok", None), ("ok", None), ("stopped", None),
    ]  # fmt: skip
    assert metrics == [
        [1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 11], [0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0],
    ]  # fmt: skip


async def test_gone_ends_the_sending_and_keeps_the_place(site: Site) -> None:
    await append(site.log, 1)
    destination = Scripted(Gone("no more"))
    async with running(site.forwarder(destination)) as forwarder:
        await until(lambda: forwarder._standing.state == "error")
        await append(site.log, 1, first_seq=1)
        await site.sleep(1_000_000)
        status = await forwarder.status()
    assert (status.state, status.position, status.undelivered, status.last_error) == (
        "error",
        0,
        2,
        "no more",
    )
    assert len(destination.sent) == 1
    assert site.metric("neurogate_buffer_oldest_seconds") == 1_000_000
    again = Scripted()
    await deliver_all(site, again)
    assert again.ids[0] == destination.ids[0]


async def test_a_batch_that_is_too_large_is_halved_under_a_new_id(site: Site) -> None:
    await append(site.log, 20)
    destination = Scripted(takes_at_most=3)
    forwarder = await deliver_all(site, destination)
    assert destination.sizes[:4] == [20, 10, 5, 2]
    assert destination.accepted == list(range(1, 21))
    assert len(set(destination.ids)) == len(destination.ids)
    assert site.waits == []
    assert (await forwarder.status()).failures == 0


async def test_after_halving_the_batches_grow_again(site: Site) -> None:
    await append(site.log, 300)
    destination = Scripted(TooLarge("for now"), batch_max_readings=20)
    await deliver_all(site, destination)
    assert destination.sizes[:5] == [20, 10, 11, 12, 13]
    assert max(destination.sizes) == 20


async def test_the_rate_limit_fills_batches_instead_of_sending_small_ones(site: Site) -> None:
    await append(site.log, 1)
    destination = Scripted(min_interval_s=60.0)
    forwarder = site.forwarder(destination)

    async def sleep(seconds: float) -> None:
        await append(site.log, 7, first_seq=2)
        await site.sleep(seconds)
        assert site.metric("neurogate_buffer_oldest_seconds") == 60

    forwarder._rate._sleep = sleep
    async with running(forwarder):
        await until(lambda: len(destination.sent) == 1)
        await append(site.log, 1, first_seq=1)
        await until(lambda: len(destination.sent) == 2)
    assert destination.sizes == [1, 8]
    assert site.waits == [60]


async def test_retries_count_against_the_rate_limit(site: Site) -> None:
    await append(site.log, 1)
    destination = Scripted(DOWN, DOWN, rate_limit_per_minute=1)
    await deliver_all(site, destination)
    assert site.waits == [1, 59, 2, 58]


async def test_a_failure_is_logged_once_and_its_end_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cloud_sync")
    await append(site.log, 3)
    await deliver_all(site, Scripted(*[DOWN] * 5, batch_max_readings=1))
    failed, recovered = caplog.records
    assert (failed.levelname, failed.name) == ("WARNING", "cloud_sync.forwarder.cloud")
    assert failed.message == "delivery failed: away"
    assert failed.__dict__["next_attempt_s"] == 1
    assert (recovered.levelname, recovered.message) == ("INFO", "delivery works again")
    assert (recovered.__dict__["down_s"], recovered.__dict__["undelivered"]) == (31, 2)


async def test_attempts_and_their_length_are_counted(site: Site) -> None:
    await append(site.log, 1)
    await deliver_all(site, Scripted(DOWN, AuthFailed("who?")))
    for outcome in ("not_connected", "auth_failed", "ok"):
        assert site.metric("neurogate_delivery_total", outcome=outcome) == 1
    assert site.metric("neurogate_delivery_latency_seconds_count") == 3


async def test_the_age_of_the_oldest_undelivered_reading_is_a_metric(site: Site) -> None:
    ages = []

    class Looks(Scripted):
        async def send(self, batch: Batch, body: bytes) -> Outcome:
            site.clock.advance(5_000)
            ages.append(site.metric("neurogate_buffer_oldest_seconds"))
            return await super().send(batch, body)

    await append(site.log, 1)
    await deliver_all(site, Looks(DOWN))
    assert ages == [5, 11]
    assert site.metric("neurogate_buffer_oldest_seconds") == 0


async def test_a_defect_of_an_integration_is_not_hidden(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Defective(Scripted):
        def encode(self, batch: Batch) -> bytes:
            raise ZeroDivisionError(batch.id)

    await append(site.log, 20)
    async with running(site.forwarder(Defective())) as forwarder:
        await until(lambda: "an integration failed, by a fault of ours" in caplog.text)
        await until(lambda: forwarder._standing.state == "error")
        status = await forwarder.status()
    assert (status.undelivered, status.dead_letters) == (20, 0)
    assert "it cannot be written for this destination" in status.last_error
    assert "ZeroDivisionError" in caplog.text


async def test_p3_a_dead_destination_delays_no_other(site: Site) -> None:
    """One hangs, one fails, one has gone; the fourth gets everything while the first attempt still hangs."""
    hanging, release = asyncio.Event(), asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        hanging.set()
        await release.wait()
        return web.Response(status=500)

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=500)

    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=410)

    receiver = Receiver(STANDARD_SECRET, SystemClock())
    async with AsyncExitStack() as stack:
        forwarders = {}
        for name, handler in {"hanging": hang, "failing": fail, "gone": gone}.items():
            integration = webhook(name, await stack.enter_async_context(serving(handler)))
            forwarders[name] = await stack.enter_async_context(running(site.forwarder(integration)))
        alive_server = TestServer(receiver.app())
        await stack.enter_async_context(alive_server)
        await stack.enter_async_context(running(site.forwarder(webhook("alive", alive_server))))
        await append(site.log, 10)
        await hanging.wait()
        for first_seq in range(10, 100, 10):
            await append(site.log, 10, first_seq=first_seq)
        await until(lambda: receiver.stats.unique == 100)
        states = {name: await forwarder.status() for name, forwarder in forwarders.items()}
        release.set()
    assert receiver.stats.readings == 100
    assert {name: (status.state, status.undelivered) for name, status in states.items()} == {
        "hanging": ("sending", 100),
        "failing": ("retrying", 100),
        "gone": ("error", 100),
    }


async def test_p7_no_secret_is_in_a_log_line_or_the_status(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(_: web.Request) -> web.Response:
        return web.Response(status=400, text=f"wrong key: {STANDARD_SECRET}")

    await append(site.log, 5)
    async with serving(echo) as server, running(site.forwarder(webhook("cloud", server))) as forwarder:
        await until(lambda: forwarder._standing.failures > 3)
        shown = f"{await forwarder.status()} {caplog.text}"
    assert "withheld" in shown
    assert STANDARD_SECRET.removeprefix("whsec_") not in shown
