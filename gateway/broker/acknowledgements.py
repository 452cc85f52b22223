"""What one connection owes its client: every inbound PUBLISH is answered here, in the order they came (MQTT-4.6.0-2).

A message passes two stages, each in order. A telemetry message passes the first when its commit is on disk, any other
in its turn. Then it is handed on to local subscribers, and passes the second when what has to be kept for them is on
disk as well. Nothing of the second stage holds up the first: messages that are to be kept share a commit.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol

from gateway.broker.packets import Message
from gateway.model.errors import StoreFailed


class HandOn(Protocol):
    """Hands a message on, see `Delivery.take`; `received` is the packet id of a QoS 2 message."""

    def __call__(
        self,
        message: Message | None,
        received: bytes | None,
        done: Callable[[StoreFailed | None], None],
        *,
        in_turn: bool,
    ) -> bool:
        """Return True if that is all; else `done` is called when the rest is on disk."""
        ...


class _Entry(NamedTuple):
    """What is more than an acknowledgement to be sent after its commit."""

    ack: bytes
    message: Message | None
    """For local subscribers."""
    received: bytes | None
    stored: bool
    """Whether it waits for a commit of its own, or only for its turn."""
    then: Callable[[], None] | None = None
    """Of an entry that is nobody's message, see `after_all`."""


@dataclass(slots=True, eq=False)
class _Kept:
    """An acknowledgement in the second stage."""

    ack: bytes
    is_due: bool
    then: Callable[[], None] | None = None


class Acknowledgements:
    """Two queues. The plain case, telemetry that nobody here wants, is a row of bytes and costs almost nothing."""

    def __init__(self, hand_on: HandOn, send: Callable[[bytes], None], failed: Callable[[StoreFailed], None]) -> None:
        """`send` gets what becomes due by the second stage; `failed` hears when something cannot be kept."""
        self._hand_on = hand_on
        self._send = send
        self._failed = failed
        self._fifo: deque[bytes | _Entry] = deque()
        self._entries = 0
        self._kept: deque[_Kept] = deque()

    def __len__(self) -> int:
        return len(self._fifo) + len(self._kept)

    def owe_after_commit(self, ack: bytes, message: Message | None = None, received: bytes | None = None) -> None:
        """Owe `ack` for a telemetry message; then `message` goes to local subscribers, if there are any."""
        if message is None and received is None:
            self._fifo.append(ack)
        else:
            self._fifo.append(_Entry(ack, message, received, stored=True))
            self._entries += 1

    def owe_in_turn(self, ack: bytes, message: Message | None, received: bytes | None = None) -> None:
        """Owe `ack` for anything that is not telemetry; `due` tells when."""
        self._fifo.append(_Entry(ack, message, received, stored=False))
        self._entries += 1

    def after_all(self, then: Callable[[], None]) -> None:
        """Call `then` when all that is owed by now has passed both stages, or is withheld: perhaps at once."""
        if self._fifo:  # what comes first there waits for its commit
            self._fifo.append(_Entry(b"", None, None, stored=False, then=then))
            self._entries += 1
        elif self._kept:
            self._kept.append(_Kept(b"", is_due=True, then=then))
        else:
            then()

    def due(self, stored: int = 0) -> bytes:
        """Return the acknowledgements that are due now that `stored` more telemetry messages are on disk."""
        fifo = self._fifo
        if not self._entries and not self._kept:
            return b"".join([fifo.popleft() for _ in range(stored)])  # type: ignore[misc]  # only bytes are there
        acks = bytearray()
        while fifo:
            entry = fifo[0]
            if isinstance(entry, bytes) or entry.stored:
                if not stored:
                    break
                stored -= 1
            fifo.popleft()
            if isinstance(entry, bytes):
                passed = _Kept(entry, is_due=True)
            else:
                self._entries -= 1
                passed = _Kept(entry.ack, is_due=False, then=entry.then)
                passed.is_due = self._pass_on(entry, passed)
            if passed.is_due and not self._kept:
                acks += passed.ack
                if passed.then is not None:
                    passed.then()
            else:
                self._kept.append(passed)
        return bytes(acks)

    def _pass_on(self, entry: _Entry, place: _Kept) -> bool:
        if entry.message is None and entry.received is None:
            return True
        on_disk = partial(self._on_disk, place)
        return self._hand_on(entry.message, entry.received, on_disk, in_turn=bool(self._kept))

    def _on_disk(self, place: _Kept, error: StoreFailed | None) -> None:
        if error is not None:
            self._failed(error)
            return
        place.is_due = True
        acks = bytearray()
        while self._kept and self._kept[0].is_due:
            passed = self._kept.popleft()
            acks += passed.ack
            if passed.then is not None:
                passed.then()
        self._send(bytes(acks))

    def withhold(self) -> None:
        """Forget everything: what is not acknowledged will be sent again."""
        waiting = [one.then for one in chain(self._kept, self._fifo) if not isinstance(one, bytes) and one.then]
        self._fifo.clear()
        self._kept.clear()
        self._entries = 0
        for then in waiting:
            then()
