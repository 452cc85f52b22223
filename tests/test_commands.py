"""The engine of commands: told once, in time, and what came of each is on disk."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.commands import ON_THEIR_WAY_AT_MOST, Commands, Key
from gateway.metrics import Metrics
from gateway.model.command import PAYLOAD_BYTES, RESULT_BYTES, Command, Late
from gateway.model.errors import BadInput, Conflict, NotFound, StoreFailed
from gateway.storage import commands as storage
from gateway.storage.commands import Commands as Store
from gateway.storage.state import State

ACME, KITCHEN = "acme", "kitchen"


@dataclass
class Boards:
    """Devices that can be there, and hear."""

    there: set[str] = field(default_factory=set)
    told: list[Command] = field(default_factory=list)
    withdrawn: set[Key] = field(default_factory=set)

    def is_listening(self, command: Command) -> bool:
        return command.device_id in self.there

    async def tell(self, command: Command) -> None:
        self.told.append(command)

    def withdraw(self, keys: Collection[Key]) -> None:
        self.withdrawn |= set(keys)


@dataclass
class Bench:
    """An engine, and all around it."""

    clock: ManualClock
    store: Store
    boards: Boards
    metrics: Metrics
    engine: Commands

    async def send(
        self,
        command_id: str | None = None,
        *,
        device: str = KITCHEN,
        method: str = "identify",
        params: dict[str, Any] | None = None,
        timeout_ms: int = 30_000,
    ) -> Command:
        asked = {"seconds": 5} if params is None else params
        return await self.engine.send(
            ACME, device, method, asked, timeout_ms=timeout_ms, command_id=command_id, actor="token:alice"
        )

    async def says(self, command: Command, payload: bytes) -> list[StoreFailed | None]:
        heard: list[StoreFailed | None] = []
        self.engine.answered(command.key, payload, heard.append)
        await self.engine.turn()
        return heard

    async def now(self, command: Command) -> Command:
        return await self.store.get(*command.key)

    async def restarted(self) -> "Bench":
        """Another gateway on what this one has left."""
        metrics = Metrics()
        boards = Boards(set(self.boards.there))
        again = Bench(self.clock, self.store, boards, metrics, Commands(self.store, boards, self.clock, metrics))
        await again.engine.open()
        return again


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    async with State.open(tmp_path / "state.db", bytes(32), clock=clock) as state:
        metrics, boards, store = Metrics(), Boards({KITCHEN}), Store(state)
        yield Bench(clock, store, boards, metrics, Commands(store, boards, clock, metrics))


async def test_a_command_is_told_and_its_result_is_kept(bench: Bench) -> None:
    sent = await bench.send("one")
    assert (sent.state, sent.actor, sent.deadline_ms) == ("queued", "token:alice", bench.clock.now + 30_000)
    await bench.engine.turn()
    assert [one.key for one in bench.boards.told] == [(ACME, KITCHEN, "one")]
    deadline_s = sent.deadline_ms // 1000
    assert sent.payload() == b'{"method":"identify","params":{"seconds":5},"deadline":%d}' % deadline_s
    assert (await bench.now(sent)).state == "sent"
    assert await bench.says(sent, b'{"state":"executing"}') == [None]
    assert (await bench.now(sent)).state == "executing"
    bench.clock.advance(2_000)
    assert await bench.says(sent, b'{"state":"successful","result":{"blinked":5}}') == [None]
    done = await bench.now(sent)
    assert (done.state, done.result, done.finished_at_ms) == ("successful", {"blinked": 5}, bench.clock.now)
    await bench.says(sent, b'{"state":"failed","result":"again"}')  # what is over stays
    assert await bench.now(sent) == done
    assert bench.metrics.registry.get_sample_value("neurogate_commands_total", {"state": "successful"}) == 1


async def test_it_waits_for_a_device_that_is_away_and_is_told_once(bench: Bench) -> None:
    bench.boards.there.clear()
    sent = await bench.send()
    await bench.engine.turn()
    assert bench.boards.told == []
    bench.boards.there.add(KITCHEN)
    for _ in range(3):
        await bench.engine.turn()
    assert [one.id for one in bench.boards.told] == [sent.id]


async def test_too_late_it_is_not_told_and_a_late_answer_is_no_success(bench: Bench) -> None:
    bench.boards.there.clear()
    never = await bench.send("never")
    bench.boards.there.add("hall")
    told = await bench.send("told", device="hall")
    await bench.engine.turn()
    bench.clock.advance(30_000)
    bench.boards.there.add(KITCHEN)
    await bench.engine.turn()
    assert [one.id for one in bench.boards.told] == ["told"]
    assert bench.boards.withdrawn == {never.key, told.key}
    assert ((await bench.now(never)).state, (await bench.now(never)).sent_at_ms) == ("expired", None)
    await bench.says(told, b'{"state":"executing"}')
    await bench.says(told, b'{"state":"successful","result":1}')
    late = await bench.now(told)
    assert (late.state, late.result) == ("expired", None)
    assert late.late == Late("successful", 1, bench.clock.now)
    assert bench.metrics.registry.get_sample_value("neurogate_commands_total", {"state": "expired"}) == 2


async def test_an_answer_counts_by_when_it_came(bench: Bench) -> None:
    early, late = await bench.send("early"), await bench.send("late")
    await bench.engine.turn()
    bench.clock.advance(29_999)
    bench.engine.answered(early.key, b'{"state":"successful"}', lambda _: None)
    bench.clock.advance(1)
    await bench.says(late, b'{"state":"successful"}')
    assert (await bench.now(early)).state == "successful"
    assert (await bench.now(late)).state == "expired"
    assert (await bench.now(late)).late is not None


async def test_no_more_are_on_their_way_than_a_board_keeps(bench: Bench) -> None:
    sent = [await bench.send(f"c{number}") for number in range(ON_THEIR_WAY_AT_MOST + 2)]
    await bench.engine.turn()
    assert bench.boards.told[-1].id == "c3"
    await bench.says(sent[0], b'{"state":"executing"}')
    assert len(bench.boards.told) == ON_THEIR_WAY_AT_MOST
    await bench.says(sent[0], b'{"state":"failed"}')
    assert [one.id for one in bench.boards.told] == ["c0", "c1", "c2", "c3", "c4"]


async def test_after_a_restart_it_is_still_good_or_over_and_never_told_again(bench: Bench) -> None:
    told = await bench.send("told")
    await bench.engine.turn()
    bench.boards.there.clear()
    waits, short = await bench.send("waits"), await bench.send("short", timeout_ms=5_000)
    bench.clock.advance(10_000)
    bench.clock.monotonic = 7  # another boot
    again = await bench.restarted()
    assert (await again.now(short)).state == "expired"
    assert short.key in again.boards.withdrawn
    again.boards.there.add(KITCHEN)
    await again.engine.turn()
    assert [one.id for one in again.boards.told] == ["waits"]
    await again.says(told, b'{"state":"successful"}')
    assert (await again.now(told)).state == "successful"
    again.clock.advance(20_000)
    await again.engine.turn()
    assert (await again.now(waits)).state == "expired"
    assert told.key in (await again.restarted()).boards.withdrawn  # its broker may have forgotten that it was heard


async def test_a_clock_that_has_gone_back_makes_no_command_good_for_longer(bench: Bench) -> None:
    bench.boards.there.clear()
    sent = await bench.send()
    bench.clock.now -= 86_400_000
    assert (await (await bench.restarted()).now(sent)).state == "expired"


async def test_a_clock_that_is_set_moves_no_deadline(bench: Bench) -> None:
    bench.boards.there.clear()
    sent = await bench.send()
    bench.clock.now += 86_400_000
    await bench.engine.turn()
    assert (await bench.now(sent)).state == "queued"


async def test_with_the_same_id_it_is_the_same_command(bench: Bench) -> None:
    first = await bench.send("mine")
    await bench.engine.turn()
    again = await bench.send("mine", timeout_ms=90_000)
    assert again == replace(first, state="sent", sent_at_ms=bench.clock.now)
    await bench.engine.turn()
    assert len(bench.boards.told) == 1
    with pytest.raises(Conflict, match="asks for something else"):
        await bench.send("mine", params={"seconds": 6})
    assert (await bench.send("mine", device="hall")).state == "queued"  # another device's


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"command_id": "a/b"}, "invalid_command_id"),
        ({"command_id": "+"}, "invalid_command_id"),
        ({"command_id": ""}, "invalid_command_id"),
        ({"command_id": "x" * 65}, "invalid_command_id"),
        ({"method": ""}, "invalid_method"),
        ({"method": "a b"}, "invalid_method"),
        ({"params": {"text": "x" * PAYLOAD_BYTES}}, "command_too_large"),
        ({"timeout_ms": 999}, "invalid_timeout"),
        ({"timeout_ms": 86_400_001}, "invalid_timeout"),
    ],
)
async def test_what_no_device_could_be_told_is_refused(bench: Bench, wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(BadInput) as refused:
        await bench.send(**wrong)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "nonsense", [b"", b"\xff", b"[]", b'{"state":"sent"}', b'{"state":"successful","result":1e999}', b"[" * 100_000]
)
async def test_nonsense_is_no_answer(bench: Bench, nonsense: bytes) -> None:
    sent = await bench.send()
    await bench.engine.turn()
    assert await bench.says(sent, nonsense) == [None]
    assert (await bench.now(sent)).state == "sent"


async def test_an_answer_to_nothing_is_taken_and_forgotten(bench: Bench) -> None:
    sent = await bench.send()
    await bench.engine.turn()
    for key in ((ACME, "hall", sent.id), ("other", KITCHEN, sent.id), (ACME, KITCHEN, "x")):
        heard: list[object] = []
        bench.engine.answered(key, b'{"state":"successful"}', heard.append)
        await bench.engine.turn()
        assert heard == [None]
    assert (await bench.now(sent)).state == "sent"


async def test_of_a_result_that_is_too_long_only_that_is_kept(bench: Bench) -> None:
    sent = await bench.send()
    await bench.engine.turn()
    await bench.says(sent, b'{"state":"successful","result":"%s"}' % (b"x" * RESULT_BYTES))
    done = await bench.now(sent)
    assert (done.state, done.result) == ("successful", "a result of 16,418 bytes is not kept; at most 16,384")


async def test_an_answer_that_cannot_be_written_is_not_acknowledged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await bench.send()
    await bench.engine.turn()
    broken = StoreFailed("The disk is full.")

    async def fail(_: object) -> None:
        raise broken

    heard: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "record", fail)
        bench.engine.answered(sent.key, b'{"state":"successful"}', heard.append)
        with pytest.raises(StoreFailed):
            await bench.engine.turn()
    assert heard == [broken]
    assert await bench.says(sent, b'{"state":"successful"}') == [None]  # the device says it again
    assert (await bench.now(sent)).state == "successful"


async def test_few_wait_and_few_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "OF_DEVICE_AT_MOST", 5)
    monkeypatch.setattr(storage, "OF_ORGANIZATION_AT_MOST", 7)
    bench.boards.there.clear()
    for _ in range(storage.PENDING_AT_MOST):
        await bench.send()
    with pytest.raises(Conflict, match="20 commands to kitchen wait already"):
        await bench.send()
    bench.clock.advance(30_000)
    await bench.engine.turn()
    await bench.send("newest")
    assert len(await bench.store.page(ACME, KITCHEN, state=None, before=None, limit=100)) == 5
    for number in range(6):
        await bench.send(f"c{number}", device="hall")
    assert len(await bench.store.page(ACME, KITCHEN, state=None, before=None, limit=100)) == 1
    monkeypatch.setattr(storage, "OF_ORGANIZATION_AT_MOST", 100)
    bench.clock.advance(31 * 86_400_000)
    await bench.engine.turn()
    await bench.send("another-month")
    with pytest.raises(NotFound):
        await bench.store.get(ACME, KITCHEN, "newest")
