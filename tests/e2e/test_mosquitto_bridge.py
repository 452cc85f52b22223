"""A customer's own Mosquitto bridges in, with a credential of the organisation: the configuration of the guide."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway_process import WAIT_S, GatewayProcess
from tests.guides.pages import blocks, replaced
from tests.ports import free_port


@contextmanager
def mosquitto(folder: Path, gateway_port: int, authorities: str, password: str) -> Iterator[int]:
    """Run a broker that bridges in; yields its port."""
    port = free_port()
    folder.mkdir()
    (folder / "neurogate-ca.pem").write_text(authorities)
    [bridge] = blocks("mosquitto.md", "conf")
    bridge = replaced(
        bridge,
        {
            "raspberrypi.local:8883": f"127.0.0.1:{gateway_port}",
            "/etc/mosquitto/certs": str(folder),
            "PASSWORD": password,
        },
    )
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
        f"user root\n{bridge}"  # or root becomes one of its own, who may not look into the folder
    )
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf"), "-v"], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_S)


def say(port: int, topic: str, *lines: str) -> None:
    """Publish each line to the customer's broker, with QoS 1."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-l"]
    subprocess.run(command, input="\n".join(lines).encode(), check=True, timeout=WAIT_S)


def stored(gateway: GatewayProcess) -> int:
    return int(gateway.json("buffer", "status")["buffer"]["readings"])


def await_stored(gateway: GatewayProcess, count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := stored(gateway)) < count:
        assert time.monotonic() < deadline, f"{found} of {count}"
        time.sleep(0.1)


def reading(seq: int, device_id: str = "attic") -> str:
    return f'{{"device_id":"{device_id}","boot_id":"b","seq":{seq},"sensors":{{"pir":{{"motion_detected":true}}}}}}'


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    (tmp_path / "gateway").mkdir()
    gateway = GatewayProcess(tmp_path / "gateway")
    config = gateway.folder / "neurogate.toml"
    config.write_text(config.read_text().replace("tls_port = 0", f"tls_port = {free_port()}", 1))
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.kill()


def test_p1_a_bridge_loses_nothing_over_a_stop_and_a_kill_of_the_gateway(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    hub = gateway.json("credential", "add", "mosquitto")
    assert hub["username"] == "mosquitto@default"
    authorities = gateway.neurogate("certs", "show", "--ca").stdout
    topic = "devices/attic/telemetry"
    tls_port = gateway.settings.mqtt.tls_port
    with mosquitto(tmp_path / "mosquitto", tls_port, authorities, hub["password"]) as port:
        say(port, topic, *(reading(seq) for seq in range(49)))
        say(port, "plant/attic/telemetry", reading(49))
        await_stored(gateway, 50)
        gateway.stop()
        say(port, topic, *(reading(seq) for seq in range(50, 150)))
        gateway.start()
        await_stored(gateway, 150)
        say(port, "neurobuild/sensors/hall/data", *(reading(seq, "hall") for seq in range(500)))
        gateway.kill()  # amid them, perhaps
        gateway.start()
        await_stored(gateway, 650)
    exported = [json.loads(line) for line in gateway.neurogate("buffer", "export").stdout.splitlines()]
    assert len(exported) == 650
    expected = {("attic", seq) for seq in range(150)} | {("hall", seq) for seq in range(500)}
    assert {(one["device_id"], one["seq"]) for one in exported} == expected
