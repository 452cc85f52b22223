"""Commands and a gateway that runs, does not run, was killed, or hangs."""

import asyncio
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.gateway_link import connect
from gateway.model.errors import GatewaySilent
from gateway.operations.devices import list_devices
from gateway.operations.tail import tail_readings
from gateway.storage.data_dir import DataDir
from tests.gateway_process import WAIT_S, GatewayProcess, reading


@pytest.fixture(params=["running", "not running"])
def any_site(request: pytest.FixtureRequest, own_process: GatewayProcess) -> GatewayProcess:
    """A site on which every command works the same."""
    if request.param == "running":
        own_process.start()
    return own_process


@pytest.fixture(params=["running", "not running"], scope="module")
def site_with_a_kitchen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """One for all that only refuse."""
    site = GatewayProcess(tmp_path_factory.mktemp("site"))
    site.json("device", "add", "kitchen")
    if request.param == "running":
        site.start()
    yield site
    site.kill()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end has closed it already: nothing is waited for."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_board_is_added_shown_listed_rotated_and_revoked(any_site: GatewayProcess) -> None:
    added = any_site.json("device", "add", "kitchen", "--metadata", "room=kitchen")
    shown = any_site.json("device", "show", "kitchen")
    assert shown["metadata"] == {"room": "kitchen"}
    assert (shown["status"], shown["topics"], shown["last_reading_at"]) == ("active", added["topics"], None)
    rotated = any_site.json("device", "rotate", "kitchen")
    assert rotated["username"] == added["username"]
    assert rotated["password"] != added["password"]
    assert any_site.neurogate("device", "revoke", "kitchen").stdout == "kitchen has no access any more.\n"
    assert [one["status"] for one in any_site.json("device", "list")] == ["revoked"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "a/b"), "Error: 'a/b' cannot be a device id: it becomes part of MQTT topics.\nUse letters"),
        (("add", "kitchen"), "Error: Device kitchen of default is registered already.\nTo give it a new password"),
        (("show", "attic"), "Error: There is no device attic in default.\nneurogate device list shows"),
        (("rotate", "attic"), "Error: There is no active device attic in default.\nneurogate device list shows"),
        (("revoke", "attic"), "Error: There is no active device attic in default.\nneurogate device list shows"),
    ],
)
def test_an_error_is_the_same_wherever_it_arises(
    site_with_a_kitchen: GatewayProcess, arguments: tuple[str, ...], words: str
) -> None:
    done = site_with_a_kitchen.neurogate("device", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)


def test_a_new_board_is_let_in_at_once_and_known_by_what_it_does(own_site: GatewayProcess) -> None:
    own_site.start()
    added = own_site.json("device", "add", "kitchen")
    with own_site.mqtt(added["username"], added["password"]):
        assert own_site.post(added["password"], reading("kitchen", 1), reading("kitchen", 2)) == 202
        shown = own_site.json("device", "show", "kitchen")
    assert (shown["connected"], shown["readings_since_start"]) == (True, 2)
    assert shown["last_reading_at"] is not None
    own_site.stop()
    stopped = own_site.json("device", "show", "kitchen")
    assert (stopped["connected"], stopped["readings_since_start"]) == (None, None)
    assert stopped["last_reading_at"] == shown["last_reading_at"]


def test_revoke_has_ended_the_session_when_it_returns(own_site: GatewayProcess) -> None:
    own_site.start()
    kitchen, hall = (own_site.json("device", "add", name) for name in ("kitchen", "hall"))
    with (
        own_site.mqtt(kitchen["username"], kitchen["password"]) as revoked,
        own_site.mqtt(hall["username"], hall["password"]) as other,
    ):
        own_site.neurogate("device", "revoke", "kitchen")
        assert is_closed(revoked)
        assert not is_closed(other)
    with pytest.raises(ConnectionRefusedError):
        own_site.mqtt(kitchen["username"], kitchen["password"])


def test_rotate_ends_the_old_passwords_session_and_the_new_one_works(own_site: GatewayProcess) -> None:
    own_site.start()
    old = own_site.json("device", "add", "kitchen")
    with own_site.mqtt(old["username"], old["password"]) as session:
        new = own_site.json("device", "rotate", "kitchen", "--overlap-h", "0")
        assert is_closed(session)
    with pytest.raises(ConnectionRefusedError):
        own_site.mqtt(old["username"], old["password"])
    own_site.mqtt(new["username"], new["password"]).close()


def test_buffer_status_is_the_same_with_and_without_a_gateway(own_site: GatewayProcess) -> None:
    own_site.start()
    added = own_site.json("device", "add", "kitchen")
    own_site.post(added["password"], *(reading("kitchen", seq) for seq in range(7)))
    running = own_site.json("buffer", "status")
    assert running["buffer"]["readings"] == 7
    own_site.stop()
    stopped = own_site.json("buffer", "status")
    assert stopped["buffer"] | {"bytes": 0} == running["buffer"] | {"bytes": 0}


def test_tail_shows_what_comes_and_ends_with_the_gateway(own_site: GatewayProcess) -> None:
    own_site.start()
    added = own_site.json("device", "add", "kitchen")
    own_site.post(added["password"], reading("kitchen", 1))
    tail = own_site.popen("tail", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert tail.stdout is not None
    assert b"kitchen" in tail.stdout.readline()
    own_site.post(added["password"], reading("kitchen", 2), reading("kitchen", 3))
    own_site.stop()
    out, err = tail.communicate(timeout=WAIT_S)
    assert out.count(b"kitchen") == 2
    assert (tail.returncode, err) == (0, b"The gateway has stopped.\n")


def test_tail_without_a_gateway_shows_what_is_stored(own_site: GatewayProcess) -> None:
    own_site.start()
    kitchen, hall = (own_site.json("device", "add", name) for name in ("kitchen", "hall"))
    own_site.post(kitchen["password"], reading("kitchen", 1))
    own_site.post(hall["password"], reading("hall", 1))
    own_site.stop()
    done = own_site.neurogate("tail", "--device", "hall")
    assert (done.returncode, done.stderr) == (0, "No gateway is running: nothing new can come.\n")
    assert len(done.stdout.splitlines()) == 1
    assert "hall" in done.stdout


def test_the_socket_is_its_owners_alone_and_goes_with_the_gateway(own_site: GatewayProcess) -> None:
    own_site.start()
    mode = own_site.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(own_site.data_dir.stat().st_mode) == 0o700
    own_site.stop()
    assert not own_site.socket.exists()


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 50)
    folder.mkdir()
    own_site = GatewayProcess(folder)
    try:
        own_site.start()
        assert len(str(own_site.socket)) > 200
        added = own_site.json("device", "add", "kitchen")
        own_site.mqtt(added["username"], added["password"]).close()
    finally:
        own_site.kill()


def test_a_killed_gateway_is_no_obstacle(own_process: GatewayProcess) -> None:
    own_process.start()
    own_process.kill()
    assert own_process.socket.exists()
    added = own_process.json("device", "add", "kitchen")
    assert own_process.json("device", "show", "kitchen")["connected"] is None
    own_process.start()
    own_process.mqtt(added["username"], added["password"]).close()
    assert own_process.json("device", "show", "kitchen")["connected"] is not None


def test_commands_at_once_wait_for_each_other(own_site: GatewayProcess) -> None:
    names = [f"board-{number}" for number in range(6)]
    running = [own_site.popen("device", "add", name, stdout=subprocess.DEVNULL) for name in names]
    assert [one.wait(WAIT_S) for one in running] == [0] * 6
    assert [one["device_id"] for one in own_site.json("device", "list")] == names


async def test_a_gateway_that_hangs_is_told_from_one_that_does_not_run(own_process: GatewayProcess) -> None:
    await asyncio.to_thread(own_process.start)
    assert own_process.process is not None
    own_process.process.send_signal(signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with connect(own_process.settings, patience_s=0.5) as gateway:
        with pytest.raises(GatewaySilent) as raised:
            await gateway.call(list_devices)
    assert raised.value.message == f"The gateway (pid {own_process.process.pid}) runs, but did not answer within 0.5 s."
    async with connect(own_process.settings, patience_s=0.5) as gateway:
        with pytest.raises(GatewaySilent):
            await anext(gateway.stream(tail_readings, devices=[], sensors=[], last=0))
    assert 1 <= loop.time() - before < 3


def test_a_command_does_not_wait_for_ever_for_a_gateway_that_hangs(own_process: GatewayProcess) -> None:
    own_process.start()
    assert own_process.process is not None
    own_process.process.send_signal(signal.SIGSTOP)
    done = own_process.neurogate("device", "list")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Error: The gateway (pid {own_process.process.pid}) runs, but did not answer within 10 s."
    )


async def test_a_lock_without_a_socket_is_not_written_past(own_site: GatewayProcess) -> None:
    with DataDir(own_site.data_dir).lock(), pytest.raises(GatewaySilent, match="does not listen"):
        async with connect(own_site.settings, patience_s=0.2):
            pass
    assert not (own_site.data_dir / "state.db").exists()


async def test_a_command_goes_on_when_the_lock_is_let_go(own_site: GatewayProcess) -> None:
    with DataDir(own_site.data_dir).lock():
        waiting = asyncio.create_task(_devices(own_site))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == []


async def _devices(own_site: GatewayProcess) -> list[object]:
    async with connect(own_site.settings) as gateway:
        assert not gateway.is_live
        return list(await gateway.call(list_devices))
