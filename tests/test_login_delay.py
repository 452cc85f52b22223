"""Answers to failed logins wait, the longer the more fail; within bounds, and nobody else's fault."""

from contextlib import ExitStack

import pytest

from gateway import login_delay
from gateway.clock import ManualClock
from gateway.login_delay import FIRST_S, LONGEST_S, LoginDelay

FORGOTTEN_MS = 15 * 60 * 1000


def fail(delay: LoginDelay, address: str, username: str | None = None) -> float:
    with delay.failed(address, username) as delay_s:
        return delay_s


def test_each_failure_of_an_address_waits_twice_as_long_up_to_a_bound() -> None:
    delay = LoginDelay(ManualClock(), waiting_at_most=200)
    waits = [fail(delay, "10.0.0.1") for _ in range(100)]
    assert waits[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert set(waits[10:]) == {LONGEST_S}
    assert fail(delay, "10.0.0.2") == FIRST_S


def test_a_username_that_is_guessed_from_many_addresses_waits_too() -> None:
    delay = LoginDelay(ManualClock(), waiting_at_most=200)
    waits = [fail(delay, f"10.0.0.{number}", "default/kitchen") for number in range(5)]
    assert waits == [FIRST_S * 2**number for number in range(5)]
    assert fail(delay, "10.0.1.1", "default/hall") == FIRST_S


def test_an_ipv6_address_is_its_network() -> None:
    delay = LoginDelay(ManualClock(), waiting_at_most=200)
    assert fail(delay, "2001:db8::1") == FIRST_S
    assert fail(delay, "2001:db8::ffff:1") == 2 * FIRST_S
    assert fail(delay, "2001:db8:0:1::1") == FIRST_S
    assert fail(delay, "fe80::1%eth0") == FIRST_S
    assert fail(delay, "10.0.0.1") == FIRST_S
    assert fail(delay, "::ffff:10.0.0.1") == 2 * FIRST_S


def test_what_failed_long_ago_is_forgotten() -> None:
    clock = ManualClock()
    delay = LoginDelay(clock, waiting_at_most=200)
    assert [fail(delay, "10.0.0.1") for _ in range(2)] == [FIRST_S, 2 * FIRST_S]
    clock.advance(FORGOTTEN_MS - 1)
    assert fail(delay, "10.0.0.1") == 4 * FIRST_S
    clock.advance(FORGOTTEN_MS)
    assert fail(delay, "10.0.0.1") == FIRST_S


def test_only_so_many_wait_at_once() -> None:
    """Whoever waits holds a connection: neither one address nor all together may take them from the boards."""
    delay = LoginDelay(ManualClock(), waiting_at_most=200)
    with ExitStack() as waiting:
        of_one = [waiting.enter_context(delay.failed("10.0.0.1", None)) for _ in range(110)]
        assert [wait > 0 for wait in of_one] == [True] * 100 + [False] * 10
        of_all = [waiting.enter_context(delay.failed(f"10.0.1.{number}", None)) for number in range(200)]
        assert sum(wait > 0 for wait in of_all) == 100
    assert fail(delay, "10.0.0.1") == LONGEST_S
    assert not delay._waiting


def test_what_is_remembered_is_bounded_and_the_oldest_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_delay, "_REMEMBERED", 10)
    delay = LoginDelay(ManualClock(), waiting_at_most=200)
    for number in range(20):
        fail(delay, f"10.0.0.{number}")
        fail(delay, "10.9.9.9")  # goes on failing, so it is not forgotten
    assert len(delay._failures) == 10
    assert fail(delay, "10.9.9.9") == LONGEST_S
    assert fail(delay, "10.0.0.0") == FIRST_S
