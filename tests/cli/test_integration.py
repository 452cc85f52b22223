"""`neurogate integration`: the same whether a gateway runs or not, and no secret on the screen or as an argument."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_sync.config_schema import schema_of
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.webhook import Webhook
from gateway.cli import command_line
from gateway.cli.integration_settings import settings_from
from gateway.model.errors import BadInput, NeurogateError
from tests.gateway_here import GatewayHere
from tests.gateway_process import WAIT_S, GatewayProcess

SECRET = "planted-kitchen-table-4711"
URL = "http://127.0.0.1:1/readings"
IN_THE_FILE = f'\n[[integrations]]\ntype = "webhook"\nname = "archive"\nurl = "{URL}"\nstatus = "inactive"\n'


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[GatewayProcess]:
    own_site = GatewayHere(tmp_path)
    with (tmp_path / "neurogate.toml").open("a") as config:
        config.write(IN_THE_FILE)
    yield own_site
    own_site.kill()


def told(own_site: GatewayProcess, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run a command in this very process: a Python of its own for each would take longer than all they do."""
    words = ["integration", *arguments, "--config", str(own_site.folder / "neurogate.toml")]
    done = CliRunner().invoke(command_line(["integration"]), words, stdin)
    text = done.stdout + (str(done.exception) if isinstance(done.exception, NeurogateError) else done.stderr)
    assert SECRET not in text
    return done.exit_code, text


def shown(own_site: GatewayProcess, *arguments: str) -> Any:
    code, text = told(own_site, *arguments, "--json")
    assert code == 0, text
    return json.loads(text)


@pytest.mark.parametrize("is_running", [True, False])
def test_integrations_are_added_changed_tried_and_removed(own_site: GatewayProcess, is_running: bool) -> None:
    if is_running:
        own_site.start()
    known = ("--set", f"url={URL}", "--set", "timeout_s=2")
    code, text = told(own_site, "add", "webhook", "Building API", *known, "--secret", "secret=-", stdin=SECRET.encode())
    assert code == 0, text
    assert "secret        set, and not shown" in text
    assert ("not tried yet" in text) == is_running
    assert "uptime" not in text
    archive, new = shown(own_site, "list")
    assert (archive["name"], archive["origin"], new["name"]) == ("archive", "file", "Building API")
    assert (new["settings"], new["secret_names"]) == ({"url": URL, "timeout_s": 2}, ["secret"])
    assert new["id"] in told(own_site, "list")[1]
    assert shown(own_site, "show", "Building API") == new
    assert told(own_site, "set", new["id"], "--set", "timeout_s=", "--set", "gzip=true", "--status", "inactive")[0] == 0
    changed = shown(own_site, "show", new["id"])
    assert (changed["settings"], changed["secret_names"]) == ({"url": URL, "gzip": True}, ["secret"])
    assert changed["status"] == "inactive"
    code, text = told(own_site, "test", "Building API")
    assert (code, "Egress does not allow the addresses of 127.0.0.1." in text) == (1, True), text
    code, text = told(own_site, "set", "archive", "--name", "x")
    assert (code, "Change the file" in text) == (1, True)
    assert told(own_site, "remove", "Building API") == (0, "Building API is gone.\n")
    code, text = told(own_site, "show", "Building API")
    assert (code, text.startswith("There is no integration Building API.")) == (1, True)
    if is_running:
        own_site.stop()
    assert not any(SECRET.encode() in file.read_bytes() for file in own_site.data_dir.iterdir() if file.is_file())


def test_the_types_are_known_without_a_gateway_and_without_a_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "integration", "types", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        timeout=WAIT_S,
        check=True,
    )
    assert {one["type"] for one in json.loads(done.stdout)} >= {"mqtt", "webhook"}
    assert list(tmp_path.iterdir()) == []


# What is said on the command line


def said(*texts: str, secrets: tuple[str, ...] = (), **environ: str) -> dict[str, Any]:
    return settings_from(schema_of(Webhook), texts, secrets, environ)


def test_settings_are_what_they_say() -> None:
    assert said("timeout_s=2.5", "gzip=true", "method=PUT", 'devices=["a"]', "report.on_change=false") == {
        "timeout_s": 2.5,
        "gzip": True,
        "method": "PUT",
        "devices": ["a"],
        "report": {"on_change": False},
    }
    assert said("url=https://a.example/?x=1&y=2") == {"url": "https://a.example/?x=1&y=2"}
    assert said("content_type=1", "gzip=") == {"content_type": "1", "gzip": None}
    assert settings_from(schema_of(Mqtt), ["topics=a/+,b/#"], (), {}) == {"topics": "a/+,b/#"}


def test_p7_a_secret_comes_from_where_nobody_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert said(secrets=(f"secret=file:{file}",)) == {"secret": SECRET}
    assert said(secrets=("auth_token=env:TOKEN",), TOKEN=SECRET) == {"auth_token": SECRET}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{SECRET}\r\n".encode())))
    assert said(secrets=("api_key=-",)) == {"api_key": SECRET}
    assert said("secret=") == {"secret": None}


@pytest.mark.parametrize(
    ("texts", "secrets", "words"),
    [
        ([f"secret={SECRET}"], [], "secret is a secret"),
        ([SECRET], [], "--set takes KEY=VALUE"),
        (["tiemout_s=1"], [], "no setting tiemout_s"),
        ([], [f"secret={SECRET}"], "secret comes from nowhere like that"),
        ([], ["secret=env:NOWHERE"], "There is no NOWHERE"),
        ([], ["secret=file:/nowhere"], "cannot be read"),
        ([], ["url=-"], "url is no secret"),
    ],
)
def test_what_is_said_wrongly_is_refused_and_no_secret_repeated(
    texts: list[str], secrets: list[str], words: str
) -> None:
    with pytest.raises(BadInput) as refused:
        settings_from(schema_of(Webhook), texts, secrets, {})
    assert words in str(refused.value)
    assert SECRET not in str(refused.value)
