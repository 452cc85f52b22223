"""For MicroPython: reads hexadecimal streams, one a line, and prints what the frame reader finds in each."""

import sys

sys.path.insert(0, "gateway/parsers")
import ld2410  # type: ignore[import-not-found]

for line in sys.stdin:
    reader = ld2410.FrameReader()
    found = []
    for piece in line.split():
        found += reader.feed(bytes.fromhex(piece))
    told = [
        (one.state, one.moving, one.moving_distance_cm, one.detection_distance_cm, one.moving_gates.hex())
        for one in found
    ]
    print(told, reader.skipped)
