"""What the demo prepares. That the whole of it works is tested end to end."""

import asyncio
import io
import socket
import stat
from pathlib import Path

import pytest
from rich.console import Console

from cloud_sync.registry import load_config
from cloud_sync.signing.standard_webhooks import parse_secret
from gateway.cli import demo
from gateway.config import load
from gateway.model.errors import AlreadyExists


def test_a_taken_port_is_replaced_by_a_free_one_and_said() -> None:
    console = Console(file=io.StringIO(), record=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = demo._free(port, "MQTT", console)
    assert free != port
    assert console.export_text() == f"MQTT port {port} is taken; using {free}.\n"


def test_a_free_port_is_taken_without_a_word() -> None:
    console = Console(file=io.StringIO(), record=True)
    port = demo._free(0, "MQTT", console)
    assert demo._free(port, "MQTT", console) == port
    assert console.export_text() == ""


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = demo.Folder(tmp_path / "demo-data")
    demo._prepare(folder)
    first = folder.secret.read_text()
    demo._prepare(folder)
    assert folder.secret.read_text() == first
    assert len(parse_secret(first.strip())) == 32
    assert stat.S_IMODE(folder.secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_the_configuration_is_one_that_other_commands_can_use(tmp_path: Path) -> None:
    folder = demo.Folder(tmp_path)
    demo._prepare(folder)
    demo._write_config(folder, mqtt_port=1884, http_port=8081, receiver_port=4000)
    loaded = load(folder.config, {})
    assert loaded.settings.gateway.data_dir == tmp_path
    assert loaded.settings.mqtt.port == 1884
    (table,) = loaded.settings.integrations
    assert load_config(table, loaded.origins).rate_limit_per_minute == 0


def test_the_configuration_of_another_gateway_is_left_alone(tmp_path: Path) -> None:
    folder = demo.Folder(tmp_path)
    folder.config.write_text("version = 1\n")
    with pytest.raises(AlreadyExists, match="not of a demo"):
        demo._prepare(folder)
    assert folder.config.read_text() == "version = 1\n"


async def test_the_receiver_is_a_process_of_its_own_and_ends_with_the_demo(tmp_path: Path) -> None:
    folder = demo.Folder(tmp_path)
    demo._prepare(folder)
    async with demo._receiver(folder.secret) as port:
        assert (await demo._receiver_stats(port))["readings"] == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
