"""A batch that goes out in several requests, because each carries one device's readings, or so many bytes.

The body of the whole, which a retry must have byte for byte, is what the requests carry, a line each; none of them has
a line break in it, as they are compact JSON. With more than one, a line before them says how many readings are in each.
Readings keep their order within a request, and so do the requests of one key.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from pydantic_core import from_json, to_json

from cloud_sync.contract import Batch
from gateway.model.reading import StoredReading

Key = tuple[str, ...]
"""What all readings of a request have in common."""


@dataclass(slots=True, frozen=True)
class Part:
    """What one request carries."""

    key: Key
    rows: tuple[int, ...]
    body: bytes


@dataclass(slots=True, frozen=True)
class Frame:
    """How items become the body of a request, and how much goes into one."""

    begins: bytes
    ends: bytes
    max_bytes: int
    """Of the whole body. A reading that is larger by itself has a request of its own, which must not be sent."""
    max_items: int

    def written(self, items: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield the number of items in each body, and the body."""
        taken: list[bytes] = []
        room = self.max_bytes - len(self.begins) - len(self.ends)
        size = 0
        for item in items:
            if taken and (size + len(item) > room or len(taken) == self.max_items):
                yield len(taken), self._body(taken)
                taken, size = [], 0
            taken.append(item)
            size += len(item) + 1  # with the comma
        if taken:
            yield len(taken), self._body(taken)

    def _body(self, items: list[bytes]) -> bytes:
        return b"".join((self.begins, b",".join(items), self.ends))


def in_parts(
    batch: Batch, key_of: Callable[[StoredReading], Key], item_of: Callable[[StoredReading], bytes], frame: Frame
) -> bytes:
    """Return the body of the whole."""
    groups = _grouped(batch, key_of).values()
    parts = list(chain.from_iterable(frame.written(map(item_of, readings)) for readings in groups))
    bodies = [body for _, body in parts]
    return bodies[0] if len(bodies) == 1 else b"\n".join((to_json([count for count, _ in parts]), *bodies))


def parts_of(batch: Batch, body: bytes, key_of: Callable[[StoredReading], Key]) -> list[Part]:
    """Return the requests that `in_parts` has made of this batch."""
    readings = chain.from_iterable(_grouped(batch, key_of).values())
    lines = body.split(b"\n")
    counts, bodies = (from_json(lines[0]), lines[1:]) if len(lines) > 1 else ([len(batch.readings)], lines)
    parts = []
    for count, one in zip(counts, bodies, strict=True):
        taken = list(islice(readings, count))
        parts.append(Part(key_of(taken[0]), tuple(reading.row for reading in taken), one))
    return parts


def _grouped(batch: Batch, key_of: Callable[[StoredReading], Key]) -> dict[Key, list[StoredReading]]:
    groups: dict[Key, list[StoredReading]] = {}
    for reading in batch.readings:
        groups.setdefault(key_of(reading), []).append(reading)
    return groups
