"""A time is a time, or None; never an exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.parsers.timestamp import FIRST_CREDIBLE_MS, LAST_CREDIBLE_MS, unix_ms

NOON_MS = 1_795_176_000_000


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-20T12:00:00Z",
        "2026-11-20T12:00:00.000Z",
        "2026-11-20T13:00:00+01:00",
        "2026-11-20T06:30:00-05:30",
        "2026-11-20T12:00:00",
        "2026-11-20 12:00:00",
        1_795_176_000,
        1_795_176_000.0,
        1_795_176_000_000,
    ],
)
def test_every_way_of_writing_noon(timestamp: object) -> None:
    assert unix_ms(timestamp) == NOON_MS


@pytest.mark.parametrize(
    "timestamp",
    [
        None,
        "",
        "now",
        "2019-12-31T23:59:59Z",
        0,
        -1,
        946_684_800,
        1_577_836_799,
        True,
        [],
        {},
        "9999-12-31T00:00:00Z",
        10**400,
    ],
)
def test_what_cannot_be_when_a_board_measured_is_no_time(timestamp: object) -> None:
    assert unix_ms(timestamp) is None


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.datetimes().map(str))
def test_no_input_raises(timestamp: object) -> None:
    ms = unix_ms(timestamp)
    assert ms is None or FIRST_CREDIBLE_MS <= ms <= LAST_CREDIBLE_MS
