"""Several requests are one batch to the engine: what becomes of it when one of them does not arrive."""

from collections.abc import Sequence

import pytest

from cloud_sync.contract import (
    AuthFailed,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.integrations.http.part_sender import PartSender
from cloud_sync.payload.in_parts import Part
from gateway.clock import ManualClock


def part(name: str, *rows: int, body: bytes = b"[]") -> Part:
    return Part((name,), rows, body)


class Other:
    """The other side: answers by device, Ok unless it was told otherwise."""

    def __init__(self, **answers: Outcome) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, part: Part) -> Outcome:
        self.asked.append(part.key[0])
        return self.answers.get(part.key[0], Ok())


class Sleeps:
    """A sleep in which a clock's time passes."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._clock.advance(round(seconds * 1000) + 1)


def sender(per_minute: int = 0) -> tuple[PartSender, Sleeps]:
    clock = ManualClock()
    sleeps = Sleeps(clock)
    return PartSender(clock, per_minute=per_minute, max_bytes=10, sleep=sleeps), sleeps


THREE: Sequence[Part] = (part("a", 1, 4), part("b", 2), part("c", 3))


@pytest.mark.parametrize(
    "outcome",
    [RetryAfter(5.0, "slow"), NotConnected("away"), AuthFailed("who?"), WrongAddress("where?"), Gone("never")],
)
async def test_what_is_the_other_sides_ends_it_and_the_retry_goes_on_there(outcome: Outcome) -> None:
    parts, _ = sender()
    other = Other(b=outcome)
    assert [await parts.send(THREE, other), await parts.send(THREE, other)] == [outcome] * 2
    assert other.asked == ["a", "b", "b"]
    other.answers.clear()
    assert await parts.send(THREE, other) == Ok()
    assert other.asked == ["a", "b", "b", "b", "c"]


async def test_a_batch_of_which_some_has_arrived_may_have_arrived() -> None:
    parts, _ = sender()
    other = Other(a=NotConnected("away", sent=False))
    outcome = await parts.send(THREE, other)
    assert isinstance(outcome, NotConnected)
    assert not outcome.sent
    other.answers = {"b": NotConnected("away", sent=False)}
    outcome = await parts.send(THREE, other)
    assert isinstance(outcome, NotConnected)
    assert outcome.sent


async def test_a_refusal_stops_no_other_and_is_named_if_it_can_be() -> None:
    parts, _ = sender()
    other = Other(b=Rejected("no"))
    outcome = await parts.send(THREE, other)
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.rows, other.asked) == ("no", [2], ["a", "b", "c"])
    assert await parts.send([part("a", 1)], other) == Ok()  # as the engine cuts it now
    assert await parts.send([part("b", 2)], other) == Rejected("no")
    assert await parts.send([part("c", 3), part("a", 4)], other) == Ok()
    assert other.asked == ["a", "b", "c", "b"]


async def test_one_of_several_in_a_request_is_not_known_unless_it_says_which() -> None:
    parts, _ = sender()
    outcomes = [
        await parts.send(THREE, Other(a=Rejected("no"), b=Rejected("no"))),
        await parts.send(THREE, Other(a=Rejected("no", [4]), b=Rejected("no"))),
        await parts.send(THREE, Other(a=TooLarge("no"))),
    ]
    assert outcomes == [Rejected("no"), Rejected("no", [2, 4]), Rejected("no")]


async def test_what_is_too_large_is_not_even_sent() -> None:
    parts, _ = sender()
    other = Other()
    large = part("b", 2, body=b"x" * 11)
    outcome = await parts.send([part("a", 1), large, part("c", 3)], other)
    assert isinstance(outcome, Rejected)
    assert (outcome.rows, other.asked) == ([2], ["a", "c"])
    assert isinstance(await parts.send([large], other), TooLarge)


async def test_a_batch_that_is_done_is_forgotten() -> None:
    parts, _ = sender()
    other = Other()
    for _ in range(2):
        assert await parts.send(THREE, other) == Ok()
    assert other.asked == ["a", "b", "c"] * 2
    assert parts._taken == set()


async def test_every_request_counts_against_the_rate() -> None:
    parts, sleeps = sender(per_minute=6)  # so a burst of 6, and then one in 10 s
    other = Other()
    for _ in range(4):
        assert await parts.send(THREE, other) == Ok()
    assert len(other.asked) == 12
    assert sum(sleeps.waits) == pytest.approx(60, abs=1)


async def test_what_is_behind_a_refused_reading_of_the_same_device_waits_for_those_before_it() -> None:
    parts, _ = sender()
    other = Other(a=Rejected("bad"))
    several = [part("a", 1, 2), part("b", 3), part("a", 4)]
    assert await parts.send(several, other) == Rejected("bad")
    assert other.asked == ["a", "b"]
    other.answers.clear()
    assert await parts.send([part("a", 1), part("a", 4)], other) == Ok()  # as the engine goes on when it was the second
    assert other.asked == ["a", "b", "a", "a"]


async def test_what_is_behind_several_that_are_too_large_waits_for_them_too() -> None:
    parts, _ = sender()
    other = Other()
    several = [part("a", 1, 2, body=b"x" * 11), part("b", 3), part("a", 4)]
    assert isinstance(await parts.send(several, other), Rejected)
    assert other.asked == ["b"]


async def test_what_is_behind_a_reading_that_is_refused_alone_waits_for_nothing() -> None:
    parts, _ = sender()
    other = Other(a=Rejected("bad"))
    assert await parts.send([part("a", 1), part("b", 2), part("a", 3)], other) == Rejected("bad", [1, 3])
    assert other.asked == ["a", "b", "a"]
