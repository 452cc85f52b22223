"""`Forwards`: the same batch is the same bytes, an answer is classified, and nothing is raised for what others do."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import AuthFailed, Batch, Forwards, NotConnected, Ok, Outcome, Rejected, RetryAfter, TooLarge
from cloud_sync.forwarder import Forwarder
from gateway.model.reading import NewReading, TimeSource
from gateway.storage.log import Log
from tests.cloud_sync.samples import NOW_MS, batch, sent
from tests.cloud_sync.site import Site, open_site, running
from tests.contract.other_side import FAULTS, SECRET, Contract, Destination, OtherSide
from tests.site import until

OK: Any = Ok()
AT_ONCE = 3
"""Readings of a batch."""


def reason_of(outcome: Any) -> str:
    return str(outcome.reason)


class ForwardsContract(Contract):
    """Every integration that delivers readings."""

    async def test_it_says_that_it_forwards(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            assert isinstance(self.made(side), Forwards)

    async def test_the_same_batch_is_the_same_bytes_also_after_a_restart(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            one, after_a_restart = self.made(side), self.made(side)
            assert one.encode(batch()) == one.encode(batch()) == after_a_restart.encode(batch())
            assert one.encode(batch(2)) != one.encode(batch(3))

    async def test_writing_changes_no_reading(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            given = batch()
            before = deepcopy(given.readings)
            self.made(side).encode(given)
            assert given.readings == before

    async def test_what_is_taken_is_ok_and_arrives_as_it_was_written(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            assert await sent(it, batch()) == OK
            assert side.received == [it.encode(batch())]

    async def test_a_retry_is_taken_like_the_first(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            assert [await sent(it, batch()), await sent(it, batch())] == [OK, OK]
            assert set(side.received) == {it.encode(batch())}

    async def test_every_answer_is_what_it_means_and_says_why_without_a_secret(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            for answer in side.answers - {Ok}:
                side.answer(answer)
                outcome = await sent(it, batch())
                assert type(outcome) is answer
                assert reason_of(outcome)
                assert SECRET not in repr(outcome)
            side.answer(Ok)
            assert await sent(it, batch()) == OK

    async def test_it_is_entered_and_left_while_the_other_side_is_away_and_says_so(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            await side.go_away()
            async with self.made(side) as it:
                outcome = await sent(it, batch())
                assert isinstance(outcome, NotConnected | RetryAfter)
                assert outcome.reason
                assert SECRET not in repr(outcome)

    async def test_it_can_be_entered_again(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            it = self.made(side)
            for _ in range(2):
                async with it:
                    assert await sent(it, batch()) == OK

    async def test_a_cancelled_attempt_ends_at_once(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            attempt = asyncio.create_task(sent(it, batch()))
            await asyncio.sleep(0)
            attempt.cancel()
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    await attempt

    # What the engine makes of it: a log is delivered in order, and once

    async def test_p2_p3_nothing_is_lost_by_what_it_answers(self, tmp_path: Path) -> None:
        """It throttles, fails and knows us no more; at the end another instance, as with a new key, goes on."""
        async with self.other_side(tmp_path) as side, _a_log(tmp_path) as site:
            for answer in (Ok, *side.answers & {RetryAfter, NotConnected, AuthFailed}, Ok):
                async with self._engine_on(site, side) as engine:
                    side.answer(answer)
                    await _append(site.log)
                    await until(lambda answer=answer: answer in engine.outcomes)  # type: ignore[misc]
                    side.answer(Ok)
                    await engine.delivers_all()
            assert _numbers(side.said) == list(range(site.log.last_row))

    @asynccontextmanager
    async def _engine_on(self, site: Site, side: OtherSide) -> AsyncIterator["_Engine"]:
        it = self.made(side, start="oldest", batch_max_readings=AT_ONCE, rate_limit_per_minute=0, timeout_s=0.5)
        engine = _Engine(it, site)
        async with running(engine):
            yield engine


class OverALineContract(ForwardsContract):
    """Every one that delivers them to somebody else, who may refuse some, over a line that may fail."""

    @staticmethod
    def other_side(path: Path, /) -> AbstractAsyncContextManager[Destination]:
        """Return what the integration talks to, while it is entered."""
        raise NotImplementedError

    async def test_p2_p3_nothing_is_lost_by_the_line(self, tmp_path: Path) -> None:
        """It hangs, is cut, and loses the answer to what has arrived: that comes again, by the same bytes."""
        async with self.other_side(tmp_path) as side, _a_log(tmp_path) as site:
            for fault in FAULTS:
                async with self._engine_on(site, side) as engine:
                    await _append(site.log)
                    await engine.delivers_all()  # so what the fault meets is readings, and no login
                    engine.bodies.clear()
                    came = len(_numbers(side.said))
                    side.fail(fault)
                    await _append(site.log)
                    await until(lambda: bool(engine.outcomes & {NotConnected, RetryAfter}))
                    side.fail(None)
                    await engine.delivers_all()
                assert len(engine.bodies) == 1
                if fault == "loses answers":
                    assert len(_numbers(side.said)) - came > AT_ONCE
            assert list(dict.fromkeys(_numbers(side.said))) == list(range(site.log.last_row))

    async def test_p4_what_is_too_much_at_once_goes_in_parts(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, _a_log(tmp_path) as site:
            refusal = TooLarge if TooLarge in side.answers else Rejected  # as some say it
            side.judge(lambda said: refusal if len(_numbers(said)) > 1 else Ok)
            async with self._engine_on(site, side) as engine:
                await _append(site.log)
                await engine.delivers_all()
            assert _numbers(side.said) == list(range(site.log.last_row))
            assert await site.log.dead_letters.counts() == {}
            assert (refusal in engine.outcomes or Rejected in engine.outcomes) is not side.gets_them_singly

    async def test_p4_one_reading_that_it_refuses_keeps_no_other_back(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, _a_log(tmp_path) as site:
            side.judge(lambda said: Rejected if 4 in _numbers(said) else Ok)
            async with self._engine_on(site, side) as engine:
                for _ in range(3):
                    await _append(site.log)
                await engine.delivers_all()
            assert _numbers(side.said) == [0, 1, 2, 3, 5, 6, 7, 8]
            (letter,) = await site.log.dead_letters.letters()
            assert letter.key == ("test", 5)


class _Engine(Forwarder):
    """One whose waits are short; time stands still for both sides."""

    def __init__(self, it: Any, site: Site) -> None:
        super().__init__(it, site.log, site.clock, site.metrics, "site-1", sleep=_briefly, random=lambda: 1.0)
        self.outcomes: set[type[Outcome]] = set()
        """What has come of attempts."""
        self.bodies: set[bytes] = set()
        """What was tried."""
        send = it.send

        async def watched(given: Batch, body: bytes) -> Outcome:
            self.bodies.add(body)
            outcome: Outcome = await send(given, body)
            self.outcomes.add(type(outcome))
            return outcome

        it.send = watched

    async def delivers_all(self) -> None:
        await until(lambda: self._live.position == self._log.last_row)


async def _briefly(_: float) -> None:
    await asyncio.sleep(0.01)


@asynccontextmanager
async def _a_log(folder: Path) -> AsyncIterator[Site]:
    async with open_site(folder / "log.db") as site:
        await site.log.open_cursor("test", start="oldest")
        yield site


async def _append(log: Log) -> None:
    """Store a batch of readings, each with a number: 0 in the first row."""
    stream = log.stream("default", "esp32-kitchen", "boot-1")
    payload = b'{"sensors":{"pir":{"motion_detected":true}},"note":"number %d."}'
    numbers = range(log.last_row, log.last_row + AT_ONCE)
    await log.append([NewReading(stream, n, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, payload % n) for n in numbers])


def _numbers(said: bytes) -> list[int]:
    """Return the numbers of the readings that are in there."""
    return [int(number) for number in re.findall(rb"number (\d+)\.", said)]
