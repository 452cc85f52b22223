"""A reading every 10 s to a neurogate on the site, by MQTT over TLS; each is sent until the gateway has it on disk.

Nothing has to be installed. `umqtt.simple`, which boards come with, would wait for ever for an acknowledgement that is
lost with its connection; so what is needed of MQTT is here.
"""

import binascii
import json
import os
import socket
import ssl
import time

HOST, PORT = "raspberrypi.local", 8883
WIFI_NAME, WIFI_PASSWORD = "", ""  # no name when boot.py has connected the board already
EVERY_S = 10
ANSWER_S = 15
MOST_WAITING = 100  # so many wait in memory while the gateway is away; beyond, the oldest are given up


def measure():
    """Return what the sensors say; this is where yours are read."""
    return {"pir": {"motion_detected": False}}


def join_wifi(name, password):
    """Begin to connect; the board goes on by itself, also after an interruption."""
    import network

    station = network.WLAN(network.STA_IF)
    station.active(True)
    station.connect(name, password)


def packet(kind, *parts):
    """Return an MQTT packet."""
    body = b"".join(parts)
    head, size = bytearray((kind,)), len(body)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + body


def text(value):
    """Return a text, or bytes, as MQTT counts them."""
    value = value.encode() if isinstance(value, str) else value
    return len(value).to_bytes(2, "big") + value


class Connection:
    """One connection; everything that goes wrong on it is an OSError, or a ValueError for what TLS thinks of it."""

    def __init__(self, device):
        self._packet_id = 0
        self._socket = socket.socket()
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.connect(socket.getaddrinfo(HOST, PORT)[0][-1])
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.verify_mode = ssl.CERT_REQUIRED
            for name in ("ca.der", "ca-next.der"):
                with open(name, "rb") as file:
                    tls.load_verify_locations(cadata=file.read())
            self._stream = tls.wrap_socket(self._socket, server_hostname=HOST)
            self._log_in(device)
        except BaseException:
            self._socket.close()
            raise

    def _log_in(self, device):
        """Log in, with a will: the gateway says that we are offline when nothing is heard of us any more."""
        status = "devices/%s/status" % device["device_id"]
        silence_s = int(3 * EVERY_S + 30)  # a reading is heard before, so that no ping is needed
        connect = (text("MQTT"), b"\x04\xee", silence_s.to_bytes(2, "big"), text(device["device_id"]))
        will = (text(status), text('{"status": "offline"}'))
        self._stream.write(packet(0x10, *connect, *will, text(device["username"]), text(device["password"])))
        answer = self._stream.read(4)
        if answer != b"\x20\x02\x00\x00":
            raise OSError("not let in: %s" % answer)
        self.publish(status, '{"status": "online"}', retain=True)

    def publish(self, topic, payload, retain=False):
        """Return when the gateway has acknowledged it: it is on disk there."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        number = self._packet_id.to_bytes(2, "big")
        self._stream.write(packet(0x33 if retain else 0x32, text(topic), number, payload.encode()))
        answer = self._stream.read(4)
        if answer != b"\x40\x02" + number:
            raise OSError("not acknowledged: %s" % answer)

    def close(self):
        """Let go of it."""
        self._socket.close()


def main():
    """Measure and send for ever."""
    with open("device.json") as file:
        device = json.load(file)
    if WIFI_NAME:
        join_wifi(WIFI_NAME, WIFI_PASSWORD)
    boot_id = binascii.hexlify(os.urandom(4)).decode()  # new at each start: with it `seq` may begin at 1 again
    waiting, seq, connection = [], 0, None
    while True:
        seq += 1
        waiting.append((seq, time.ticks_ms(), measure()))
        del waiting[:-MOST_WAITING]
        try:
            connection = connection or Connection(device)
            while waiting:
                number, measured_ms, sensors = waiting[0]
                age_ms = time.ticks_diff(time.ticks_ms(), measured_ms)  # instead of a time: a board has no clock
                reading = {"device_id": device["device_id"], "boot_id": boot_id, "seq": number, "sensors": sensors}
                reading["age_ms"] = age_ms
                connection.publish(device["topics"][0], json.dumps(reading))
                waiting.pop(0)
        except (OSError, ValueError) as error:
            print("%d readings wait: %r" % (len(waiting), error))
            if connection:
                connection.close()
            connection = None
        time.sleep(EVERY_S)


main()
