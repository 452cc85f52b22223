"""A reading every 10 s to a neurogate on the site, by MQTT over TLS; each is sent until the gateway has it on disk.

python3 sensor.py HOST device.json ca.pem
"""

import itertools
import json
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTErrorCode

PORT = 8883
EVERY_S = 10
MOST_WAITING = 10_000
"""So many wait in memory while the gateway is away; beyond, the newest are given up."""


def measure():
    """Return what the sensors say; this is where yours are read."""
    return {"pir": {"motion_detected": False}}


def connected(client, status, _flags, why, _properties):
    """Say that we are here, each time that we are let in."""
    if why.is_failure:
        print(f"not let in: {why}", file=sys.stderr)
    else:
        client.publish(status, json.dumps({"status": "online"}), qos=1, retain=True)


def not_connected(_client, _status):
    """Tell that nobody answered, or somebody whom we do not trust."""
    print("no connection to the gateway: name, port, CA?", file=sys.stderr)


def main(host, device_file, ca_file):
    """Measure and send for ever."""
    device = json.loads(Path(device_file).read_text())
    status = f"devices/{device['device_id']}/status"
    client = Client(CallbackAPIVersion.VERSION2, device["device_id"], userdata=status)
    client.username_pw_set(device["username"], device["password"])
    client.tls_set(ca_file)
    client.will_set(status, json.dumps({"status": "offline"}), qos=1, retain=True)
    client.max_queued_messages_set(MOST_WAITING)
    client.on_connect, client.on_connect_fail = connected, not_connected
    client.connect_async(host, PORT)
    client.loop_start()  # connects, and connects again, beside us

    boot_id = secrets.token_hex(4)  # new at each start: with it `seq` may begin at 1 again
    for seq in itertools.count(1):
        reading = {
            "device_id": device["device_id"],
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "boot_id": boot_id,
            "seq": seq,
            "sensors": measure(),
        }
        sent = client.publish(device["topics"][0], json.dumps(reading), qos=1)  # paho keeps it until its PUBACK is here
        if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            print(f"reading {seq} is lost: {MOST_WAITING} wait already", file=sys.stderr)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
