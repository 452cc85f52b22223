"""The engine behind callbacks: order, repetition, refusals, and what a restart finds."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.callbacks import Callback, CallbackState
from cloud_sync.contract import AuthFailed, Gone, NotConnected, Ok, Outcome, Rejected, RetryAfter, TooLarge
from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.storage.log import Log
from gateway.storage.mqtt_messages import MqttMessages
from gateway.storage.mqtt_store import MqttStore
from gateway.storage.mqtt_subscriptions import SubscriptionRow
from gateway.storage.state import State
from tests.cloud_sync.site import until

KEY = b"k" * 32


@dataclass
class Scripted:
    """A receiver that answers as it is told, or refuses what it dislikes; then it takes everything."""

    answers: list[Outcome] = field(default_factory=list)
    dislikes: frozenset[int] = frozenset()
    takes_at_most: int = 1_000
    sent: list[tuple[str, list[int]]] = field(default_factory=list)
    hangs: bool = False
    """When it has no answer left."""
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """Happens before its first answer."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def send(self, message_id: str, body: bytes) -> Outcome:
        numbers = json.loads(body)
        self.sent.append((message_id, numbers))
        if self.hangs and not self.answers:
            await asyncio.get_running_loop().create_future()
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        if self.answers:
            return self.answers.pop(0)
        if len(numbers) > self.takes_at_most:
            return TooLarge("too large")
        return Rejected("disliked") if self.dislikes & set(numbers) else Ok()

    @property
    def taken(self) -> list[int]:
        return [number for _, numbers in self.sent for number in numbers]


@dataclass
class Bench:
    """A log with messages, and one subscription with a callback."""

    log: Log
    store: MqttStore
    messages: MqttMessages
    row: SubscriptionRow
    metrics: Metrics
    slept: list[float] = field(default_factory=list)

    async def publish(self, *numbers: int, topic: str = "devices/kitchen/status") -> None:
        for number in numbers:
            kept = self.messages.keep(f"default/{topic}", str(number).encode(), 1, retain=False)
            if kept is not None:
                await self.store.written([kept[1]])
                self.messages.stored(kept[0])

    @asynccontextmanager
    async def sending(self, post: Scripted) -> AsyncIterator[CallbackState]:
        state = CallbackState()
        clock = ManualClock()

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            clock.advance(round(seconds * 1000))
            await asyncio.sleep(0)

        def encode(messages: Any) -> bytes:
            return json.dumps([int(message.payload) for message in messages]).encode()

        callback = Callback(
            self.row, self.messages, post, encode, state, clock, self.metrics, sleep=sleep, random=lambda: 1.0
        )
        task = asyncio.create_task(callback.run())
        try:
            yield state
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    @property
    def position(self) -> int:
        return self.messages.positions[self.row.id].acknowledged


@asynccontextmanager
async def opened(folder: Path, *, max_messages: int = 1_000) -> AsyncIterator[Bench]:
    metrics, clock = Metrics(), ManualClock()
    async with (
        State.open(folder / "state.db", KEY, clock=clock) as state,
        Log.create(folder / "log.db", StorageSettings(), dedupe_window_ms=0, clock=clock, metrics=metrics) as log,
    ):
        store = MqttStore(log)
        messages = MqttMessages(
            log, store, state, clock, metrics, max_messages=max_messages, max_bytes=1_000_000, max_age_s=86_400
        )
        await messages.open()
        if not messages.subscriptions:
            await messages.subscribe("default", ("devices/+/status",), "http://receiver.test/")
        (row,) = messages.subscriptions.values()
        yield Bench(log, store, messages, row, metrics)
        await store.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        yield bench


async def test_what_waits_goes_out_in_order_in_batches(bench: Bench) -> None:
    await bench.publish(*range(250))
    await bench.publish(1_000, topic="devices/kitchen/other")
    post = Scripted()
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 250)
        assert post.taken == list(range(250))
        assert [len(numbers) for _, numbers in post.sent] == [100, 100, 50]
        assert len({name for name, _ in post.sent}) == 3


@pytest.mark.parametrize("failure", [NotConnected("away"), RetryAfter(7.0, "busy"), AuthFailed("who?")])
async def test_a_failure_is_tried_again_with_the_same_id_and_nothing_moves(bench: Bench, failure: Outcome) -> None:
    await bench.publish(1, 2)
    post = Scripted([failure] * 3)
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 2)
    assert post.sent == [post.sent[0]] * 4
    assert len(bench.slept) == 3
    assert state.last_error == ""


async def test_a_receiver_that_wants_no_more_gets_no_more(bench: Bench) -> None:
    await bench.publish(1)
    post = Scripted([Gone("410")])
    async with bench.sending(post) as state:
        await until(lambda: state.state == "gone")
        await bench.publish(2)
        assert len(post.sent) == 1
    assert bench.position == 0


async def test_what_is_too_large_is_cut_until_it_fits(bench: Bench) -> None:
    await bench.publish(*range(10))
    post = Scripted(takes_at_most=3)
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 10)
    accepted = [number for _, numbers in post.sent if len(numbers) <= 3 for number in numbers]
    assert accepted == list(range(10))
    assert state.refused == 0


async def test_p4_a_message_that_is_refused_alone_is_passed_over_and_counted(bench: Bench) -> None:
    await bench.publish(*range(20))
    post = Scripted(dislikes=frozenset({7, 8}))
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 18)
        assert state.refused == 2
        assert state.last_error == ""
    accepted = [number for _, numbers in post.sent if not {7, 8} & set(numbers) for number in numbers]
    assert accepted == [number for number in range(20) if number not in {7, 8}]
    labels = {"destination": "mqtt_callbacks", "reason": "rejected"}
    assert bench.metrics.registry.get_sample_value("neurogate_events_dropped_total", labels) == 2


async def test_p4_a_receiver_that_refuses_everything_loses_nothing(bench: Bench) -> None:
    await bench.publish(*range(30))
    post = Scripted([Rejected("disliked")] * 14)  # 30, 15, 7 and 3 of them, and ten alone
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 30)
        assert [numbers for _, numbers in post.sent[4:15]] == [[0], [1], [2], [3], [4], [5], [6], [7], [8], [9], [0]]
        assert 300.0 in bench.slept
        assert state.refused == 0


async def test_a_batch_on_its_way_goes_out_again_under_its_id_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.publish(1, 2)
        first = Scripted(hangs=True)
        async with bench.sending(first):
            await until(lambda: len(first.sent) == 1)
        await bench.publish(3)
    async with opened(tmp_path) as bench:
        second = Scripted()
        async with bench.sending(second) as state:
            await until(lambda: state.delivered == 3)
        assert second.sent[0] == first.sent[0]
        assert second.taken == [1, 2, 3]


async def test_a_refusal_that_nothing_has_confirmed_is_not_forgotten_by_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.publish(5, 6)
        first = Scripted([Rejected("both"), Rejected("no 5")], hangs=True)
        async with bench.sending(first):
            await until(lambda: len(first.sent) == 3)
    async with opened(tmp_path) as bench:
        assert bench.position == 0
        second = Scripted()
        async with bench.sending(second) as state:
            await until(lambda: state.delivered == 1)
            assert state.refused == 1
        assert second.sent == [first.sent[2]]


async def test_a_batch_of_which_some_has_left_goes_out_under_a_new_id(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.publish(1, 2)
        first = Scripted(hangs=True)
        async with bench.sending(first):
            await until(lambda: len(first.sent) == 1)
        await bench.store.written([("DELETE FROM mqtt_messages WHERE id = ?", (1,))])
    async with opened(tmp_path) as bench:
        second = Scripted()
        async with bench.sending(second) as state:
            await until(lambda: state.delivered == 1)
        ((name, numbers),) = second.sent
        assert numbers == [2]
        assert name != first.sent[0][0]


async def test_what_was_erased_meanwhile_is_not_sent_again(bench: Bench) -> None:
    await bench.publish(1, 2)

    async def erase() -> None:
        bench.log.erasures += 1
        await bench.store.written([("DELETE FROM mqtt_messages WHERE id = ?", (1,))])
        bench.log.erasures += 1

    post = Scripted([NotConnected("away")], meanwhile=erase)
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 1)
    assert post.sent[-1][1] == [2]


async def test_nothing_leaves_that_could_not_be_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.publish(1)
    post = Scripted()
    written = bench.store.written
    failures = 3

    async def fails(changes: Any = ()) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            assert not post.sent
            raise StoreFailed("the disk is full")
        await written(changes)

    monkeypatch.setattr(bench.store, "written", fails)
    async with bench.sending(post) as state:
        await until(lambda: state.delivered == 1)
    assert bench.slept == [5.0] * 3


async def test_an_id_is_never_given_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        await bench.publish(1, 2, 3)
        await bench.store.written([("DELETE FROM mqtt_messages", ())])
    async with opened(tmp_path) as bench:
        await bench.publish(4)
        found, _ = await bench.messages.read(bench.row, 0, until=100, limit=10)
        assert [message.id for message in found] == [4]


async def test_what_is_too_old_leaves_when_the_time_is_known(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        clock = bench.messages._clock
        assert isinstance(clock, ManualClock)
        await bench.publish(1)
        clock.advance(86_300_000)
        await bench.publish(2)
        clock.advance(200_000)
        bench.messages.expire()
        await bench.store.written()
        found, _ = await bench.messages.read(bench.row, 0, until=100, limit=10)
        assert [message.payload for message in found] == [b"2"]
