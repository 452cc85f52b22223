"""Our ingest and our writer behind a broker: a paho subscriber, QoS 1, that acknowledges after the commit.

A persistent session and manual acknowledgements: should this process die, the broker sends again what is not on disk.
paho runs in the event loop, by its own interface for that; with a thread of its own it was as fast, within what turns
differ by. `python -m tests.bench.peers_subscriber FOLDER PORT`, the port being the broker's.
"""

import asyncio
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from gateway.ingest import Ingest
from gateway.model.errors import StoreFailed
from tests.bench.peers_ingest import Devices, own_ingest, run, tell_ready

_TOPICS = "neurobuild/sensors/+/data"
_KEEPALIVE_OFF = 0
_READS = 20
"""Of paho each time that something has come, as each reads one packet at most: a tenth faster than one."""


class _Subscriber:
    """Hears everything."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._devices = Devices()
        self._owed: deque[int] = deque()
        self.subscribed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.client = client = Client(
            CallbackAPIVersion.VERSION2, client_id="gateway", clean_session=False, manual_ack=True
        )
        client.on_socket_open = self._may_read
        client.on_socket_close = self._may_not_read
        client.on_socket_register_write = self._may_write
        client.on_socket_unregister_write = self._may_not_write
        client.on_connect = lambda client, *_: client.subscribe(_TOPICS, 1)
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = self._on_message

    def _may_read(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.add_reader(sock.fileno(), self._read)

    def _may_not_read(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())

    def _may_write(self, client: Client, _: Any, sock: Any) -> None:
        self._loop.add_writer(sock.fileno(), client.loop_write)

    def _may_not_write(self, _: Client, __: Any, sock: Any) -> None:
        self._loop.remove_writer(sock.fileno())

    def _read(self) -> None:
        for _ in range(_READS):
            self.client.loop_read()

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        self._owed.append(message.mid)
        topic = message.topic
        payload = bytes(message.payload)
        self._ingest.take(self._devices[topic], payload, self, source=topic, maybe_repeated=message.dup)

    def committed(self, count: int) -> None:
        for _ in range(count):
            self.client.ack(self._owed.popleft(), 1)

    def failed(self, error: StoreFailed) -> None:
        raise error


async def _subscribe(folder: Path, port: int, ends: asyncio.Event) -> None:
    async with own_ingest(folder) as ingest:
        subscriber = _Subscriber(ingest)
        subscriber.client.connect("127.0.0.1", port, keepalive=_KEEPALIVE_OFF)
        await subscriber.subscribed.wait()
        tell_ready(port)
        await ends.wait()


if __name__ == "__main__":
    run(partial(_subscribe, Path(sys.argv[1]), int(sys.argv[2])))
