"""What is wrong in amqtt 0.12.1, as checks that any broker can be put to, from outside.

A check raises Defect if the broker has it, and AssertionError if it cannot even begin. It knows one client's login and
topics, so what it does is what any client could do.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.broker.packets import encode_packet
from gateway.storage.state import DeviceCredential
from tests.broker.raw import (
    ACCEPTED,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    RawClient,
    connect,
    puback,
    publish,
    subscribe,
)

STATUS = "devices/kitchen/status"
GRANTED = b"\x90\x03\x00\x01"
NOT_AUTHORIZED = b"\x05"
QUIET_S = 0.5
"""How long silence is waited for."""
SILENCE = b"..."
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Defect(Exception):
    """The broker has it."""


@dataclass(frozen=True)
class Broker:
    """One to be checked."""

    port: int
    pid: int
    device: DeviceCredential
    patience_s: float
    """For what happens within milliseconds if it happens at all."""

    @asynccontextmanager
    async def socket(self, first: bytes = b"") -> AsyncIterator[RawClient]:
        """Open a connection and send `first`; leaving the context cuts it off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = RawClient(reader, writer)
        try:
            client.send(first)
            yield client
        finally:
            client.cut()

    def hello(self, client_id: str, password: str | None = None, **how: Any) -> bytes:
        return connect(client_id, self.device.username, password or self.device.password, **how)

    @asynccontextmanager
    async def client(self, client_id: str, filters: str = "", qos: int = 0, **how: Any) -> AsyncIterator[RawClient]:
        """Log in, and subscribe to `filters` if it is not empty."""
        async with self.socket(self.hello(client_id, **how)) as client:
            assert (await client.packet())[:2] == ACCEPTED[:2]
            if filters:
                client.send(subscribe(filters, qos=qos))
                assert await client.packet() == GRANTED + bytes([qos])
            yield client

    async def says(self, what: Awaitable[bytes]) -> bytes:
        return await within(self.patience_s, what)

    async def must_say(self, client: RawClient, expected: bytes, what: str) -> None:
        said = await self.says(client.reader.readexactly(len(expected)))
        if said != expected:
            raise Defect(f"{what}: {said!r}")

    async def must_close(self, client: RawClient, what: str, seconds: float = 0) -> bytes:
        """Return what the broker said before it closed the connection, with so much patience more."""
        said = b""
        while more := await within(self.patience_s + seconds, client.reader.read(1 << 16)):
            if more == SILENCE:
                raise Defect(f"{what}: the connection stays open after {said[:50]!r}")
            said += more
        return said

    def memory_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]) * PAGE_BYTES


async def within(seconds: float, what: Awaitable[bytes]) -> bytes:
    """Return the bytes, none if the other end is gone, or SILENCE if it says nothing for so long."""
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        return SILENCE
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


@dataclass(frozen=True)
class Check:
    """One defect, by its number in the list that was made when amqtt was tried."""

    number: str
    run: Callable[[Broker], Awaitable[None]]
    ours: dict[str, Any] = field(default_factory=dict)
    """Settings of our broker; of these amqtt knows `max_connections`."""
    with_a_password_file: bool = False
    """Whether amqtt checks passwords by its own plugin."""


async def a_foreign_message_is_not_acknowledged(broker: Broker) -> None:
    async with broker.client("a") as client:
        client.send(publish("devices/hall/status", b"x", qos=1, packet_id=7))
        if await broker.says(client.reader.read(4)) == puback(7):
            raise Defect("what the client may not publish is acknowledged")


async def silence_beyond_the_keepalive_closes_and_leaves_the_will(broker: Broker) -> None:
    async with (
        broker.client("watcher", STATUS) as watcher,
        broker.client("dying", keepalive=1, will=(STATUS, b"dead")) as dying,
    ):
        await broker.must_close(dying, "silent for more than 1.5 times its keepalive", 1.5)
        await broker.must_say(watcher, publish(STATUS, b"dead"), "the will of a client that fell silent")


async def a_connect_that_never_comes_is_not_waited_for(broker: Broker) -> None:
    async with broker.socket() as client:
        await broker.must_close(client, "no CONNECT")


async def one_connection_too_many_is_told_so(broker: Broker) -> None:
    async with (
        broker.client("a"),
        broker.client("b"),
        broker.socket(broker.hello("c")) as third,
    ):
        await broker.must_close(third, "one connection more than there may be")


async def the_same_client_again_ends_the_older_connection(broker: Broker) -> None:
    async with broker.client("same") as old, broker.client("same"):
        await broker.must_close(old, "taken over")


async def a_client_that_comes_back_while_its_old_connection_hangs_is_heard_and_told(broker: Broker) -> None:
    async with (
        broker.client("board", STATUS, qos=1, clean=False),
        broker.client("board", clean=False) as back,
        broker.client("panel") as panel,
    ):
        await asyncio.sleep(2)  # amqtt looks every second for sessions that it may remove
        back.send(PINGREQ)
        await broker.must_say(back, PINGRESP, "the PINGREQ of a client that came back")
        panel.send(publish(STATUS, b"go", qos=1, packet_id=9))
        await panel.expect(puback(9))
        if await broker.says(back.packet()) in (b"", SILENCE):
            raise Defect("a client that came back while its old connection hung is told nothing more")


async def a_refused_login_leaves_its_victims_subscriptions(broker: Broker) -> None:
    async with broker.client("victim", STATUS) as victim, broker.client("panel") as panel:
        async with broker.socket(broker.hello("victim", "wrong")) as attacker:
            assert (await broker.says(attacker.reader.readexactly(4)))[3:] == NOT_AUTHORIZED
        panel.send(publish(STATUS, b"go"))
        await broker.must_say(victim, publish(STATUS, b"go"), "a command after somebody else's refused login")


async def a_refused_login_leaves_its_victims_connection_and_will(broker: Broker) -> None:
    async with (
        broker.client("watcher", "devices/kitchen/#") as watcher,
        broker.client("victim", clean=False, will=(STATUS, b"dead")) as victim,
    ):
        evil = broker.hello("victim", "wrong", clean=False, will=("devices/kitchen/evil", b"evil"))
        async with broker.socket(evil) as attacker:
            assert (await broker.says(attacker.reader.readexactly(4)))[3:] == NOT_AUTHORIZED
        victim.send(PINGREQ)
        await broker.must_say(victim, PINGRESP, "the victim of a refused login")
        victim.cut()
        await broker.must_say(watcher, publish(STATUS, b"dead"), "the will of the victim of a refused login")


async def refused_logins_leave_nothing_behind(broker: Broker) -> None:
    count, most_bytes = 400, 10_000

    async def guess(number: int) -> None:
        async with broker.socket(broker.hello(f"guess-{number}", "wrong")) as attacker:
            await within(QUIET_S, attacker.reader.read(4))

    await asyncio.gather(*(guess(number) for number in range(100)))  # what is allocated once
    before = broker.memory_bytes()
    for number in range(100, 100 + count, 100):
        await asyncio.gather(*(guess(number + one) for one in range(100)))
    grown = broker.memory_bytes() - before
    if grown > count * most_bytes:
        raise Defect(f"{grown // count} bytes stay behind of each refused login")


async def a_subscriber_that_reads_nothing_is_dropped(broker: Broker) -> None:
    batch = publish(STATUS, bytes(4_000)) * 500
    async with broker.client("stuck", STATUS) as stuck, broker.client("board") as board:
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a duplex transport
        for _ in range(10):
            board.send(batch, PINGREQ)
            async with asyncio.timeout(20):
                assert await board.packet() == PINGRESP
        await asyncio.sleep(1.5)
        stuck.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        await broker.must_close(stuck, "a subscriber that read nothing")


def a_malformed_packet_closes(packet: bytes) -> Callable[[Broker], Awaitable[None]]:
    async def check(broker: Broker) -> None:
        async with broker.client("mad") as client:
            client.send(packet, PINGREQ)
            await broker.must_close(client, "after a malformed packet")

    return check


async def who_speaks_http_is_closed(broker: Broker) -> None:
    async with broker.socket(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        await broker.must_close(client, "after an HTTP request")


async def a_packet_beyond_all_measure_closes(broker: Broker) -> None:
    async with broker.client("big") as client:
        client.send(publish(STATUS, bytes(16 << 20), qos=1))
        if said := await within(10, client.reader.read(4)):
            raise Defect(f"a packet of 16 MB does not close its connection: {said!r}")


async def who_subscribed_to_nothing_is_sent_nothing(broker: Broker) -> None:
    async with broker.client("panel", STATUS), broker.client("board") as board:
        board.send(publish(STATUS, b"online", qos=1, retain=True))
        await board.expect(puback(1))
        async with broker.client("new") as new:
            new.send(PINGREQ)
            await broker.must_say(new, PINGRESP, "to a client that has subscribed to nothing")
            if (said := await within(QUIET_S, new.reader.read(100))) != SILENCE:
                raise Defect(f"a client that has subscribed to nothing is sent {said!r}")


async def what_was_not_acknowledged_comes_again(broker: Broker) -> None:
    async with broker.client("panel", STATUS, qos=1, clean=False) as panel, broker.client("board") as board:
        board.send(publish(STATUS, b"important", qos=1))
        await board.expect(puback(1))
        assert (await panel.packet()).endswith(b"important")
    async with broker.client("panel", clean=False) as panel:
        if not (await broker.says(panel.packet())).endswith(b"important"):
            raise Defect("a message that was never acknowledged is lost")


async def what_was_acknowledged_is_there_after_a_kill(broker: Broker, kill_and_start: Callable[[], Broker]) -> None:
    async with broker.client("board") as board:
        board.send(publish(STATUS, b"online", qos=1, retain=True))
        await board.expect(puback(1))
    async with kill_and_start().client("panel", STATUS) as panel:
        await broker.must_say(panel, publish(STATUS, b"online", retain=True), "after a kill, what was acknowledged")


async def a_hundred_boards_are_let_in_at_once(broker: Broker) -> None:
    async with AsyncExitStack() as stack:
        boards = [
            await stack.enter_async_context(broker.socket(broker.hello(f"board-{number}"))) for number in range(100)
        ]
        try:
            async with asyncio.timeout(broker.patience_s):
                for board in boards:
                    assert await board.reader.readexactly(4) == ACCEPTED
        except TimeoutError:
            raise Defect("a hundred boards wait for each other's passwords to be checked") from None


async def what_was_acknowledged_is_handed_on(broker: Broker) -> None:
    count = 200
    messages = b"".join(publish(STATUS, b"%d" % number, qos=1, packet_id=number) for number in range(1, count + 1))
    async with broker.client("panel", STATUS) as panel, broker.client("board", keepalive=0) as board:
        board.send(messages, DISCONNECT)
        acknowledged = len(await broker.must_close(board, "after DISCONNECT")) // 4
        heard = 0
        while heard < acknowledged and await broker.says(panel.packet()) not in (b"", SILENCE):
            heard += 1
        if heard < acknowledged:
            raise Defect(f"of {acknowledged} acknowledged messages {heard} were handed on")


async def nothing_is_delivered_at_a_higher_qos_than_it_was_published(broker: Broker) -> None:
    async with broker.client("panel", STATUS, qos=1) as panel, broker.client("board") as board:
        board.send(publish(STATUS, b"x", qos=0))
        await broker.must_say(panel, publish(STATUS, b"x", qos=0), "a message of QoS 0")


MALFORMED = {
    "a wildcard in a topic": publish("devices/kitchen/#", b"x", qos=1, packet_id=5),
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x7f",
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "a second CONNECT": connect("another"),
    "QoS 3": encode_packet(0x36, b"\x00\x01a\x00\x01x"),
    "a topic longer than its packet": b"\x30\x04\x00\x50ab",
    "a topic that is no UTF-8": publish(b"\xff\xfe", b"x"),
    "an empty topic": publish("", b"x", qos=1, packet_id=3),
    "packet id 0": publish(STATUS, b"x", qos=1, packet_id=0),
}

CHECKS = [
    Check("D1b", a_foreign_message_is_not_acknowledged),
    Check("D3", silence_beyond_the_keepalive_closes_and_leaves_the_will),
    Check("D4", a_connect_that_never_comes_is_not_waited_for, {"connect_timeout_s": 0.5}),
    Check("D5", one_connection_too_many_is_told_so, {"max_connections": 2}),
    Check("D6", the_same_client_again_ends_the_older_connection),
    Check("D7b", a_client_that_comes_back_while_its_old_connection_hangs_is_heard_and_told),
    Check("D8", a_refused_login_leaves_its_victims_subscriptions),
    Check("D8b", a_refused_login_leaves_its_victims_connection_and_will),
    Check("D9", refused_logins_leave_nothing_behind),
    Check("D10", a_subscriber_that_reads_nothing_is_dropped, {"subscriber_timeout_s": 0.5}),
    *(Check(f"D11 {name}", a_malformed_packet_closes(packet)) for name, packet in MALFORMED.items()),
    Check("D11 HTTP", who_speaks_http_is_closed),
    Check("D12", a_packet_beyond_all_measure_closes),
    Check("D13b", who_subscribed_to_nothing_is_sent_nothing),
    Check("D14", what_was_not_acknowledged_comes_again),
    Check("D15", a_hundred_boards_are_let_in_at_once, with_a_password_file=True),
    Check("delivery QoS", nothing_is_delivered_at_a_higher_qos_than_it_was_published),
    Check("D17", what_was_acknowledged_is_handed_on),
]
