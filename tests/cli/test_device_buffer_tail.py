"""The real commands, beside a running gateway."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import command_line
from tests.broker.raw import ACCEPTED, RawClient, connect, puback, publish
from tests.site import Site, reading

TIMEOUT_S = 20
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NEUROGATE_")}


class Ran(NamedTuple):
    code: int
    out: str
    err: str


async def spawn(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "gateway.cli", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=ENVIRONMENT)


async def neurogate(*arguments: str) -> Ran:
    """Run a command: `run` as a process, the others in this one."""
    if arguments[0] == "run":
        process = await spawn(*arguments)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, err = (said.decode() for said in await process.communicate())
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        code = process.returncode
    else:
        done = await asyncio.to_thread(command_line.neurogate, *arguments, folder=Path.cwd())
        code, out, err = done.returncode, done.stdout, done.stderr
    assert "Traceback" not in err
    return Ran(code, out, err)


def write_config(path: Path, data_dir: Path, mqtt_port: int = 0, http_port: int = 0) -> str:
    path.write_text(
        f'version = 1\n[gateway]\ndata_dir = "{data_dir}"\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {mqtt_port}\nwebsocket_port = 0\ntls_port = 0\n'
        f'[http]\nhost = "127.0.0.1"\nport = {http_port}\ntls_port = 0\n'
    )
    return str(path)


@pytest.fixture
def config(site: Site, tmp_path: Path) -> str:
    return write_config(tmp_path / "neurogate.toml", site.settings.gateway.data_dir)


async def test_device_add_prints_what_a_board_needs_and_it_gets_in_at_once(site: Site, config: str) -> None:
    ran = await neurogate("device", "add", "hall", "--json", "-c", config)
    assert ran.code == 0
    printed = json.loads(ran.out)
    assert sorted(printed) == ["device_id", "password", "topics", "username"]
    async with RawClient.open(site, connect("hall", printed["username"], printed["password"])) as board:
        await board.expect(ACCEPTED)
        for topic in printed["topics"]:
            board.send(publish(topic, reading("hall"), qos=1))
            await board.expect(puback(1))


async def test_a_device_is_added_once_listed_and_revoked_once(config: str) -> None:
    again = await neurogate("device", "add", "kitchen", "-c", config)
    assert (again.code, again.out) == (1, "")
    assert again.err.splitlines()[0].startswith("Error: Device kitchen of default is registered already.")
    assert "neurogate device rotate kitchen" in again.err
    listed = await neurogate("device", "list", "--json", "-c", config)
    (device,) = json.loads(listed.out)
    assert (device["device_id"], device["status"]) == ("kitchen", "active")
    assert (await neurogate("device", "revoke", "kitchen", "-c", config)).code == 0
    for unknown in ("kitchen", "nobody"):
        ran = await neurogate("device", "revoke", unknown, "-c", config)
        assert ran.code == 1
        assert "neurogate device list" in ran.err


@pytest.mark.parametrize("arguments", [("bad/id",), ("+",), ("x", "--metadata", "novalue")])
async def test_an_unusable_device_is_refused_with_a_hint(config: str, arguments: tuple[str, ...]) -> None:
    ran = await neurogate("device", "add", *arguments, "-c", config)
    assert ran.code == 1
    assert len(ran.err.strip().splitlines()) == 2


async def test_metadata_that_is_no_text_is_refused_and_not_found_out_when_it_is_delivered(config: str) -> None:
    """A lone byte from the shell would be stored as half a surrogate, and no reading of the device could be read."""
    ran = await neurogate("device", "add", "hall", "--metadata", os.fsdecode(b"room=\xff"), "-c", config)
    assert ran.code == 1


async def test_buffer_status_and_tail_show_what_is_stored(site: Site, config: str) -> None:
    hall = await site.gateway.add_device("hall")
    async with RawClient.login(site) as kitchen_board, RawClient.login(site, hall) as hall_board:
        for seq in range(3):
            kitchen_board.send(publish("devices/kitchen/telemetry", reading(boot_id="b", seq=seq), qos=1))
            await kitchen_board.expect(puback(1))
        hall_board.send(publish("devices/hall/telemetry", reading("hall", sensors={"co2": {"ppm": 400}}), qos=1))
        await hall_board.expect(puback(1))
    status = json.loads((await neurogate("buffer", "status", "--json", "-c", config)).out)
    assert status["buffer"]["readings"] == 4
    assert status["destinations"] == []
    tail = ("tail", "--json", "-c", config, "--count")
    newest = await neurogate(*tail, "2", "--last", "2")
    assert [json.loads(line)["device_id"] for line in newest.out.splitlines()] == ["kitchen", "hall"]
    for filters in (("--device", "hall"), ("--sensor", "co2")):
        ran = await neurogate(*tail, "1", *filters)
        assert json.loads(ran.out)["sensors"] == {"co2": {"ppm": 400}}


async def test_the_last_readings_are_so_many_even_where_others_were_erased(site: Site, config: str) -> None:
    hall = await site.gateway.add_device("hall")
    async with RawClient.login(site) as kitchen_board, RawClient.login(site, hall) as hall_board:
        for seq in range(3):
            kitchen_board.send(publish("devices/kitchen/telemetry", reading(boot_id="b", seq=seq), qos=1))
            await kitchen_board.expect(puback(1))
            hall_board.send(publish("devices/hall/telemetry", reading("hall"), qos=1))
            await hall_board.expect(puback(1))
    erased = await neurogate("buffer", "erase", "--device", "hall", "--yes", "-c", config)
    assert erased.code == 0, erased.err
    newest = await neurogate("tail", "--json", "-c", config, "--count", "3", "--last", "3")
    assert [json.loads(line)["seq"] for line in newest.out.splitlines()] == [0, 1, 2]


async def test_run_with_a_bad_configuration_exits_78(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("version = 1\n[mqtt]\nprot = 1883\n")
    ran = await neurogate("run", "-c", str(path))
    assert ran.code == 78
    assert "port" in ran.err


@pytest.mark.parametrize("which", ["mqtt", "http"])
async def test_run_with_a_taken_port_says_so_and_leaves_nothing_behind(tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = (port, 0) if which == "mqtt" else (0, port)
        ran = await neurogate("run", "-c", write_config(tmp_path / "n.toml", tmp_path / "data", *ports))
    assert ran.code == 1
    error, hint = ran.err.strip().splitlines()[-2:]
    assert error == f"Error: Port {port} on 127.0.0.1 cannot be listened on: Address already in use."
    assert f"{which}.port" in hint


async def test_a_second_gateway_on_the_same_data_is_refused(config: str) -> None:
    ran = await neurogate("run", "-c", config)
    assert ran.code == 1
    assert f"Another gateway (pid {os.getpid()})" in ran.err


async def test_run_ends_with_0_when_it_is_told_to(tmp_path: Path) -> None:
    process = await spawn("run", "-c", write_config(tmp_path / "n.toml", tmp_path / "data"))
    assert process.stderr is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while b"gateway ready" not in await process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert b"Traceback" not in err


@pytest.mark.usefixtures("site")
async def test_device_metadata_changes_what_it_names_and_shows_all_of_it(config: str) -> None:
    assert (await neurogate("device", "metadata", "kitchen", "room=Küche", "floor=2", "-c", config)).code == 0
    ran = await neurogate("device", "metadata", "kitchen", "zone=b", "--remove", "floor", "-c", config)
    assert (ran.code, ran.out) == (0, "room=Küche\nzone=b\n")
    ran = await neurogate("device", "metadata", "hall", "zone=c", "--json", "-c", config)
    shown = json.loads(ran.out)
    assert (shown["status"], shown["metadata"]) == ("registered", {"zone": "c"})
    assert (await neurogate("device", "metadata", "kitchen", "-c", config)).code == 2
