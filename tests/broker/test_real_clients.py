"""What boards, dashboards and servers really run: every client tells the same story, each in its own way.

A persistent `panel` subscribes and goes. A `board` with a will publishes at every QoS its client knows, a retained
name and a reading, and is cut off. The `panel` comes back to what it has missed; `late` is told the retained name, and
hears what it says itself.
"""

import asyncio
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.storage.state import DeviceCredential
from tests.site import Site, reading

OURS = "devices/kitchen/"
STORIES = Path(__file__).parent / "clients"
WAIT_S = 20
Transport = Any
"""What paho and aiomqtt call it."""


class Address(NamedTuple):
    """Where the broker is, and who comes."""

    port: int
    by_websocket: bool
    who: DeviceCredential

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/mqtt" if self.by_websocket else f"mqtt://127.0.0.1:{self.port}"

    @property
    def transport(self) -> Transport:
        return "websockets" if self.by_websocket else "tcp"


class Heard(NamedTuple):
    """A message as its client knows it; not every client tells QoS and RETAIN."""

    topic: str
    payload: str
    qos: int | None = None
    retain: bool | None = None


class Told(NamedTuple):
    """What the story says at its end."""

    missed: list[Heard]
    retained: list[Heard]
    echoed: list[Heard]


def expected(most_qos: int) -> Told:
    told = range(most_qos + 1)
    return Told(
        [Heard("status/said", str(qos), qos, retain=False) for qos in told if qos]
        + [Heard("status/will", "gone", 1, retain=False)],
        [Heard("name", "kitchen", 1, retain=True)],
        [Heard("echo", str(qos), qos, retain=False) for qos in told],
    )


@asynccontextmanager
async def running(*command: str | Path, **environment: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a client; yields what it says, and kills it if it does not end by itself."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run(*command: str | Path, **environment: str) -> str:
    """Run a client until it has nothing more to say."""
    async with running(*command, **environment) as said:
        return (await said.read()).decode()


def told_by(program: str) -> Told:
    """Read what a program has printed."""
    story = json.loads(program)
    return Told(*([Heard(*one) for one in story[part]] for part in Told._fields))


async def mqtt_js(address: Address) -> Told:
    program = STORIES / "story.js"
    libraries = os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), "/usr/share/nodejs"]))  # Debian's
    return told_by(
        await run(
            "node",
            program,
            address.url,
            address.who.username,
            address.who.password,
            NODE_PATH=libraries,
            READING=reading().decode(),
        )
    )


async def micropython(address: Address) -> Told:
    found = importlib.util.find_spec("chumicro_mqtt")
    assert found is not None
    assert found.origin is not None
    return told_by(
        await run(
            Path(sys.executable).with_name("micropython"),
            STORIES / "story_of_micropython.py",
            str(address.port),
            address.who.username,
            address.who.password,
            MICROPYPATH=str(Path(found.origin).parents[1]),
            READING=reading().decode(),
        )
    )


async def mosquitto(address: Address) -> Told:
    at = ("-h", "127.0.0.1", "-p", str(address.port), "-u", address.who.username, "-P", address.who.password)
    panel = ("mosquitto_sub", *at, "-i", "panel", "-c", "-q", "2", "-t", OURS + "status/#", "-F", "%t %p %q %r")
    listen = ("mosquitto_sub", *at, "-q", "2", "-t", OURS + "name", "-t", OURS + "echo", "-F", "%t %p %q %r")
    will = ("--will-topic", OURS + "status/will", "--will-payload", "gone", "--will-qos", "1")

    def heard(line: bytes) -> Heard:
        topic, payload, qos, retain = line.decode().split()
        return Heard(topic.removeprefix(OURS), payload, int(qos), retain == "1")

    async def say(name: str, payload: str, qos: int, *more: str) -> None:
        await run("mosquitto_pub", *at, "-t", OURS + name, "-m", payload, "-q", str(qos), *more)

    await run(*panel, "-E")
    for qos in range(3):
        await say("status/said", str(qos), qos)
    await say("name", "kitchen", 1, "-r")
    await say("telemetry", reading().decode(), 1)
    async with running(*listen, "-i", "board", *will) as lines:
        retained = [heard(await lines.readline())]
    missed = [heard(line.encode()) for line in (await run(*panel, "-C", "3")).splitlines()]
    async with running(*listen) as lines:
        await lines.readline()  # the retained name: it listens
        echoed = []
        for qos in range(3):
            await say("echo", str(qos), qos)
            echoed.append(heard(await lines.readline()))
    return Told(missed, retained, echoed)


class Paho:
    """paho-mqtt as blocking calls."""

    def __init__(self, address: Address, client_id: str, *, clean: bool = True, will: str = "") -> None:
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean, protocol=paho.MQTTv311, transport=address.transport
        )
        self._client.username_pw_set(address.who.username, address.who.password)
        self._client.ws_set_options("/mqtt")
        self._heard: list[Heard] = []
        self._granted = threading.Event()
        if will:
            self._client.will_set(OURS + will, "gone", 1)
        self._client.on_message = self._hear
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.connect("127.0.0.1", address.port)
        self._client.loop_start()

    def _hear(self, _: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        payload = message.payload.decode()
        self._heard.append(Heard(message.topic.removeprefix(OURS), payload, message.qos, message.retain))

    def listen(self, name: str, qos: int) -> None:
        self._granted.clear()
        self._client.subscribe(OURS + name, qos)
        assert self._granted.wait(WAIT_S)

    def say(self, name: str, payload: str | bytes, qos: int, *, retain: bool = False) -> None:
        self._client.publish(OURS + name, payload, qos, retain).wait_for_publish(WAIT_S)

    def heard(self, count: int) -> list[Heard]:
        until = time.monotonic() + WAIT_S
        while len(self._heard) < count:
            assert time.monotonic() < until
            time.sleep(0.01)
        heard, self._heard = self._heard, []
        return heard

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def cut(self) -> None:
        self._client._sock_close()  # it has no other way to vanish
        self._client.loop_stop()


def told_by_paho(address: Address) -> Told:
    panel = Paho(address, "panel", clean=False)
    panel.listen("status/#", 2)
    panel.leave()

    board = Paho(address, "board", will="status/will")
    for qos in range(3):
        board.say("status/said", str(qos), qos)
    board.say("name", "kitchen", 1, retain=True)
    board.say("telemetry", reading(), 1)
    board.cut()

    panel = Paho(address, "panel", clean=False)
    missed = panel.heard(3)
    panel.leave()

    late = Paho(address, "late")
    late.listen("name", 1)
    retained = late.heard(1)
    late.listen("echo", 2)
    echoed: list[Heard] = []
    for qos in range(3):
        late.say("echo", str(qos), qos)
        echoed += late.heard(1)
    late.leave()
    return Told(missed, retained, echoed)


async def paho_mqtt(address: Address) -> Told:
    return await asyncio.to_thread(told_by_paho, address)


async def aiomqtt_story(address: Address) -> Told:
    def client(client_id: str, *, clean: bool = True, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
        return aiomqtt.Client(
            "127.0.0.1",
            address.port,
            identifier=client_id,
            username=address.who.username,
            password=address.who.password,
            clean_session=clean,
            will=will,
            transport=address.transport,
            websocket_path="/mqtt" if address.by_websocket else None,
        )

    async def heard(client: aiomqtt.Client, count: int) -> list[Heard]:
        async with asyncio.timeout(WAIT_S):
            messages = [await anext(aiter(client.messages)) for _ in range(count)]
        said = [(one, one.payload) for one in messages if isinstance(one.payload, bytes)]
        return [Heard(one.topic.value.removeprefix(OURS), word.decode(), one.qos, one.retain) for one, word in said]

    async with client("panel", clean=False) as panel:
        await panel.subscribe(OURS + "status/#", 2)
    with suppress(aiomqtt.MqttError):
        async with client("board", will=aiomqtt.Will(OURS + "status/will", "gone", 1)) as board:
            for qos in range(3):
                await board.publish(OURS + "status/said", str(qos), qos)
            await board.publish(OURS + "name", "kitchen", 1, retain=True)
            await board.publish(OURS + "telemetry", reading(), 1)
            board._client._sock_close()  # it has no other way to vanish
    async with client("panel", clean=False) as panel:
        missed = await heard(panel, 3)
    echoed: list[Heard] = []
    async with client("late") as late:
        await late.subscribe(OURS + "name", 1)
        retained = await heard(late, 1)
        await late.subscribe(OURS + "echo", 2)
        for qos in range(3):
            await late.publish(OURS + "echo", str(qos), qos)
            echoed += await heard(late, 1)
    return Told(missed, retained, echoed)


IF_THERE_IS_ONE = pytest.mark.skipif(
    importlib.util.find_spec("micropython_unix") is None, reason="no MicroPython for this machine on PyPI"
)


@pytest.mark.parametrize(
    ("client", "by_websocket"),
    [
        (mosquitto, False),
        (paho_mqtt, False),
        (paho_mqtt, True),
        (aiomqtt_story, False),
        (aiomqtt_story, True),
        (mqtt_js, False),
        (mqtt_js, True),
        pytest.param(micropython, False, marks=IF_THERE_IS_ONE),
    ],
)
async def test_every_client_tells_the_same_story(
    site: Site, client: Callable[[Address], Awaitable[Told]], by_websocket: bool
) -> None:
    address = Address(site.http_port if by_websocket else site.mqtt_port, by_websocket, site.kitchen)
    told = await client(address)
    if client is micropython:  # knows QoS 0 and 1, and tells a message's topic and payload
        whole = expected(1)
        wanted = Told(*([Heard(one.topic, one.payload) for one in part] for part in whole))
    else:
        wanted = expected(2)
    assert told._replace(missed=sorted(told.missed)) == wanted  # a client shows QoS 2 when it is released
    assert len(await site.stored(1)) == 1
