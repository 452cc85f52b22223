import pytest
from tenacity import AsyncRetrying, RetryCallState

from cloud_sync.backoff import Backoff
from cloud_sync.contract import AuthFailed, NotConnected, Outcome, RetryAfter, WrongAddress


def wait_s(outcome: Outcome, *, attempt: int = 1, random: float = 0.5) -> float:
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_result(outcome)
    return Backoff(lambda: random)(state)


def test_the_window_doubles_from_one_second_to_five_minutes() -> None:
    windows = [wait_s(NotConnected(""), attempt=attempt, random=1.0) for attempt in range(1, 12)]
    assert windows == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert wait_s(NotConnected(""), attempt=100_000, random=1.0) == 300


def test_the_whole_window_is_jitter() -> None:
    assert [wait_s(NotConnected(""), attempt=5, random=random) for random in (0.0, 0.5)] == [0, 8]


@pytest.mark.parametrize("outcome", [AuthFailed(""), WrongAddress("")])
def test_what_only_a_person_mends_waits_longest_at_once(outcome: Outcome) -> None:
    assert wait_s(outcome, random=0.0) == 300


def test_asked_patience_is_the_least() -> None:
    assert wait_s(RetryAfter(60.0, ""), random=0.0) == 60
    assert wait_s(RetryAfter(60.0, ""), random=0.5) == 63
    assert wait_s(RetryAfter(1.0, ""), random=0.5) == 1.5
    assert wait_s(RetryAfter(0.0, ""), attempt=9, random=0.5) == 128
    assert wait_s(RetryAfter(None, ""), attempt=3, random=0.5) == 2
