"""init, check and config show, as a person or a script calls them."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__
from gateway.storage.state_schema import STATE_MIGRATIONS
from tests import command_line

ROOT = Path(__file__).parents[2]
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FILE = f"""
[mqtt]
host = "${{env:HOST}}"
[[integrations]]
type = "webhook"
name = "api"
url = "https://example.org/hook?token=hunter2"
secret = "{SECRET}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def neurogate(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return command_line.neurogate(*arguments, folder=folder, environ=environ)


def test_init_writes_a_configuration_that_check_accepts(folder: Path) -> None:
    done = neurogate(folder, "init", "--dir", "site")
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE((folder / "site/neurogate.toml").stat().st_mode) == 0o600
    assert len((folder / "site/data/password.key").read_bytes()) == 32
    assert "The site owner's token for the HTTP API: ngt_" in done.stdout
    checked = neurogate(folder, "check", "--config", "site/neurogate.toml")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines() == [
        "ok      configuration: site/neurogate.toml",
        f"ok      data directory: {folder}/site/data",
        f"ok      password key: {folder}/site/data/password.key",
        f"ok      state.db: schema {len(STATE_MIGRATIONS)}",
    ]


def test_init_never_overwrites(folder: Path) -> None:
    (folder / "neurogate.toml").write_text("mine")
    done = neurogate(folder, "init")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: neurogate.toml exists.\nEdit it, or move it away first.\n"
    assert (folder / "neurogate.toml").read_text() == "mine"
    assert not (folder / "data").exists()


def test_check_says_what_is_wrong_and_ends_with_78(folder: Path) -> None:
    (folder / "neurogate.toml").write_text("[mqtt]\nprot = 1")
    done = neurogate(folder, "check")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "Error: Unknown key mqtt.prot in neurogate.toml.\nDid you mean mqtt.port?\n"


def test_check_goes_on_after_a_failure(folder: Path) -> None:
    (folder / "neurogate.toml").write_text(FILE.replace("url", "urll"))
    (folder / "data").mkdir()
    (folder / "data/state.db").write_text("no database, but long enough to be taken for one" * 9)
    with sqlite3.connect(folder / "data/log.db") as database:
        database.execute("PRAGMA user_version = 3")
    database.close()
    done = neurogate(folder, "check", HOST="localhost")
    assert done.returncode == 78
    assert "ok      log.db: schema 3\n" in done.stdout
    assert "Did you mean integrations[api].url?" in done.stderr
    assert "FAILED  state.db: " in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_check_warns_of_a_destination_that_egress_forbids(folder: Path) -> None:
    tables = [
        f'[[integrations]]\ntype = "webhook"\nname = "{name}"\nurl = "http://{host}:1880/hook"\n'
        for name, host in (("here", "[::1]"), ("there", "192.168.1.2"), ("named", "nodered.local"))
    ]
    (folder / "neurogate.toml").write_text("".join(tables))
    done = neurogate(folder, "check")
    assert done.returncode == 0
    assert done.stderr == (
        'WARNING integration here: [::1] is not allowed by egress (policy = "lan"): nothing is delivered.'
        ' Set egress.allow = ["::1"] if that is meant.\n'
    )
    assert "ok      integration there: webhook\nok      integration named: webhook\n" in done.stdout


def test_check_changes_nothing(folder: Path) -> None:
    done = neurogate(folder, "check")
    assert done.stdout.splitlines() == [
        "ok      configuration: no file, only defaults",
        f"ok      data directory: {folder}/data (will be created)",
    ]
    assert list(folder.iterdir()) == []


def test_check_refuses_a_data_directory_that_is_a_file(folder: Path) -> None:
    (folder / "data").write_text("")
    done = neurogate(folder, "check")
    assert done.returncode == 78
    assert f"FAILED  data directory: {folder}/data is not a folder this user may write to." in done.stderr


def test_show_gives_every_value_its_origin_and_hides_secrets(folder: Path) -> None:
    (folder / "neurogate.toml").write_text(FILE)
    done = neurogate(folder, "config", "show", "--origin", HOST="10.0.0.9", NEUROGATE_HTTP__PORT="8081")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "mqtt.port = 1883  # default" in lines
    assert "http.port = 8081  # environment NEUROGATE_HTTP__PORT" in lines
    assert 'mqtt.host = "********"  # file neurogate.toml (from ${env:HOST})' in lines
    assert 'integrations[api].secret = "********"  # file neurogate.toml' in lines
    assert "integrations[api].timeout_s = 30.0  # default" in lines
    assert all(secret not in done.stdout for secret in ("hunter2", SECRET, "10.0.0.9"))


def test_p7_show_hides_what_a_webhook_keeps_secret_wherever_it_stands(folder: Path) -> None:
    (folder / "neurogate.toml").write_text(
        FILE.replace(f'"{SECRET}"', f'["{SECRET}", "${{env:OLD}}"]')
        + """
batch_max_readings = 1
auth_token = "hunter3"
api_key = "${env:HOST}"
custom_headers = { X-Plain = "hunter4", X-Env = "${env:HOST}" }
[integrations.payload_template]
a = "${env:HOST}"
b = [{ c = "${env:HOST}" }, "d"]
c = { id = "{{id}}" }
"""
    )
    done = neurogate(folder, "config", "show", "--origin", HOST="hunter5", OLD="hunter6" * 4)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "hunter" not in done.stdout
    assert 'integrations[api].custom_headers.X-Plain = "********"  # file neurogate.toml' in lines
    assert 'integrations[api].payload_template.b = "********"  # file neurogate.toml (from ${env:HOST})' in lines
    assert 'integrations[api].payload_template.c.id = "{{id}}"  # file neurogate.toml' in lines


def test_show_is_made_for_scripts_too(folder: Path) -> None:
    (folder / "neurogate.toml").write_text(FILE)
    values = json.loads(neurogate(folder, "config", "show", "--json", HOST="x").stdout)
    assert values["mqtt.port"] == 1883
    assert values["integrations[api].secret"] == "********"
    with_origin = json.loads(neurogate(folder, "config", "show", "--json", "--origin", HOST="x").stdout)
    assert with_origin["mqtt.port"] == {"value": 1883, "origin": "default"}


def test_the_variable_names_the_file(folder: Path) -> None:
    (folder / "other.toml").write_text("[http]\nport = 1234")
    done = neurogate(folder, "config", "show", NEUROGATE_CONFIG="other.toml")
    assert "http.port = 1234\n" in done.stdout


def test_the_version_is_told(folder: Path) -> None:
    assert neurogate(folder, "--version").stdout == f"neurogate {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("check", "--nonsense"), ("config",), ()])
def test_wrong_usage_ends_with_2(folder: Path, arguments: tuple[str, ...]) -> None:
    assert neurogate(folder, *arguments).returncode == 2


def test_an_interrupt_ends_with_130_and_without_a_traceback(folder: Path) -> None:
    run = """
import gateway.cli as cli, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
cli.command_line = lambda _: lambda **_: signal.raise_signal(signal.SIGINT)
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "config", "show"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_serial_lines_are_shown_with_their_origin(folder: Path) -> None:
    (folder / "neurogate.toml").write_text('[[serial]]\nport = "/dev/ttyUSB0"\ndevice_id = "usb"')
    lines = neurogate(folder, "config", "show", "--origin").stdout.splitlines()
    assert 'serial[0].device_id = "usb"  # file neurogate.toml' in lines
    assert 'serial[0].format = "lines"  # default' in lines


def test_check_looks_for_the_serial_ports(folder: Path) -> None:
    for name in ("ttyUSB0", "ttyUSB1"):
        (folder / name).touch()
    tables = [
        f'[[serial]]\nport = "{folder}/{name}"\ndevice_id = "board"\n' for name in ("ttyUSB0", "ttyACM0", "ttyUSB*")
    ]
    (folder / "neurogate.toml").write_text("".join(tables))
    done = neurogate(folder, "check")
    assert done.returncode == 1
    assert f"ok      serial port of board: {folder}/ttyUSB0\n" in done.stdout
    assert f"ok      serial port of board: {folder}/ttyACM0 is not there now; it is opened when it is plugged in" in (
        done.stdout
    )
    assert f"FAILED  serial port of board: {folder}/ttyUSB* could be any of" in done.stderr
