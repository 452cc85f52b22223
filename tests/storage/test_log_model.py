"""The log against a model of its promises, under any sequence of what can happen to it.

Readings come singly and in batches, again and again; readers open, freeze, acknowledge and give up; the disk fills,
fails at any statement, hangs, and loses power in the middle of a commit; the clock jumps. `--hypothesis-profile
thorough` looks for longer.
"""

import sqlite3
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from gateway.config import StorageSettings
from gateway.model.reading import NewQuarantine
from tests.extent import much
from tests.storage.log_model import (
    DAY_MS,
    DEDUPE_WINDOW_MS,
    QUARANTINE_BYTES,
    LogModel,
)
from tests.storage.log_under_test import LogUnderTest
from tests.storage.tampered_disk import Files, Plan, PowerCut, State

pytestmark = pytest.mark.timeout(7200)  # a thorough run takes long; every wait within has a bound of its own

_READERS = ["a", "b"]
_SPANS_MS = st.sampled_from([0, 1, 700, 5_000, DEDUPE_WINDOW_MS + 1, 2 * DAY_MS])
_JUMPS_MS = st.sampled_from([0, 300, -300, 5_000, 400 * DAY_MS, -400 * DAY_MS])
_SEEDS = st.integers(0, 1_000)
Step = TypeVar("Step", bound=Callable[..., None])
readers = st.sampled_from(_READERS)
messages = st.lists(
    st.tuples(st.sampled_from("xyXY"), st.sampled_from(["", *"0123456789"]), st.sampled_from(["", *"gcmnr"])).map(
        "".join
    ),
    min_size=1,
    max_size=4,
).map(" ".join)
"""Readings like `x3`: of device x, seq 3; `X3` of its next boot; `x` without key. After it g or c for where its time
came from, m or n for metadata, r when something else arrived than is stored."""


def only_if(holds: Callable[["LogMachine"], bool]) -> Callable[[Step], Step]:
    """Make nothing of a step that cannot be taken now.

    A precondition of hypothesis would leave it out instead. Then what is drawn next hangs on what the log's threads
    have done by now, of which not everything happens in the same order each time, and hypothesis finds that flaky.
    """

    def guarded(step: Step) -> Step:
        @wraps(step)
        def take(self: "LogMachine", *args: Any, **named: Any) -> None:
            if holds(self):
                step(self, *args, **named)

        return cast("Step", take)

    return guarded


class LogMachine(LogUnderTest):
    """What may happen to a log."""

    @initialize(
        overflow=st.sampled_from(["drop_oldest", "reject"]),
        retention_days=st.sampled_from([0, 1]),
        capacity=st.integers(9, 25) | st.just(100),  # with plenty of room commits seldom look how much there is
        start=st.sampled_from(["oldest", "now"]),
    )
    def open(self, overflow: Any, retention_days: int, capacity: int, start: str) -> None:
        self._patch()
        self.folder = self._new_folder()
        self.settings = StorageSettings(
            overflow=overflow,
            retention_days=retention_days,
            quarantine_max_bytes=QUARANTINE_BYTES,
            max_commit_readings=3,
            min_free_bytes=0,
        )
        self._run(self._open())
        self.model = LogModel(self.disk.now, overflow=overflow, retention_ms=retention_days * DAY_MS, capacity=capacity)
        self.model.restart(State.of(cast("sqlite3.Connection", self.disk)), self.log._gateway_boot)
        self._run(self._open_reader("a", start))

    # What comes in

    @rule(message=messages)
    def store(self, message: str) -> None:
        self._run(self._send(self._readings(message)))

    @rule(which=st.integers(0, 50), times=st.integers(1, 2))
    @only_if(lambda self: bool(self.ever))
    def store_again(self, which: int, times: int) -> None:
        old = self.ever[-1 - which % len(self.ever)]
        stream = self.log.stream(old.stream.organization_id, old.stream.device_id, old.stream.boot_id)
        again = old._replace(
            stream=stream,
            received_at_ms=self.clock.now_ms(),
            monotonic_ms=self.clock.monotonic_ms(),
            maybe_repeated=old.seq is None,
        )
        note(f"again: {again}")
        self._run(self._send([again] * times))

    @rule(several=st.lists(messages, min_size=2, max_size=6))
    def store_several(self, several: list[str]) -> None:
        """At once, so that one commit takes what comes while another runs."""
        self._run(self._send_all([self._readings(message) for message in several]))

    @rule(size=st.sampled_from([1, 100, 300]))
    def store_unusable(self, size: int) -> None:
        self.number += 1
        body = b"%d" % self.number + b"x" * size
        self._run(self._send([NewQuarantine("o", "x", "http", "code", "why", self.clock.now_ms(), body)]))

    # Readers

    @rule(name=readers, start=st.sampled_from(["oldest", "now"]))
    @only_if(lambda self: not self.hangs)
    def open_reader(self, name: str, start: str) -> None:
        self._run(self._open_reader(name, start))

    @rule(which=st.integers(0, 1), start=st.sampled_from(["oldest", "now"]))
    @only_if(lambda self: not self.hangs and bool(self.model.readers))
    def drop_reader_and_open_it_again(self, which: int, start: str) -> None:
        name = _pick(sorted(self.model.readers), which)
        self.drop_reader(name)
        self.open_reader(name, start)

    @rule(name=readers)
    @only_if(lambda self: len(self.model.readers) == len(_READERS))
    def drop_reader(self, name: str) -> None:
        del self.model.readers[name]
        self.given_up.update(batch for batch, one in self.model.attempts.items() if one.attempt.destination == name)
        if (freezing := self.freezing.pop(name, None)) is not None:
            self.dropping.append(freezing.task)
        self._run(self._drop(name))

    @rule(which=st.integers(0, 1), limit=st.integers(1, 5))
    @only_if(lambda self: bool(self._idle_readers()))
    def freeze(self, which: int, limit: int) -> None:
        """Send the next batch, or less of it: it was too large."""
        name = _pick(self._idle_readers(), which)
        if self.model.readers[name].batch:
            limit = max(1, self.model.attempts[self.model.readers[name].batch].attempt.readings // 2)
        self._run(self._freeze(name, limit))

    @rule(which=st.integers(0, 1))
    @only_if(lambda self: bool(self._sending_readers()))
    def acknowledge(self, which: int) -> None:
        name = _pick(self._sending_readers(), which)
        reader = self.model.readers[name]
        attempt = self.model.attempts[reader.batch].attempt
        if self.model.thaws(attempt) is not None:
            self.given_up.add(reader.batch)
            self.log.move_cursor(name, attempt.last_row)
            reader.move(attempt.last_row)

    @rule(which=st.integers(0, 1), limit=st.integers(1, 5))
    @only_if(lambda self: bool(self._free_readers()))
    def pass_on(self, which: int, limit: int) -> None:
        """Acknowledge without freezing, as a reader does that sends nothing."""
        name = _pick(self._free_readers(), which)
        reader = self.model.readers[name]
        rows = self._run(self._read(reader.position, limit))
        to = rows[-1].row if rows else self.log.last_row
        if to > reader.position:
            self.log.move_cursor(name, to)
            reader.move(to)

    @rule(which=st.integers(0, 1), message=messages, statement=st.integers(1, 12))
    @only_if(lambda self: not self.hangs and bool(self._free_readers()))
    def pass_on_twice_while_a_commit_fails(self, which: int, message: str, statement: int) -> None:
        self.pass_on(which, 1)
        self.the_disk_hangs_or_goes_on()
        self.store(message)
        self.pass_on(which, 1)
        self.disk.fail_at(statement, "io")
        self.the_disk_hangs_or_goes_on()

    @rule(which=st.integers(0, 1), limit=st.integers(1, 5), rows=st.integers(4, 9), steps=st.integers(1, 3))
    @only_if(lambda self: not self.hangs and bool(self._idle_readers()))
    def freeze_while_room_is_made(self, which: int, limit: int, rows: int, steps: int) -> None:
        self.the_disk_has_room_for(rows)
        self._run(self._tick_and_hang(steps))
        self.freeze(which, limit)
        self.the_disk_hangs_or_goes_on()

    def _idle_readers(self) -> list[str]:
        """Those of which no attempt is on its way to the disk."""
        return sorted(self.model.readers.keys() - self.freezing.keys())

    def _sending_readers(self) -> list[str]:
        return [name for name in self._idle_readers() if self.model.readers[name].batch]

    def _free_readers(self) -> list[str]:
        return [name for name in self._idle_readers() if not self.model.readers[name].batch]

    @rule(
        after=st.integers(0, 30),
        rows=st.integers(0, 30),
        limit=st.integers(1, 30),
        max_bytes=st.sampled_from([1, 30, 2**40]),
    )
    def read(self, after: int, rows: int, limit: int, max_bytes: int) -> None:
        self._run(self._read(after, limit, until=after + rows, max_bytes=max_bytes))

    # Time

    @rule()
    def tick(self) -> None:
        self._run(self._tick())

    @rule()
    def a_second_passes(self) -> None:
        self._run(self._flush())

    @rule(ms=_SPANS_MS, jump_ms=_JUMPS_MS, synced=st.booleans())
    def time_passes(self, ms: int, jump_ms: int, synced: bool) -> None:
        self.clock.advance(ms)
        self.clock.now += jump_ms
        self.clock.synced = synced

    @rule(ms=_SPANS_MS, jump_ms=_JUMPS_MS)
    @only_if(lambda self: not self.hangs)
    def the_clock_is_synchronised(self, ms: int, jump_ms: int) -> None:
        self.time_passes(ms, jump_ms, synced=True)
        self._run(self._learn_clock())

    # The disk

    @rule(rows=st.integers(9, 25))
    def the_disk_has_room_for(self, rows: int) -> None:
        self.model.capacity = rows
        self.model.tightest = min(self.model.tightest, rows)

    @rule(statement=st.integers(1, 25), fault=st.sampled_from(["io", "full"]))
    def the_disk_will_fail(self, statement: int, fault: str) -> None:
        self.disk.fail_at(statement, fault)

    @rule(message=messages, statement=st.integers(1, 12), fault=st.sampled_from(["io", "full"]))
    def store_on_a_failing_disk(self, message: str, statement: int, fault: str) -> None:
        self.disk.fail_at(statement, fault)
        self.store(message)

    @rule()
    def the_disk_hangs_or_goes_on(self) -> None:
        if not self.hangs:
            self.hangs = True
            self.disk.hang()
        else:
            self._let_go_on()
            self._run(self._settle())

    # Stops

    @rule(how=st.sampled_from(["closed", "killed"]), reboot=st.booleans())
    def stop(self, how: str, reboot: bool) -> None:
        if how == "killed":
            self._kill(Files.of(self.folder), reboot=reboot)
            return
        if self.hangs:
            self.the_disk_hangs_or_goes_on()
        self._run(self._close())
        self._restart(self.folder, reboot=reboot)

    @rule(
        message=messages,
        transaction=st.integers(1, 3),
        when=st.sampled_from(PowerCut),
        seed=_SEEDS,
    )
    @only_if(lambda self: not self.hangs)
    def the_power_goes_while_storing(self, message: str, transaction: int, when: PowerCut, seed: int) -> None:
        plan = self.disk.power_cut = Plan(transaction, when, seed)
        if not self._run(self._send_until(plan, self._readings(message))):
            self._kill(Files.of(self.folder), reboot=True)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of warnings about failing disks."""
    caplog.set_level("CRITICAL")


def _pick(names: list[str], which: int) -> str:
    return names[which % len(names)]


@example(0, 80)
@given(_SEEDS, _SEEDS)
@settings(deadline=None, max_examples=50)
def test_a_power_cut_brings_back_nothing_of_an_older_write_ahead_log(first: int, second: int) -> None:
    """The commit of the second begins the write-ahead log anew, over old frames; see `tampered_disk._power_cut`."""
    machine = LogMachine()
    machine.open("drop_oldest", retention_days=0, capacity=9, start="oldest")
    try:
        machine.the_power_goes_while_storing("x", transaction=1, when=PowerCut.WRITING_WAL, seed=first)
        machine.store("x")
        machine.the_power_goes_while_storing("x", transaction=1, when=PowerCut.WRITING_WAL, seed=second)
    finally:
        machine.teardown()


TestLog = LogMachine.TestCase
TestLog.settings = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=much(60, 3_000),
    report_multiple_bugs=False,  # the first is enough to be shrunk well
    stateful_step_count=max(100, settings.default.stateful_step_count if settings.default else 0),
)
