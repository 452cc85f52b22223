"""`Forwards`: the same batch is the same bytes, an answer is classified, and nothing is raised for what others do."""

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import AuthFailed, Batch, Forwards, NotConnected, Ok, Outcome, RetryAfter
from cloud_sync.forwarder import Forwarder
from tests.cloud_sync.samples import append, batch
from tests.cloud_sync.site import Site, open_site, running
from tests.contract.other_side import SECRET, Contract
from tests.site import until

OK: Any = Ok()


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
            assert await self._sent(it) == OK
            assert side.received == [it.encode(batch())]

    async def test_a_retry_is_taken_like_the_first(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            assert [await self._sent(it), await self._sent(it)] == [OK, OK]
            assert set(side.received) == {it.encode(batch())}

    async def test_every_answer_is_what_it_means_and_says_why_without_a_secret(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            for answer in side.answers - {Ok}:
                side.answer(answer)
                outcome = await self._sent(it)
                assert type(outcome) is answer
                assert reason_of(outcome)
                assert SECRET not in repr(outcome)
            side.answer(Ok)
            assert await self._sent(it) == OK

    async def test_it_is_entered_and_left_while_the_other_side_is_away_and_says_so(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            await side.go_away()
            async with self.made(side) as it:
                outcome = await self._sent(it)
                assert isinstance(outcome, NotConnected | RetryAfter)
                assert outcome.reason
                assert SECRET not in repr(outcome)

    async def test_it_can_be_entered_again(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side:
            it = self.made(side)
            for _ in range(2):
                async with it:
                    assert await self._sent(it) == OK

    async def test_a_cancelled_attempt_ends_at_once(self, tmp_path: Path) -> None:
        async with self.other_side(tmp_path) as side, self.made(side) as it:
            attempt = asyncio.create_task(self._sent(it))
            await asyncio.sleep(0)
            attempt.cancel()
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    await attempt

    async def test_p2_p3_the_engine_delivers_all_in_order_and_once_whatever_is_in_between(self, tmp_path: Path) -> None:
        """It throttles, fails and knows us no more; at the end another instance, as with a new key, goes on."""
        async with self.other_side(tmp_path) as side, open_site(tmp_path / "log.db") as site:
            encoded: dict[bytes, None] = {}
            await site.log.open_cursor("test", start="oldest")

            async def delivered_after(trouble: type[Outcome]) -> None:
                it = self.made(side, start="oldest", batch_max_readings=3, rate_limit_per_minute=0)
                outcomes = _watched(it, encoded)
                async with running(_engine(it, site)) as forwarder:
                    side.answer(trouble)
                    await append(site.log, 3, first_seq=site.log.last_row)
                    await until(lambda: trouble in outcomes)
                    side.answer(Ok)
                    await until(lambda: forwarder._live.position == site.log.last_row)

            for trouble in (Ok, *side.answers & {RetryAfter, NotConnected, AuthFailed}, Ok):
                await delivered_after(trouble)
            assert site.log.last_row >= 6
            assert len(side.received) % len(encoded) == 0  # a body goes out whole, or in as many parts as the others
            all_of_it, at = b"".join(encoded), 0
            for body in side.received:
                at = all_of_it.index(body, at) + len(body)
            assert at == len(all_of_it)

    @staticmethod
    async def _sent(it: Any) -> Any:
        given: Batch = batch()
        return await it.send(given, it.encode(given))


def _watched(it: Any, encoded: dict[bytes, None]) -> set[type[Outcome]]:
    """Keep each body that is to be sent, once; return what comes of each attempt."""
    outcomes: set[type[Outcome]] = set()
    send = it.send

    async def watched(given: Batch, body: bytes) -> Outcome:
        encoded[body] = None
        outcome: Outcome = await send(given, body)
        outcomes.add(type(outcome))
        return outcome

    it.send = watched
    return outcomes


def _engine(it: Any, site: Site) -> Forwarder:
    """One whose waits are short; time stands still for both sides."""

    async def sleep(_: float) -> None:
        await asyncio.sleep(0.01)

    return Forwarder(it, site.log, site.clock, site.metrics, "site-1", sleep=sleep, random=lambda: 1.0)
