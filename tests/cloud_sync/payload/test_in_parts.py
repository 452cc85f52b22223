"""Whatever is in a batch, its requests hold each reading once, in order, and keep the limits."""

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.contract import Batch
from cloud_sync.payload.in_parts import Frame, Key, in_parts, parts_of
from gateway.model.reading import StoredReading
from tests.cloud_sync.samples import stored


def of_device(reading: StoredReading) -> Key:
    return (reading.device_id,)


def item(reading: StoredReading) -> bytes:
    return b"%d" % reading.row + b"0" * len(reading.body["note"])


@given(
    notes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=30),
    max_bytes=st.integers(10, 120),
    max_items=st.integers(1, 12),
)
def test_every_reading_is_in_one_request_and_all_keep_the_limits(
    notes: list[tuple[str, int]], max_bytes: int, max_items: int
) -> None:
    readings = [stored(row, {"note": "x" * size}, device) for row, (device, size) in enumerate(notes, 1)]
    batch = Batch("msg_1", readings, "site-1", "log-1")
    frame = Frame(b"<", b">", max_bytes, max_items)
    body = in_parts(batch, of_device, item, frame)
    parts = parts_of(batch, body, of_device)
    by_row = {reading.row: reading for reading in readings}
    assert sorted(chain.from_iterable(part.rows for part in parts)) == sorted(by_row)
    for device in "abc":
        rows = list(chain.from_iterable(part.rows for part in parts if part.key == (device,)))
        assert rows == [reading.row for reading in readings if reading.device_id == device]
    for part in parts:
        assert part.body == b"<" + b",".join(item(by_row[row]) for row in part.rows) + b">"
        assert {by_row[row].device_id for row in part.rows} == {part.key[0]}
        assert len(part.rows) <= max_items
        assert len(part.body) <= max_bytes or len(part.rows) == 1
    for one, other in pairwise(parts):  # none is smaller than it must be
        if one.key == other.key:
            first = len(item(by_row[other.rows[0]]))
            assert len(one.rows) == max_items or len(one.body) + 1 + first > max_bytes


def test_one_request_alone_is_what_is_sent() -> None:
    batch = Batch("msg_1", [stored(1, {"note": ""}), stored(2, {"note": ""})], "site-1", "log-1")
    assert in_parts(batch, of_device, item, Frame(b"[", b"]", 100, 10)) == b"[1,2]"
