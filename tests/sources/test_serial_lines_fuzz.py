"""Whatever a line brings: nothing of it hurts, and the next good line is taken."""

from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.access import Device, KnownDevices
from gateway.config import SerialTable
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.sources.serial_lines import LinesSource
from gateway.storage.log import Owner
from tests.site import reading

LONGEST = 200
GOOD = reading("usb", seq=7)
pieces = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"\n", b"\r\n", b"\x00", b"{", GOOD, GOOD + b"\n", GOOD[:30], b"x" * LONGEST, b"\xff\n"]),
)


class Taken:
    """Stands for the devices and ingest: keeps what it is given, and has it on disk at once."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def heard(self, organization_id: str, device_id: str) -> Device:
        return Device(organization_id, device_id)

    def take(self, _: Device, data: bytes, owner: Owner, *, source: str) -> None:
        assert source == "serial /dev/ttyUSB0"
        self.lines.append(data)
        owner.committed(1)


def taken(chunks: Sequence[bytes]) -> tuple[list[bytes], float]:
    """Return the lines that were taken, and how many bytes were thrown away."""
    all_of_it, metrics = Taken(), Metrics()
    table = SerialTable(port="/dev/ttyUSB0", device_id="usb", max_line_bytes=LONGEST, acknowledge=True)
    source = LinesSource(table, "default", cast("KnownDevices", all_of_it), cast("Ingest", all_of_it), metrics)
    source.opened()
    for chunk in chunks:
        source.received(chunk)
        assert len(source._line) <= LONGEST
    source.closed()
    return all_of_it.lines, metrics.serial_skipped.labels("/dev/ttyUSB0")._value.get()


@given(st.lists(pieces))
def test_after_whatever_came_the_next_good_line_is_taken(before: list[bytes]) -> None:
    assert taken([*before, b"\n", GOOD + b"\n"])[0][-1:] == [GOOD]


@given(st.lists(pieces), st.data())
def test_however_the_bytes_are_split_the_same_is_taken(line: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert taken(chunks) == taken([stream])


@given(st.lists(pieces))
def test_what_is_taken_is_text_and_no_longer_than_allowed(line: list[bytes]) -> None:
    for one in taken(line)[0]:
        assert 0 < len(one) <= LONGEST
        assert all(character >= " " or character == "\t" for character in one.decode())
