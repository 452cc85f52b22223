"""The board's own MQTT client, run by MicroPython, with Debian's mosquitto behind a network that breaks."""

import asyncio
import importlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt

from tests.firmware.board_process import BadNetwork, mosquitto, running, told
from tests.ports import free_port


def story(port: int, **more: Any) -> dict[str, Any]:
    return {"gateway": {"host": "board-test", "port": port, "tls": False}, **more}


def numbered(count: int, qos: int = 1) -> list[list[Any]]:
    return [["data", str(number), qos, False] for number in range(count)]


async def test_it_publishes_at_both_qos_and_keeps_the_order(tmp_path: Path) -> None:
    messages = [["data", str(number), number % 2, False] for number in range(80)]
    with mosquitto(tmp_path / "m") as port:
        async with aiomqtt.Client("127.0.0.1", port) as listener:
            await listener.subscribe("data", qos=1)
            board = await told("mqtt_story", story(port, messages=messages, until={"acknowledged": 80}))
            async with asyncio.timeout(20):
                heard = [bytes((await anext(listener.messages)).payload).decode() for _ in range(80)]
    for qos in (0, 1):  # each in its order: what a slow subscriber gets at QoS 1 may wait behind the other
        assert [one for one in heard if int(one) % 2 == qos] == [str(number) for number in range(qos, 80, 2)]
    assert len(board.of("connected")) == 1


async def test_it_hears_what_it_subscribed_to_also_what_was_said_while_it_was_away(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "m") as port:
        async with aiomqtt.Client("127.0.0.1", port) as other:
            await other.publish("to-board/config", "kept", qos=1, retain=True)
            first = await told("mqtt_story", story(port, until={"heard": 1}, linger_ms=200))
            await other.publish("to-board/command", "while away", qos=1)
            await other.publish("elsewhere", "not for it", qos=1)
            second = await told("mqtt_story", story(port, until={"heard": 2}, linger_ms=200))
    assert first.of("heard") == [["to-board/config", "kept"]]
    assert sorted(second.of("heard")) == [["to-board/command", "while away"], ["to-board/config", "kept"]]


async def test_a_message_that_is_too_long_is_said_to_be_and_the_next_one_is_heard(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "m") as port:
        async with (
            aiomqtt.Client("127.0.0.1", port) as other,
            running("mqtt_story", story(port, until={"heard": 3})) as board,
        ):
            await board.until(lambda: len(board.of("connected")) == 1, "the connection")
            await asyncio.sleep(0.3)
            for payload in ("a" * 4_000, "b" * 50_000, "c"):
                await other.publish("to-board/x", payload, qos=1)
            await board.until(lambda: len(board.of("heard")) == 3, "three messages")
    assert board.of("heard") == [["to-board/x", "a" * 4_000], ["to-board/x", None], ["to-board/x", "c"]]


async def test_what_is_not_acknowledged_is_sent_again_in_order_on_every_new_connection(tmp_path: Path) -> None:
    """Acknowledgements are swallowed, and packets cut in the middle: nothing is missing, nothing overtakes."""
    pieces = 0

    def may_pass(from_board: bool, _: bytes) -> bool:
        nonlocal pieces
        pieces += 1
        return pieces % 23 != 0 if from_board else pieces % 11 != 0

    with mosquitto(tmp_path / "m") as port:
        network = BadNetwork(port, may_pass)
        async with aiomqtt.Client("127.0.0.1", port) as listener, network.listening() as bad_port:
            await listener.subscribe("data", qos=1)
            told_story = story(bad_port, messages=numbered(60), until={"acknowledged": 60})
            board = await told("mqtt_story", told_story)
            heard = []
            async with asyncio.timeout(20):
                while "59" not in heard:
                    heard.append(bytes((await anext(listener.messages)).payload).decode())
    assert network.connections > 3
    assert list(dict.fromkeys(heard)) == [str(number) for number in range(60)]
    assert len(heard) > 60, "nothing was sent again"
    assert [int(number) for number in board.of("acknowledged")] == list(range(60))
    again = await said_again(network.from_board)
    assert again, "nothing was marked as sent again"
    assert len(again) >= len(heard) - 60


async def said_again(connections: list[bytearray]) -> list[bytes]:
    """Return the payloads of QoS 1 that came with DUP, of all connections of a board."""
    codec = importlib.import_module("app.mqtt_codec")
    payloads = []
    for brought in connections:
        stream = Brought(brought)
        with suppress(EOFError):  # the last packet was cut
            while True:
                packet = await codec.read_packet(stream, 5_000)
                if packet.kind == codec.PUBLISH and packet.flags & 8:
                    payloads.append(packet.message()[1])
    return payloads


class Brought(io.BytesIO):
    """What a connection has brought, as a board's stream."""

    async def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer)


async def test_its_will_is_said_when_it_is_gone(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "m") as port:
        async with aiomqtt.Client("127.0.0.1", port) as listener:
            await listener.subscribe("will")
            async with running("mqtt_story", story(port, until={"heard": 1})) as board:
                await board.until(lambda: bool(board.of("connected")), "the connection")
            async with asyncio.timeout(20):
                message = await anext(listener.messages)
    assert message.payload == b"gone"


async def test_a_broker_that_is_silent_is_noticed_by_the_ping(tmp_path: Path) -> None:
    class Silent(BadNetwork):
        async def _pass(self, reader: Any, writer: Any, _: Any) -> None:
            while data := await reader.read(65_536):
                if data[:2] == b"\xc0\x00" and self.connections == 1:
                    continue  # the first connection's pings get lost
                writer.write(data)

    with mosquitto(tmp_path / "m") as port:
        network = Silent(port, lambda *_: True)
        async with network.listening() as bad_port:
            board = await told("mqtt_story", story(bad_port, keepalive_s=2, until={"connected": 2}, linger_ms=3_000))
    assert board.of("problem") == ["the broker does not answer a ping"]
    assert network.connections == 2, "the pings of the second one were answered"


async def test_a_broker_that_comes_back_is_found_and_gets_everything(tmp_path: Path) -> None:
    port = free_port()
    kept = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path / 'm'}/")
    async with running(
        "mqtt_story", story(port, messages=numbered(20), every_ms=100, until={"acknowledged": 20})
    ) as board:
        await board.until(lambda: len(board.of("problem")) >= 1, "a refusal")
        with mosquitto(tmp_path / "m", *kept, port=port):
            await board.until(lambda: len(board.of("acknowledged")) >= 10, "ten of them")
        with mosquitto(tmp_path / "m", *kept, port=port):
            await board.until(lambda: len(board.of("acknowledged")) == 20, "all of them")
    assert [int(number) for number in board.of("acknowledged")] == list(range(20))


async def test_a_refused_login_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")
    with mosquitto(tmp_path / "m", "allow_anonymous false", f"password_file {tmp_path / 'passwords'}") as port:
        board = await told("mqtt_story", story(port, until={"problem": 1}))
    assert board.of("problem") == ["the broker does not let this device in"]


async def test_what_is_no_broker_is_said_in_words() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        board = await told("mqtt_story", story(server.sockets[0].getsockname()[1], until={"problem": 1}))
    assert board.of("problem") == ["the broker does not answer with CONNACK: is this its port?"]
