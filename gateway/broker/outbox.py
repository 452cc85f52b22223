"""What one client is still to be sent with QoS 1 and 2 (MQTT 3.1.1, 4.3, 4.4 and 4.6).

- messages leave in the order they were queued, at most 100 unacknowledged at a time
- what was sent and not acknowledged leaves again when the client is back: under its packet id, with DUP, in order
- a message for a persistent session is on disk before it leaves, and so is its PUBREC before the PUBREL
- messages, bytes and age are bounded; only what was sent with QoS 2, a window at most, does not leave for its age: the
  client may hold its packet id, and would take the next message under it for the same

An acknowledgement is noted on disk later: after a power cut its message may go out again, as QoS 1 allows, and the
PUBREL of QoS 2, which changes nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.broker import packets
from gateway.broker.kept import Share, kept_bytes
from gateway.broker.packets import Message
from gateway.model.errors import StoreFailed

IN_FLIGHT = 100
"""A subscriber gets so many in the time that an acknowledgement takes. With 20, and 4 ms in a busy gateway, that is
5,000 a second: whoever hears as much could never make up for a moment's delay, and its outbox ran over."""
_LAST_PACKET_ID = 65_535
_EXACTLY_ONCE = 2


class Link(Protocol):
    """The connection of a client."""

    @property
    def is_stuck(self) -> bool:
        """Whether so much waits in its socket that nothing should be added."""
        ...

    def send(self, data: bytes) -> None:
        """Send a packet."""
        ...

    def failed(self, error: StoreFailed) -> None:
        """Hear that nothing can be promised any more: end it."""
        ...


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message in an outbox."""

    position: int
    packet_id: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    queued_ms: int
    """By the monotonic clock."""
    is_ready: bool
    """Whether it may leave: it is on disk, if it has to be."""
    was_sent: bool = False
    is_released: bool = False
    """Whether its PUBREC has come: only a PUBREL leaves any more."""


class Journal(Protocol):
    """Where the outbox of a persistent session is written down."""

    def all_sent(self, then: Callable[[], None]) -> None:
        """Note that all that waits may have been sent; `then` is called when that is on disk."""
        ...

    def released(self, outgoing: Outgoing, then: Callable[[], None]) -> None:
        """Note a PUBREC; `then` is called when that is on disk."""
        ...

    def gone(self, outgoing: Iterable[Outgoing]) -> None:
        """Forget messages, some time."""
        ...


class Outbox:
    """See the module's own words."""

    def __init__(self, namespace: str, share: Share, max_messages: int, journal: Journal | None) -> None:
        self._namespace = namespace
        self._share = share
        self._max_messages = max_messages
        self._journal = journal
        self._link: Link | None = None
        self._waiting: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._ids: set[int] = set()
        self._last_id = 0
        self._position = 0
        self._is_marked = True
        """False while it is not on disk yet that what waits is going to be sent."""
        self._closed = False

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def is_behind(self) -> bool:
        """Whether messages wait that may not leave yet."""
        return bool(self._waiting)

    def put(self, message: Message, qos: int, now_ms: int, *, retain: bool = False) -> Outgoing | None:
        """Queue a message; None when there are too many. For a persistent session it leaves when it is `ready`."""
        size = kept_bytes(message.topic, message.payload)
        if self._closed or len(self._ids) >= self._max_messages or not self._share.take(size):
            return None
        self._position += 1
        outgoing = Outgoing(
            self._position, self._new_id(), message.topic, message.payload, qos, retain, now_ms, self._journal is None
        )
        self._waiting.append(outgoing)
        self._pump()
        return outgoing

    def restore(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Take in what was on disk; returns what is too much by now.

        There, all that was queued for a client that was there counts as sent. Messages leave in order, no more than a
        window without a PUBREC, and that is on disk before it is answered: of QoS 2 only the first can have been sent.
        """
        too_many = []
        unreceived = 0
        for outgoing in messages:
            self._position = outgoing.position
            if outgoing.qos == _EXACTLY_ONCE and not outgoing.is_released:
                unreceived += 1
                outgoing.was_sent = outgoing.was_sent and unreceived <= IN_FLIGHT
            if len(self._ids) >= self._max_messages or not self._share.take(_size(outgoing)):
                too_many.append(outgoing)
                continue
            self._last_id = outgoing.packet_id
            self._ids.add(outgoing.packet_id)
            self._waiting.append(outgoing)
        return too_many

    def ready(self, outgoing: Outgoing) -> None:
        """Hear that a message is on disk."""
        outgoing.is_ready = True
        self._pump()

    def withdraw(self, outgoing: Outgoing) -> None:
        """Take a message back that could not be put on disk."""
        if outgoing in self._waiting:
            self._waiting.remove(outgoing)
            self._free(outgoing)
            self._pump()

    # The client

    def resume(self, link: Link) -> None:
        """Send what waits to a client that is there."""

        def marked() -> None:
            if self._link is link:
                self._is_marked = True
                self._pump()

        self._link = link
        if self._journal is None or not self._waiting:
            self._pump()
        else:
            self._is_marked = False
            self._journal.all_sent(marked)

    def suspend(self) -> None:
        """The client is gone: what it has not acknowledged is the first to leave again."""
        self._link = None
        self._is_marked = True
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def go_on(self) -> None:
        """Hear that the client's socket takes more."""
        self._pump()

    def acknowledged(self, packet_id: int) -> None:
        """Hear a PUBACK."""
        outgoing = self._in_flight.get(packet_id)
        if outgoing is not None and outgoing.qos == 1:
            self._finish(outgoing)

    def received(self, packet_id: int) -> None:
        """Hear a PUBREC; what is not known any more is released as well, so that the client can let go of it."""
        outgoing, link = self._in_flight.get(packet_id), self._link
        if link is None or (outgoing is not None and outgoing.qos == 1):
            return
        if outgoing is None or outgoing.is_released:
            link.send(packets.PUBREL + packet_id.to_bytes(2, "big"))
            return
        if self._journal is None:
            self._release(outgoing, link)
        else:
            self._journal.released(outgoing, lambda: self._release(outgoing, link))

    def _release(self, outgoing: Outgoing, link: Link) -> None:
        outgoing.is_released = True
        if self._link is link and outgoing.packet_id in self._in_flight:
            link.send(packets.PUBREL + outgoing.packet_id.to_bytes(2, "big"))

    def completed(self, packet_id: int) -> None:
        """Hear a PUBCOMP."""
        outgoing = self._in_flight.get(packet_id)
        if outgoing is not None and outgoing.is_released:
            self._finish(outgoing)

    # Bounds

    def expire(self, before_ms: int) -> int:
        """Give up what has waited since before then; returns how many."""
        old = [one for one in self._waiting if one.queued_ms < before_ms and _may_leave(one)]
        if old:
            gone = set(old)
            self._waiting = deque(one for one in self._waiting if one not in gone)
            for outgoing in old:
                self._free(outgoing)
            if self._journal is not None:
                self._journal.gone(old)
        return len(old)

    def forget(self, is_over: Callable[[str], bool]) -> list[Outgoing]:
        """Let go of messages on such topics, sent or not: they must not leave again. Returns what is still on disk."""
        gone = [one for one in self._in_flight.values() if is_over(one.topic)]
        for outgoing in gone:
            del self._in_flight[outgoing.packet_id]
            self._free(outgoing)
        waiting, self._waiting = self._waiting, deque()
        for outgoing in waiting:
            if is_over(outgoing.topic):
                self._free(outgoing)
                gone.append(outgoing)
            else:
                self._waiting.append(outgoing)
        self._pump()
        return gone

    def give_up(self, is_over: Callable[[str], bool]) -> None:
        """Let go of messages on such topics for good."""
        gone = self.forget(is_over)
        if self._journal is not None and gone:
            self._journal.gone(gone)

    def close(self) -> None:
        """Forget everything: the session ends."""
        self._closed = True
        self._link = None
        self._share.close()
        self._waiting.clear()
        self._in_flight.clear()
        self._ids.clear()

    # How it works

    def _pump(self) -> None:
        link = self._link
        if link is None or not self._is_marked:
            return
        waiting, in_flight = self._waiting, self._in_flight
        while waiting and len(in_flight) < IN_FLIGHT and waiting[0].is_ready and not link.is_stuck:
            outgoing = waiting.popleft()
            in_flight[outgoing.packet_id] = outgoing
            if outgoing.is_released:
                packet = packets.PUBREL + outgoing.packet_id.to_bytes(2, "big")
            else:
                packet = packets.encode_publish(
                    outgoing.topic.removeprefix(self._namespace),
                    outgoing.payload,
                    outgoing.qos,
                    outgoing.packet_id,
                    retain=outgoing.retain,
                    dup=outgoing.was_sent,
                )
            outgoing.was_sent = True
            link.send(packet)

    def _finish(self, outgoing: Outgoing) -> None:
        del self._in_flight[outgoing.packet_id]
        self._free(outgoing)
        if self._journal is not None:
            self._journal.gone((outgoing,))
        self._pump()

    def _free(self, outgoing: Outgoing) -> None:
        self._ids.discard(outgoing.packet_id)
        self._share.give(_size(outgoing))

    def _new_id(self) -> int:
        """Return a packet id that is not in use; there is one, as `max_messages` is below their number."""
        while True:
            self._last_id = self._last_id % _LAST_PACKET_ID + 1
            if self._last_id not in self._ids:
                self._ids.add(self._last_id)
                return self._last_id


def _size(outgoing: Outgoing) -> int:
    return kept_bytes(outgoing.topic, outgoing.payload)


def _may_leave(outgoing: Outgoing) -> bool:
    """Whether nobody misses its packet id; after a reconnect QoS 1 is a new message whatever its id (MQTT-4.3.2-4)."""
    return outgoing.is_ready and not (outgoing.qos == _EXACTLY_ONCE and outgoing.was_sent)
