"""What waits for the next commit: in order, whole messages, and nothing twice."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.storage import waiting as waiting_module
from gateway.storage.waiting import Batch, Waiting
from tests.storage.small_log import attempt, unusable


class Owner:
    """Hears of nothing here."""

    def committed(self, _: int) -> None: ...

    def failed(self, error: Any) -> None: ...


def holding(*sizes: int, most: int = 100) -> Waiting:
    """Let messages of so many entries wait; the payloads are b"0", b"1" and so on."""
    waiting = Waiting(most)
    number = 0
    for size in sizes:
        for part in range(size):
            waiting.add(unusable(number), Owner() if part == size - 1 else None)
            number += 1
    return waiting


def payloads(batch: Batch | None) -> list[int]:
    assert batch is not None
    assert len(batch.owners) == len(batch.entries)
    assert batch.owners[-1:] != [None]
    assert batch.size_bytes == sum(len(entry.payload) for entry in batch.entries)
    return [int(entry.payload) for entry in batch.entries]


@pytest.mark.parametrize(
    ("sizes", "most", "batches"),
    [
        ([1, 1, 1], 2, [[0, 1], [2]]),
        ([1, 4, 1], 2, [[0, 1, 2, 3, 4], [5]]),
        ([3], 1, [[0, 1, 2]]),
        ([], 1, [[]]),
    ],
)
def test_a_batch_has_so_many_entries_and_what_belongs_to_the_last(
    sizes: Sequence[int], most: int, batches: list[list[int]]
) -> None:
    waiting = holding(*sizes, most=most)
    for batch in batches:
        assert payloads(waiting.take()) == batch
        assert waiting.size_bytes == sum(len(entry.payload) for entry in waiting.entries)
        assert waiting.is_due is bool(waiting)
    assert not waiting


def test_a_batch_ends_with_the_entry_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "_COMMIT_BYTES", 3)
    waiting = holding(*[1] * 10)
    assert [payloads(waiting.take()) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_message_that_may_be_growing_stays_for_another_batch() -> None:
    waiting = holding(1, 2)
    waiting.add(unusable(3), None)
    assert payloads(waiting.take_complete()) == [0, 1, 2]
    assert waiting.take_complete() is None
    waiting.add(unusable(4), Owner())
    assert payloads(waiting.take_complete()) == [3, 4]


async def test_a_move_waits_for_company_and_an_attempt_for_none() -> None:
    waiting = holding()
    waiting.move("cloud", 7)
    assert not waiting
    assert waiting.take_complete() is None
    freeze = (attempt("cloud", 7, 9), asyncio.get_running_loop().create_future())
    waiting.freeze(freeze)
    assert waiting
    batch = waiting.take_complete()
    assert batch is not None
    assert (batch.entries, batch.moves, batch.freezes) == ([], {"cloud": 7}, [freeze])
    assert not waiting
    assert (waiting.take().moves, waiting.take().freezes) == ({}, [])


async def test_what_is_put_back_comes_first() -> None:
    waiting = holding(1, 2, most=3)
    first, second = ((attempt("cloud", 0, row), asyncio.get_running_loop().create_future()) for row in (1, 2))
    waiting.freeze(first)
    waiting.move("cloud", 1)
    waiting.move("dropped", 1)
    batch = waiting.take()
    waiting.add(unusable(3), Owner())
    waiting.freeze(second)
    waiting.move("hall", 2)
    waiting.put_back(batch, {"cloud": 1})
    assert waiting.size_bytes == 4
    again = waiting.take()
    assert payloads(again) == [0, 1, 2]
    assert again.freezes == [first, second]
    assert again.moves == {"cloud": 1, "hall": 2}
    assert payloads(waiting.take()) == [3]


def test_a_move_is_changed_or_forgotten_only_while_it_waits() -> None:
    waiting = holding()
    waiting.move_again("cloud", 1)
    assert waiting.moves == {}
    waiting.move("cloud", 1)
    waiting.move_again("cloud", 2)
    assert waiting.moves == {"cloud": 2}
    waiting.forget_move("cloud")
    waiting.forget_move("cloud")
    assert waiting.moves == {}


def test_whoever_hurries_hurries_what_waits_now() -> None:
    waiting = holding(1)
    due: list[bool] = []
    for step in (waiting.hurry, waiting.take, waiting.hurry):
        step()
        due.append(waiting.is_due)
    assert due == [True, False, False]
