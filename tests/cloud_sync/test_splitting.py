"""The search for culprits, without a destination."""

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.splitting import BatchSize, Splitting


def search(rows: list[int], culprits: set[int], *, named: bool = False) -> tuple[list[int], list[int], int]:
    """Send all rows to a destination that refuses the culprits; returns accepted, refused and the requests."""
    parts = Splitting()
    accepted: list[int] = []
    refused: list[int] = []
    requests = 0
    while left := rows[len(accepted) + len(refused) :]:
        batch = [row for row in left if parts.end is None or row <= parts.end]
        batch = batch[: parts.cut(batch)]
        assert batch, "nothing would be sent, for ever"
        requests += 1
        bad = culprits.intersection(batch)
        if not bad:
            accepted += batch
            parts.passed(batch[-1], clean=True)
        elif len(batch) == 1:
            refused += batch
            parts.passed(batch[-1], clean=False)
        else:
            parts.refused(batch, bad if named else ())
    return accepted, refused, requests


@given(st.sets(st.integers(1, 10_000), min_size=1, max_size=300), st.data())
def test_each_culprit_is_found_and_nothing_else(rows: set[int], data: st.DataObject) -> None:
    culprits = data.draw(st.sets(st.sampled_from(sorted(rows))))
    accepted, refused, requests = search(sorted(rows), culprits)
    assert accepted == sorted(rows - culprits)
    assert refused == sorted(culprits)
    assert requests <= 1 + len(culprits) * (2 * ceil(log2(len(rows) + 1)) + 2)


@pytest.mark.parametrize("culprit", [1, 2, 2500, 2501, 3333, 4999, 5000])
def test_one_culprit_costs_a_logarithm(culprit: int) -> None:
    _, refused, requests = search(list(range(1, 5001)), {culprit})
    assert refused == [culprit]
    assert requests <= 2 * ceil(log2(5000)) + 1


def test_a_part_that_must_hold_the_culprit_is_not_sent_whole() -> None:
    _, _, requests = search(list(range(1, 1025)), {1024})
    assert requests == 1 + 10 + 1  # the whole, a half at a time, the culprit


@given(st.sets(st.integers(1, 1000), min_size=2, max_size=100), st.data())
def test_named_culprits_are_cut_out_at_once(rows: set[int], data: st.DataObject) -> None:
    culprits = data.draw(st.sets(st.sampled_from(sorted(rows)), min_size=1))
    accepted, refused, requests = search(sorted(rows), culprits, named=True)
    assert (accepted, refused) == (sorted(rows - culprits), sorted(culprits))
    assert requests <= 2 + 2 * len(culprits)


def test_names_that_are_not_in_the_batch_are_ignored() -> None:
    parts = Splitting()
    parts.refused([1, 2, 3, 4], [99])
    assert parts.cut([1, 2, 3, 4]) == 2


def test_a_size_that_was_too_large_is_halved_and_grows_again() -> None:
    size = BatchSize(100)
    size.too_large(100)
    sizes = [size.readings]
    for _ in range(60):
        size.accepted()
        sizes.append(size.readings)
    assert sizes[:3] == [50, 52, 54]
    assert sizes[-1] == 100
    size.too_large(1)
    assert size.readings == 1
