"""An outbox on its own: whatever its client does, order, packet ids, window and bounds hold."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker import outbox as outbox_module
from gateway.broker.kept import Room, Share
from gateway.broker.outbox import IN_FLIGHT, Outbox, Outgoing
from gateway.broker.packets import Message
from gateway.model.errors import StoreFailed
from tests.broker.raw import publish, pubrel

SPACE = "org/"


class Client:
    """A connection, and a client that notes what it gets."""

    def __init__(self) -> None:
        self.is_stuck = False
        self.got: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.got.append(data)

    def failed(self, error: StoreFailed) -> None:
        raise error


class Disk:
    """A journal that is written at once, or when the test says so."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.pending: list[Callable[[], None]] = []
        self.forgotten: list[int] = []

    def all_sent(self, then: Callable[[], None]) -> None:
        self._write(then)

    def released(self, outgoing: Outgoing, then: Callable[[], None]) -> None:
        assert outgoing.qos == 2
        self._write(then)

    def gone(self, outgoing: Iterable[Outgoing]) -> None:
        self.forgotten += [one.position for one in outgoing]

    def _write(self, then: Callable[[], None]) -> None:
        if self.at_once:
            then()
        else:
            self.pending.append(then)

    def flush(self) -> None:
        while self.pending:
            self.pending.pop(0)()


def outbox(disk: Disk | None = None, *, most: int = 100, room: Room | None = None) -> Outbox:
    return Outbox(SPACE, Share(room or Room(1_000_000)), most, disk)


def message(number: int, qos: int = 1) -> Message:
    return Message(f"{SPACE}t", b"%d" % number, qos, retain=False)


def sent(number: int, qos: int = 1, *, packet_id: int | None = None, dup: bool = False) -> bytes:
    return publish("t", b"%d" % number, qos=qos, packet_id=packet_id or number, dup=dup)


def test_nothing_leaves_before_it_is_on_disk_and_nothing_overtakes_it() -> None:
    box, client = outbox(Disk()), Client()
    box.resume(client)
    first, second = box.put(message(1), 1, 0), box.put(message(2), 1, 0)
    assert first is not None
    assert second is not None
    box.ready(second)
    assert client.got == []
    box.ready(first)
    assert client.got == [sent(1), sent(2)]


def test_what_cannot_be_put_on_disk_holds_up_nothing_and_gives_its_room_back() -> None:
    room = Room(1_000_000)
    box, client = outbox(Disk(), room=room), Client()
    box.resume(client)
    first, second = box.put(message(1), 1, 0), box.put(message(2), 1, 0)
    assert first is not None
    assert second is not None
    box.ready(second)
    box.withdraw(first)
    box.withdraw(first)
    assert client.got == [sent(2)]
    box.acknowledged(2)
    assert (room.used, len(box)) == (0, 0)


def test_a_release_leaves_after_its_receipt_is_on_disk_also_over_a_reconnect() -> None:
    disk = Disk()
    box, client = outbox(disk), Client()
    box.resume(client)
    outgoing = box.put(message(1, 2), 2, 0)
    assert outgoing is not None
    box.ready(outgoing)
    disk.at_once = False
    box.received(1)
    assert client.got == [sent(1, 2)]
    box.suspend()
    disk.flush()
    assert client.got == [sent(1, 2)]
    again = Client()
    box.resume(again)
    assert again.got == []
    disk.flush()
    assert again.got == [pubrel(1)]


def test_what_was_away_is_marked_on_disk_before_it_leaves() -> None:
    disk = Disk(at_once=False)
    box, client = outbox(disk), Client()
    outgoing = box.put(message(1), 1, 0)
    assert outgoing is not None
    box.ready(outgoing)
    box.resume(client)
    assert client.got == []
    disk.flush()
    assert client.got == [sent(1)]


def test_a_connection_that_was_gone_before_the_mark_was_written_gets_nothing() -> None:
    disk = Disk(at_once=False)
    box, gone, client = outbox(disk), Client(), Client()
    outgoing = box.put(message(1), 1, 0)
    assert outgoing is not None
    box.ready(outgoing)
    box.resume(gone)
    box.suspend()
    box.resume(client)
    disk.flush()
    assert (gone.got, client.got) == ([], [sent(1)])


def test_a_stuck_client_is_sent_nothing_until_it_reads() -> None:
    box, client = outbox(), Client()
    box.resume(client)
    client.is_stuck = True
    box.put(message(1), 1, 0)
    assert client.got == []
    client.is_stuck = False
    box.go_on()
    assert client.got == [sent(1)]


@pytest.mark.parametrize(("qos", "stays"), [(1, 0), (2, IN_FLIGHT)])
def test_only_what_was_sent_with_qos_2_does_not_leave_for_its_age(qos: int, stays: int) -> None:
    disk = Disk()
    box, client = outbox(disk, most=IN_FLIGHT + 2), Client()
    box.resume(client)
    for number in range(1, IN_FLIGHT + 3):
        outgoing = box.put(message(number, qos), qos, now_ms=number)
        assert outgoing is not None
        box.ready(outgoing)
    assert box.expire(1_000) == 2
    assert disk.forgotten == [IN_FLIGHT + 1, IN_FLIGHT + 2]
    box.suspend()
    assert box.expire(1_000) == IN_FLIGHT - stays
    assert len(box) == stays


def test_of_what_the_disk_says_was_sent_the_first_window_was_at_most() -> None:
    """Of QoS 2, and without what has its PUBREC: that of QoS 1 may have been acknowledged, and the disk not know it."""
    box, client, count = outbox(Disk(), most=1_000), Client(), IN_FLIGHT + 20
    kept = [
        Outgoing(
            n,
            n,
            f"{SPACE}t",
            b"%d" % n,
            qos,
            retain=False,
            queued_ms=0,
            is_ready=True,
            was_sent=True,
            is_released=n == 1,
        )
        for n, qos in enumerate([2, *[1] * 150, *[2] * count], 1)
    ]
    assert box.restore(kept) == []
    assert box.expire(1) == 150 + 20
    box.resume(client)
    assert client.got == [pubrel(1), *(sent(n, 2, dup=True) for n in range(152, 152 + IN_FLIGHT - 1))]


def test_a_packet_id_in_use_is_passed_over() -> None:
    box, client = outbox(), Client()
    box.resume(client)
    box.put(message(1), 1, 0)
    box._last_id = 65_534
    for number in (2, 3):
        box.put(message(number), 1, 0)
    assert client.got == [sent(1), sent(2, packet_id=65_535), sent(3, packet_id=2)]


STEPS = st.lists(
    st.sampled_from(["put 1", "put 2", "ready", "answer", "answer last", "away", "back", "stuck", "free"]), max_size=120
)


_SMALL_WINDOW = 4
"""So that few steps fill it."""


class World:
    """An outbox on a disk that is written at once, and a client that comes and goes."""

    def __init__(self) -> None:
        self.room = Room(10_000_000)
        self.box = outbox(Disk(), most=1_000, room=self.room)
        self.client = Client()
        self.is_there = False
        self.put = 0
        self.unready: list[Outgoing] = []
        self.heard: list[int] = []
        """Each number, when it came for the first time."""
        self.held: set[int] = set()
        """Packet ids of QoS 2 that the client has received and that were not released."""
        self.taken: list[int] = []
        """What the client has taken of QoS 2."""
        self.unanswered: list[bytes] = []

    def do(self, step: str) -> None:
        if step.startswith("put"):
            self._put(int(step[-1]))
        elif step == "ready" and self.unready:
            self.box.ready(self.unready.pop(0))
        elif step.startswith("answer") and self.is_there and self.unanswered:
            self._answer(self.unanswered.pop(-1 if step.endswith("last") else 0))
        elif (step == "away" and self.is_there) or (step == "back" and not self.is_there):
            self._come_or_go()
        elif step in ("stuck", "free"):
            self.client.is_stuck = step == "stuck"
            self.box.go_on()
        for packet in self.client.got:
            self._read(packet)
        self.client.got.clear()
        assert self.heard == list(range(1, len(self.heard) + 1))
        assert len(self.box._in_flight) <= _SMALL_WINDOW

    def _put(self, qos: int) -> None:
        self.put += 1
        outgoing = self.box.put(message(self.put, qos), qos, 0)
        assert outgoing is not None
        self.unready.append(outgoing)

    def _come_or_go(self) -> None:
        self.is_there = not self.is_there
        if self.is_there:
            self.client = Client()
            self.box.resume(self.client)
        else:
            self.unanswered.clear()
            self.box.suspend()

    def _read(self, packet: bytes) -> None:
        self.unanswered.append(packet)
        if packet[0] >> 4 != 3:
            return
        packet_id, number = int.from_bytes(packet[5:7], "big"), int(packet[7:])
        is_again = number in self.heard
        assert bool(packet[0] & 8) == is_again
        if not is_again:
            self.heard.append(number)
        if packet[0] >> 1 & 3 == 2 and packet_id not in self.held:
            self.held.add(packet_id)
            self.taken.append(number)

    def _answer(self, packet: bytes) -> None:
        if packet[0] >> 4 == 6:
            packet_id = int.from_bytes(packet[2:4], "big")
            self.held.discard(packet_id)
            self.box.completed(packet_id)
        elif packet[0] >> 1 & 3 == 1:
            self.box.acknowledged(int.from_bytes(packet[5:7], "big"))
        else:
            self.box.received(int.from_bytes(packet[5:7], "big"))


@given(STEPS)
def test_whatever_a_client_does_it_gets_everything_in_order_and_each_qos_2_once(steps: list[str]) -> None:
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "IN_FLIGHT", _SMALL_WINDOW)
        for step in [*steps, *["ready"] * len(steps), "away", "back"]:
            world.do(step)
        while world.unanswered:
            world.do("answer")
    assert len(world.heard) == world.put
    assert world.taken == sorted(set(world.taken))
    assert (len(world.box), world.room.used) == (0, 0)
