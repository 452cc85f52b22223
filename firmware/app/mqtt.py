"""An MQTT 3.1.1 client that forgets nothing: what is not acknowledged is sent again, in order, on the next connection.

- QoS 1 with several messages on their way; a payload is made when it is sent, as the age of a reading changes
- no more than one task writes: what is to be written waits in three queues (answers, again, new)
- a connection is over when nothing comes back within the time that was asked for: a lost peer does not say so

MicroPython forgets a task that waits to read when another one that waits to write to the same socket is cancelled; so
whoever gives up one of the two gives up the connection.
"""

import asyncio

from micropython import const

from app import mqtt_codec as codec
from app.on_demand import forget
from app.within import within

_CONNACK_MS = const(15_000)
_ACK_MS = const(20_000)
_WATCH_MS = const(250)
_LOOK_MS = const(10)
_LIMIT_BYTES = const(4_096)
_WINDOW = const(8)
_MOST_ANSWERS = const(16)
_ROOM_BYTES = const(1_024)
"""Kept for what is being written: a reading finds no place of its size in a heap that is nearly full."""


class MqttError(Exception):
    """A connection is over. Why is said by a word that connecting.py explains, or in words at once.

    `is_login`: it will not get better by trying again soon.
    """

    def __init__(self, words, is_login=False):
        super().__init__(words)
        self.is_login = is_login


class Message:
    """One that is to be published. `payload`: bytes, a tuple of parts, or a function that returns them when it is sent.

    `acknowledged` is called once: at QoS 1 when the broker has it, at QoS 0 when it is written.
    """

    def __init__(self, topic, payload, qos=1, retain=False, acknowledged=None):
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.acknowledged = acknowledged
        self.packet_id = None
        self.was_sent = False
        self.sent_ms = 0


class MqttClient:
    """See the module's own words.

    `login`: (client id, username, password); `will`: (topic, payload); `filters`: what is subscribed to.
    `on_message(topic, payload)` must not wait; its payload is None for a message that is too long.
    """

    def __init__(self, clock, login, will, filters, on_message, keepalive_s=30):
        self._clock = clock
        self._login = login
        self._will = will
        self._filters = filters
        self._on_message = on_message
        self._keepalive_s = keepalive_s
        self._packet_id = 0
        self._room = bytearray(_ROOM_BYTES)
        self._new = []
        self._in_flight = []
        self._again = []
        self._answers = []
        self._failure = None
        self.is_connected = False
        self._subscribing = None
        self._written_ms = 0
        self._asked_ms = None

    # What others ask for

    def submit(self, message):
        """Publish a message as soon as it can be; it survives any number of connections."""
        self._new.append(message)

    @property
    def waiting(self):
        """How many messages are not acknowledged yet."""
        return len(self._new) + len(self._in_flight)

    # One connection

    async def serve(self, reader, writer, connected, beat):
        """Live on this connection until it is over, which is always an exception.

        `connected()` is called when the broker has let us in, `beat()` several times a second. Raises MqttError,
        OSError, ValueError (what TLS thinks of the certificate).
        """
        self._failure = None
        tasks = []
        try:
            try:
                await within(_CONNACK_MS, self._log_in(reader, writer), beat)
            except asyncio.TimeoutError:
                raise MqttError("connect") from None
            connected()
            tasks.append(asyncio.create_task(self._guard(self._read(reader))))
            tasks.append(asyncio.create_task(self._guard(self._write(writer))))
            while True:
                beat()
                if self._failure is not None:
                    raise self._failure
                self._watch()
                await asyncio.sleep_ms(_WATCH_MS)
        finally:
            self.is_connected = False
            for task in tasks:
                task.cancel()
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass

    async def _guard(self, doing):
        try:
            await doing
        except Exception as error:  # noqa: BLE001 - serve() raises it where it is waited for
            if self._failure is None:
                self._failure = error

    async def _log_in(self, reader, writer):
        from app.mqtt_login import log_in, subscribe

        forget("app.mqtt_login")
        await log_in(reader, writer, self._login, self._keepalive_s, self._will)
        self._subscribing = self._next_packet_id()
        self._begin(subscribe(self._subscribing, self._filters))

    def _begin(self, first):
        """What is on its way is sent again, in its order; subscriptions are asked for before."""
        self._again = list(self._in_flight)
        self._answers = [first]
        now = self._clock.ticks_ms()
        self._written_ms, self._asked_ms = now, None
        for message in self._in_flight:
            message.sent_ms = now
        self.is_connected = True

    def _watch(self):
        """Ask whether the peer is still there; find out that it is not."""
        clock = self._clock
        now = clock.ticks_ms()
        for message in self._in_flight:
            if message.was_sent and clock.ticks_diff(now, message.sent_ms) > _ACK_MS:
                raise MqttError("puback")
        if clock.ticks_diff(now, self._written_ms) > _ACK_MS and (self._answers or self._again):
            raise MqttError("write")
        if self._asked_ms is not None:
            if clock.ticks_diff(now, self._asked_ms) > self._keepalive_s * 500:
                raise MqttError("ping")
        elif clock.ticks_diff(now, self._written_ms) > self._keepalive_s * 500:
            self._asked_ms = now
            self._answers.append(codec.PINGREQ)

    # Reading

    async def _read(self, reader):
        while True:
            self._hear(await codec.read_packet(reader, _LIMIT_BYTES))
            while len(self._answers) > _MOST_ANSWERS:
                await asyncio.sleep_ms(20)

    def _hear(self, packet):
        if packet.kind == codec.PUBLISH:
            topic, payload, packet_id = packet.message()
            self._on_message(topic, payload)
            if packet_id is not None:
                self._answers.append(codec.puback(packet_id))
        elif packet.kind == codec.PUBACK:
            self._acknowledge(packet.packet_id())
        elif packet.kind == codec.SUBACK:
            if packet.packet_id() == self._subscribing and any(code & 0x80 for code in packet.body[2:]):
                raise MqttError("subscribe")
        elif packet.kind == codec.PINGRESP:
            self._asked_ms = None
        else:
            raise MqttError("kind")

    def _acknowledge(self, packet_id):
        for index, message in enumerate(self._in_flight):
            if message.packet_id == packet_id:
                del self._in_flight[index]
                if message in self._again:
                    self._again.remove(message)
                _done(message)
                return

    # Writing

    async def _write(self, writer):
        while True:
            packet = self._next_packet()
            if packet is None:
                await asyncio.sleep_ms(_LOOK_MS)
                continue
            writer.write(packet)
            packet = None
            await writer.drain()
            self._written_ms = self._clock.ticks_ms()

    def _next_packet(self):
        """Return what is to be written next: answers, what was on its way before, what is new."""
        if self._answers:
            return self._answers.pop(0)
        if self._again:
            message = self._again.pop(0)
        elif self._new and len(self._in_flight) < _WINDOW:
            message = self._new.pop(0)
            if message.qos:
                message.packet_id = self._next_packet_id()
                self._in_flight.append(message)
        else:
            return None
        payload = message.payload() if callable(message.payload) else message.payload
        packet = codec.publish(message.topic, payload, message.packet_id, message.retain, message.was_sent, self._room)
        message.was_sent = True
        message.sent_ms = self._clock.ticks_ms()
        if not message.qos:
            _done(message)
        return packet

    def _next_packet_id(self):
        taken = [message.packet_id for message in self._in_flight]
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in taken:
                return self._packet_id


def _done(message):
    if message.acknowledged is not None:
        message.acknowledged()
