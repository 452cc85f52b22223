"""What of a batch was refused: what that holds up, and which readings the engine is told to cut out."""

from cloud_sync.contract import Rejected, TooLarge
from cloud_sync.payload.in_parts import Part
from cloud_sync.payload.refused_parts import RefusedParts


def part(name: str, *rows: int) -> Part:
    return Part((name,), rows, b"[]")


def test_a_lone_reading_holds_up_nothing_and_several_hold_up_those_of_their_key() -> None:
    refused = RefusedParts()
    assert not refused
    refused.add(part("a", 1), Rejected("bad"))
    assert refused
    assert not refused.is_held_up(part("a", 2))
    refused.add(part("a", 2, 3), TooLarge("big"))
    assert refused.is_held_up(part("a", 4))
    assert not refused.is_held_up(part("b", 5))


def test_lone_readings_are_named_in_the_order_of_the_log_and_as_sure_as_all_of_them() -> None:
    refused = RefusedParts()
    batch = [part("b", 7), part("a", 3), part("c", 8, 9)]
    refused.add(batch[0], Rejected("bad", is_certain=True))
    assert refused.outcome(batch) == Rejected("bad", [7], is_certain=True)
    refused.add(batch[2], Rejected("worse", [9], is_certain=True))
    assert refused.outcome(batch) == Rejected("bad", [7, 9], is_certain=True)
    refused.add(batch[1], TooLarge("big"))
    assert refused.outcome(batch) == Rejected("bad", [3, 7, 9], is_certain=False)


def test_one_of_several_is_not_named() -> None:
    refused = RefusedParts()
    batch = [part("a", 1), part("b", 2, 3)]
    refused.add(batch[0], Rejected("bad"))
    refused.add(batch[1], Rejected("worse"))
    assert refused.outcome(batch) == Rejected("bad")


def test_the_only_part_is_refused_as_the_other_side_says() -> None:
    refused = RefusedParts()
    refused.add(part("a", 1, 2), TooLarge("big"))
    assert refused.outcome([part("a", 1, 2)]) == TooLarge("big")
