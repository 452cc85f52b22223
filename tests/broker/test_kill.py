"""A gateway that is killed has forgotten nothing of what it promised its clients."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.broker.raw import connect, puback, pubcomp, publish, pubrec, pubrel, subscribe
from tests.gateway_process import WAIT_S, GatewayProcess

STATUS = "devices/board/status"
ACCEPTED, PRESENT = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"


class Client:
    """A blocking client of a gateway in a process of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def of(
        cls, gateway: GatewayProcess, login: tuple[str, str], client_id: str, answer: bytes, *, clean: bool = False
    ) -> "Iterator[Client]":
        with socket.create_connection(("127.0.0.1", gateway.mqtt_port), timeout=WAIT_S) as connection:
            client = cls(connection)
            client.send(connect(client_id, *login, clean=clean))
            client.expect(answer)
            yield client

    def send(self, *packets: bytes) -> None:
        self._connection.sendall(b"".join(packets))

    def expect(self, *packets: bytes) -> None:
        expected, got = b"".join(packets), b""
        while len(got) < len(expected) and (more := self._connection.recv(len(expected) - len(got))):
            got += more
        assert got == expected

    def rest(self) -> bytes:
        """Return what came before the other end went."""
        got = b""
        with suppress(ConnectionError):
            while more := self._connection.recv(65_536):
                got += more
        return got

    def is_alive(self) -> bool:
        self.send(b"\xc0\x00")
        return self._connection.recv(100) == b"\xd0\x00"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture
def login(gateway: GatewayProcess) -> tuple[str, str]:
    added = gateway.json("device", "add", "board")
    return added["username"], added["password"]


def noted(gateway: GatewayProcess, *, left: int) -> None:
    """Return when so many messages are owed on disk: an acknowledgement is noted there within a second."""
    deadline = time.monotonic() + WAIT_S
    with closing(sqlite3.connect(f"{(gateway.data_dir / 'log.db').as_uri()}?mode=ro", uri=True)) as db:
        while (owed := db.execute("SELECT count(*) FROM session_outbox").fetchone()) != (left,):
            assert time.monotonic() < deadline, owed
            time.sleep(0.02)


def restart(gateway: GatewayProcess) -> None:
    gateway.kill()
    gateway.start()


def test_p1_a_killed_gateway_still_owes_its_clients_everything(gateway: GatewayProcess, login: tuple[str, str]) -> None:
    with (
        Client.of(gateway, login, "sleeper", ACCEPTED) as sleeper,
        Client.of(gateway, login, "writer", ACCEPTED, clean=True) as writer,
    ):
        sleeper.send(subscribe(STATUS, qos=2))
        sleeper.expect(b"\x90\x03\x00\x01\x02")
        under_way = [publish(STATUS, b"%d" % n, qos=1 + n % 2, packet_id=n) for n in range(1, 7)]
        writer.send(*under_way)
        writer.expect(*(pubrec(n) if n % 2 else puback(n) for n in range(1, 7)))
        sleeper.expect(*under_way)
        sleeper.send(pubrec(3), puback(2))
        sleeper.expect(pubrel(3))
        noted(gateway, left=5)
        gateway.kill()
    gateway.start()
    with Client.of(gateway, login, "sleeper", PRESENT) as sleeper:
        again = [publish(STATUS, b"%d" % n, qos=1 + n % 2, packet_id=n, dup=True) for n in (1, 4, 5, 6)]
        sleeper.expect(again[0], pubrel(3), *again[1:])
        sleeper.send(pubcomp(3), pubrec(1), puback(4), pubrec(5), puback(6))
        sleeper.expect(pubrel(1), pubrel(5))
        sleeper.send(pubcomp(1), pubcomp(5))
        assert sleeper.is_alive()


def test_p1_what_was_acknowledged_for_a_client_that_is_away_arrives_in_order(
    gateway: GatewayProcess, login: tuple[str, str]
) -> None:
    count = 200
    with Client.of(gateway, login, "sleeper", ACCEPTED) as sleeper:
        sleeper.send(subscribe("devices/board/+", qos=1))
        sleeper.expect(b"\x90\x03\x00\x01\x01")
    with Client.of(gateway, login, "writer", ACCEPTED, clean=True) as writer:
        for n in range(1, count + 1):
            writer.send(publish(STATUS, b"%d" % n, qos=1, packet_id=n, retain=True))
        writer.expect(*(puback(n) for n in range(1, count + 1)))
        gateway.kill()  # right after the last acknowledgement
    gateway.start()
    with Client.of(gateway, login, "sleeper", PRESENT) as sleeper:
        for n in range(1, count + 1):
            sleeper.expect(publish(STATUS, b"%d" % n, qos=1, packet_id=n))
            sleeper.send(puback(n))
        assert sleeper.is_alive()
        sleeper.send(subscribe(STATUS, packet_id=9))
        sleeper.expect(b"\x90\x03\x00\x09\x00", publish(STATUS, b"%d" % count, retain=True))


@pytest.mark.parametrize("acknowledged", [1, 40, 300])
def test_p1_a_kill_amid_the_stream_loses_nothing_acknowledged(
    gateway: GatewayProcess, login: tuple[str, str], acknowledged: int
) -> None:
    with Client.of(gateway, login, "sleeper", ACCEPTED) as sleeper:
        sleeper.send(subscribe(STATUS, qos=1))
        sleeper.expect(b"\x90\x03\x00\x01\x01")
    with Client.of(gateway, login, "writer", ACCEPTED, clean=True) as writer:
        writer.send(*(publish(STATUS, b"%04d" % n, qos=1 + n % 2, packet_id=n) for n in range(1, 1_001)))
        writer.expect(*(pubrec(n) if n % 2 else puback(n) for n in range(1, acknowledged + 1)))
        gateway.kill()
        more = writer.rest()
    acknowledged += len(more) // 4
    gateway.start()
    with Client.of(gateway, login, "sleeper", PRESENT) as sleeper:
        for n in range(1, acknowledged + 1):
            sleeper.expect(publish(STATUS, b"%04d" % n, qos=1, packet_id=n))
            sleeper.send(puback(n))


def test_a_message_of_qos_2_is_not_taken_twice_over_a_kill(gateway: GatewayProcess, login: tuple[str, str]) -> None:
    with Client.of(gateway, login, "sleeper", ACCEPTED) as sleeper:
        sleeper.send(subscribe(STATUS, qos=1))
        sleeper.expect(b"\x90\x03\x00\x01\x01")
    with Client.of(gateway, login, "writer", ACCEPTED) as writer:
        writer.send(publish(STATUS, b"once", qos=2, packet_id=7))
        writer.expect(pubrec(7))
        restart(gateway)
    with Client.of(gateway, login, "writer", PRESENT) as writer:
        writer.send(publish(STATUS, b"once", qos=2, packet_id=7, dup=True), pubrel(7))
        writer.expect(pubrec(7), pubcomp(7))
        restart(gateway)
    with Client.of(gateway, login, "writer", PRESENT) as writer:
        writer.send(publish(STATUS, b"next", qos=2, packet_id=7))
        writer.expect(pubrec(7))
    with Client.of(gateway, login, "sleeper", PRESENT) as sleeper:
        sleeper.expect(publish(STATUS, b"once", qos=1, packet_id=1), publish(STATUS, b"next", qos=1, packet_id=2))


def test_what_was_ended_stays_ended_over_a_kill(gateway: GatewayProcess, login: tuple[str, str]) -> None:
    name = STATUS.encode()
    with Client.of(gateway, login, "one", ACCEPTED) as one, Client.of(gateway, login, "two", ACCEPTED) as two:
        for client in (one, two):
            client.send(subscribe(STATUS, qos=1))
            client.expect(b"\x90\x03\x00\x01\x01")
        one.send(bytes([0xA2, len(name) + 4, 0, 9, 0, len(name)]) + name)
        one.expect(b"\xb0\x02\x00\x09")
    with Client.of(gateway, login, "two", ACCEPTED, clean=True) as two:
        two.send(publish(STATUS, b"x", qos=1, retain=True), publish(STATUS, b"", qos=1, packet_id=2, retain=True))
        two.expect(puback(1), puback(2))
        restart(gateway)
    with Client.of(gateway, login, "one", PRESENT) as one, Client.of(gateway, login, "two", ACCEPTED) as two:
        two.send(publish(STATUS, b"y", qos=1))
        two.expect(puback(1))
        assert one.is_alive()
        two.send(subscribe(STATUS))
        two.expect(b"\x90\x03\x00\x01\x00")
        assert two.is_alive()
