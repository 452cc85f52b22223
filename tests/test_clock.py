"""Time is asked for in one place, and a test can move it."""

import time
from pathlib import Path

import pytest

from gateway.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_is_the_machines_in_milliseconds() -> None:
    clock = SystemClock()
    before = time.time() * 1000
    assert before - 1 <= clock.now_ms() <= time.time() * 1000
    before = time.monotonic() * 1000
    assert before - 1 <= clock.monotonic_ms() <= time.monotonic() * 1000


def test_whether_the_clock_is_synchronised_is_asked_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    answers = [True, False]
    now, wall_ms = 1000.0, 1_800_000_000_000
    monkeypatch.setattr(clock, "_ask_kernel", lambda: answers.pop(0))
    monkeypatch.setattr("gateway.clock.time.monotonic", lambda: now)
    monkeypatch.setattr(clock, "monotonic_ms", lambda: round(now * 1000))
    monkeypatch.setattr(clock, "now_ms", lambda: wall_ms + round(now * 1000))
    assert [clock.is_synced() for _ in range(5)] == [True] * 5
    now += 9.9
    assert clock.is_synced()
    now += 0.2
    assert [clock.is_synced() for _ in range(5)] == [False] * 5


@pytest.mark.parametrize("jump_s", [86_400, -86_400, 1, -1])
def test_a_clock_that_is_set_is_not_vouched_for_by_an_older_answer(
    monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """Setting it by hand ends the kernel's synchronisation at that moment."""
    clock = SystemClock()
    answers = [True, False]
    monkeypatch.setattr(clock, "_ask_kernel", lambda: answers.pop(0))
    assert clock.is_synced()
    assert clock.is_synced()
    now_ms = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: now_ms() + jump_s * 1000)
    assert not clock.is_synced()
    assert not clock.is_synced()


def test_the_boot_has_a_name_that_stays() -> None:
    assert (
        SystemClock().boot_id() == SystemClock().boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text()[:36]
    )


def test_soon_after_the_machine_has_started_the_kernel_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its monotonic time begins at 0 there."""
    monkeypatch.setattr("gateway.clock.time.monotonic", lambda: 0.5)
    clock = SystemClock()
    monkeypatch.setattr(clock, "_ask_kernel", lambda: True)
    assert clock.is_synced()


@pytest.mark.parametrize(("state", "synced"), [(-1, False), (0, True), (1, True), (4, True), (5, False)])
def test_the_kernels_answer_is_that_of_adjtimex(monkeypatch: pytest.MonkeyPatch, state: int, synced: bool) -> None:
    """adjtimex(2): 5 is TIME_ERROR, -1 that it could not be asked; 1 to 4 are about leap seconds."""

    class Libc:
        def adjtimex(self, _: object) -> int:
            return state

    clock = SystemClock()
    monkeypatch.setattr(clock, "_libc", Libc())
    assert clock.is_synced() is synced


def test_a_machine_without_adjtimex_counts_as_not_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    monkeypatch.setattr(clock, "_libc", object())
    assert clock.is_synced() is False


def test_the_kernel_really_answers() -> None:
    assert SystemClock().is_synced() in (True, False)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(1000, synced=False)
    one: Clock = clock
    assert (one.now_ms(), one.monotonic_ms(), one.is_synced()) == (1000, 0, False)
    clock.advance(5)
    assert (one.now_ms(), one.monotonic_ms()) == (1005, 5)
    clock.now = 1  # the wall clock jumps, the other one never does
    assert (one.now_ms(), one.monotonic_ms()) == (1, 5)
