"""`Forwards`: the same batch is the same bytes, an answer is classified, and nothing is raised for what others do."""

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import Batch, Forwards, NotConnected, Ok, RetryAfter
from tests.cloud_sync.samples import batch
from tests.contract.other_side import SECRET, Contract

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

    @staticmethod
    async def _sent(it: Any) -> Any:
        given: Batch = batch()
        return await it.send(given, it.encode(given))
