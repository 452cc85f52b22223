"""Which parts of a batch the other side refuses for good, and what the engine is told of that.

- A refused part holds up no other: the rest of the batch is sent, so a device that is not wanted there delays none.
- But where one of several readings is at fault, and it is not said which, the engine will send those readings one by
  one. Parts of the same key come behind them, and so are held up: a device's readings never overtake each other.
"""

from collections.abc import Sequence

from cloud_sync.contract import Rejected, TooLarge
from cloud_sync.payload.in_parts import Key, Part


class RefusedParts:
    """See the module's own words; of one attempt."""

    def __init__(self) -> None:
        """At first there is none."""
        self._refused: list[tuple[Part, Rejected | TooLarge]] = []
        self._held_up: set[Key] = set()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._refused)

    def add(self, part: Part, why: Rejected | TooLarge) -> None:
        """Take down that the other side will not have this one."""
        self._refused.append((part, why))
        if len(part.rows) > 1:
            self._held_up.add(part.key)

    def is_held_up(self, part: Part) -> bool:
        """Whether this one has to wait until a refused one has been sent in other parts."""
        return part.key in self._held_up

    def outcome(self, parts: Sequence[Part]) -> Rejected | TooLarge:
        """Return what the engine is told of a batch of these parts, of which some were refused."""
        return self._refused[0][1] if len(parts) == 1 else self._named()

    def _named(self) -> Rejected:
        """Name the culprits, if all are known. A part with several readings may have been refused for one of them."""
        reason = self._refused[0][1].reason
        rows: list[int] = []
        for part, why in self._refused:
            known = why.rows if isinstance(why, Rejected) else ()
            if not known and len(part.rows) > 1:
                return Rejected(reason)
            rows.extend(known or part.rows)
        is_certain = all(isinstance(why, Rejected) and why.is_certain for _, why in self._refused)
        return Rejected(reason, sorted(rows), is_certain)
