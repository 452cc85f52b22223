"""The story of test_real_clients.py, told by MicroPython: micropython … PORT USERNAME PASSWORD."""

import json
import os
import sys
import time

from chumicro_mqtt import MQTTClient, ProtocolState
from chumicro_sockets.sockets_factory import fixed_connector_factory

PORT, USERNAME, PASSWORD = sys.argv[1:4]
OURS = "devices/kitchen/"
PATIENCE_MS = 10_000


class Client:
    """One connection that is waited for, as a board without anything else to do may."""

    def __init__(self, client_id, **options):
        connector = fixed_connector_factory("127.0.0.1", int(PORT))
        self._mqtt = MQTTClient(
            transport_factory=connector, client_id=client_id, username=USERNAME, password=PASSWORD, **options
        )
        self._mqtt.on_message = self._hear
        self._heard = []
        self._done = 0
        self._mqtt.connect()
        self._until(lambda: self._mqtt.state == ProtocolState.CONNECTED)

    def _hear(self, topic, payload):
        self._heard.append([topic[len(OURS) :], bytes(payload).decode()])

    def _answered(self, *_):
        self._done += 1

    def _until(self, holds):
        start = time.ticks_ms()
        while not holds():
            now = time.ticks_ms()
            if time.ticks_diff(now, start) > PATIENCE_MS or self._mqtt.state == ProtocolState.FAILED:
                raise OSError(self._mqtt.last_error)
            if self._mqtt.check(now):
                self._mqtt.handle(now)
            time.sleep_ms(1)

    def listen(self, name, qos):
        done = self._done
        self._mqtt.subscribe(OURS + name, qos, on_subscribe=self._answered)
        self._until(lambda: self._done > done)

    def say(self, name, payload, qos, retain=False):
        done = self._done
        self._mqtt.publish(OURS + name, payload, qos=qos, retain=retain, on_publish=self._answered)
        self._until(lambda: self._done > done)

    def heard(self, count):
        self._until(lambda: len(self._heard) >= count)
        heard, self._heard = self._heard, []
        return heard

    def leave(self):
        self._mqtt.disconnect()

    def cut(self):
        self._mqtt._socket.close()


def story():
    panel = Client("panel", clean_session=False)
    panel.listen("status/#", 1)
    panel.leave()

    board = Client("board", will_topic=OURS + "status/will", will_message=b"gone", will_qos=1)
    for qos in (0, 1):
        board.say("status/said", str(qos), qos)
    board.say("name", "kitchen", 1, retain=True)
    board.say("telemetry", os.getenv("READING"), 1)
    board.cut()

    panel = Client("panel", clean_session=False)
    missed = panel.heard(2)
    panel.leave()

    late = Client("late")
    late.listen("name", 1)
    retained = late.heard(1)
    late.listen("echo", 1)
    echoed = []
    for qos in (0, 1):
        late.say("echo", str(qos), qos)
        echoed += late.heard(1)
    late.leave()
    print(json.dumps({"missed": missed, "retained": retained, "echoed": echoed}))


story()
