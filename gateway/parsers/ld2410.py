"""Report frames of the HLK-LD2410 radar, found in a stream of bytes that may begin, end or break anywhere.

MicroPython runs this very file on a board: it imports nothing, and uses only what is there. It reads reports and sends
nothing.

    F4 F3 F2 F1 | length u16 | data | F8 F7 F6 F5
    data: type (01 engineering, 02 basic) AA | state u8 | moving cm u16, energy u8 | stationary cm u16, energy u8 |
          detection cm u16 | engineering: N u8, M u8, N+1 moving and M+1 stationary energies, light u8, OUT u8 | 55 00

Little endian, about ten a second. Source: Hi-Link, LD2410 serial communication protocol V1.02; LD2410B V1.06 for light
and OUT, where older firmware leaves arbitrary bytes. There is no checksum: a frame counts when its header, length,
inner marks and tail fit together. A header within a frame means that the frame was cut, since no value can look like
one.
"""

_HEADER = b"\xf4\xf3\xf2\xf1"
_TAIL = b"\xf8\xf7\xf6\xf5"
_AROUND = 10  # header, length and tail
_BASIC_LENGTH = 13
_LONGEST = 64
_ENGINEERING = 1
_BASIC = 2
_GATES_AT = 11
_STATE_MAX = 6


class Report:
    """What one frame says. Distances in cm, energies 0 to 100; nothing is made up for what the radar leaves stale."""

    def __init__(self, data: bytes) -> None:
        self.state = data[2]
        """0 nobody, 1 moving, 2 stationary, 3 both; 4, 5, 6: the radar measures its background noise, has, has not."""
        self.moving = self.state in (1, 3)
        self.stationary = self.state in (2, 3)
        self.moving_distance_cm = data[3] | data[4] << 8
        self.moving_energy = data[5]
        self.stationary_distance_cm = data[6] | data[7] << 8
        self.stationary_energy = data[8]
        self.detection_distance_cm = data[9] | data[10] << 8
        self.moving_gates = b""
        """Energy of each gate, the nearest first; empty in a basic report, as all that follows."""
        self.stationary_gates = b""
        self.light = 0
        """0 to 255; arbitrary in older firmware, like `out`."""
        self.out = 0
        if data[0] == _ENGINEERING:
            moving, stationary, light = _gates(data)
            self.moving_gates = data[moving:stationary]
            self.stationary_gates = data[stationary:light]
            self.light, self.out = data[light], data[light + 1]

    @property
    def is_measuring(self) -> bool:
        """Whether it says who is there; not while the radar measures its background noise."""
        return self.state <= 3  # noqa: PLR2004 - see `state`


class FrameReader:
    """Takes bytes as they come and gives the reports in them. `skipped` counts bytes that were in no good frame."""

    def __init__(self) -> None:
        self._waiting = b""
        self.skipped = 0

    def feed(self, data: bytes) -> list[Report]:
        """Return the reports that are complete with these bytes. Whatever comes, it never fails."""
        waiting = self._waiting + data
        reports = []
        at = 0
        while True:
            start = waiting.find(_HEADER, at)
            if start < 0:
                start = _possible_header(waiting, at)
                break
            length = _length(waiting, start)
            if length == 0:  # it depends on what is still to come
                if waiting.find(_HEADER, start + 1) < 0:
                    break
            elif length > 0 and _is_frame(waiting, start, length):
                self.skipped += start - at
                reports.append(Report(waiting[start + 6 : start + 6 + length]))
                at = start + _AROUND + length
                continue
            self.skipped += start + 1 - at
            at = start + 1
        self.skipped += start - at
        self._waiting = waiting[start:]
        return reports


def _length(waiting: bytes, start: int) -> int:
    """Return the length of the data of the frame that starts there; 0 if it is not all there yet, -1 if it is none."""
    if len(waiting) < start + 8:
        return 0
    length = waiting[start + 4] | waiting[start + 5] << 8
    kind = waiting[start + 6]
    is_known = (kind == _BASIC and length == _BASIC_LENGTH) or (
        kind == _ENGINEERING and _BASIC_LENGTH < length <= _LONGEST
    )
    if not is_known or waiting[start + 7] != 0xAA:  # noqa: PLR2004 - the format above
        return -1
    return length if len(waiting) >= start + _AROUND + length else 0


def _is_frame(waiting: bytes, start: int, length: int) -> bool:
    """Tell whether the rest of what is there fits together, too."""
    data = waiting[start + 6 : start + 6 + length]
    tail = waiting[start + 6 + length : start + _AROUND + length]
    if tail != _TAIL or data[-2:] != b"\x55\x00" or data[2] > _STATE_MAX:
        return False
    return data[0] == _BASIC or _gates(data)[2] + 4 <= length


def _gates(data: bytes) -> tuple[int, int, int]:
    """Return where the gates' moving energies begin, the stationary ones, and what is behind them."""
    moving = _GATES_AT + 2
    stationary = moving + data[_GATES_AT] + 1
    return moving, stationary, stationary + data[_GATES_AT + 1] + 1


def _possible_header(waiting: bytes, at: int) -> int:
    """Return where the last bytes could be the beginning of a header."""
    for size in (3, 2, 1):
        start = len(waiting) - size
        if start >= at and waiting[start:] == _HEADER[:size]:
            return start
    return len(waiting)
