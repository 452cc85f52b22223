import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.receiver.seen import SeenIds, SeenRows


@given(st.lists(st.integers(0, 40), max_size=80))
def test_it_behaves_like_a_set(rows: list[int]) -> None:
    seen, model = SeenRows(), set[int]()
    for row in rows:
        assert seen.add(row) is (row not in model)
        model.add(row)


def test_rows_in_order_are_one_range() -> None:
    seen = SeenRows()
    for row in [*range(1000), *range(1500, 2000), *range(1000, 1500)]:
        assert seen.add(row)
    assert (seen._starts, seen._ends) == ([0], [1999])


def test_logs_are_kept_apart() -> None:
    seen = SeenIds()
    assert seen.add("site-1:log-1:7")
    assert seen.add("site-1:log-2:7")
    assert not seen.add("site-1:log-1:7")


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        SeenIds().add("seven")
