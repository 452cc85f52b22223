"""`neurogate org`, and tokens of the site: the same whether a gateway runs or not."""

import json
import sqlite3
import subprocess
import urllib.request
from contextlib import closing

import pytest

from tests.gateway_process import GatewayProcess


@pytest.mark.parametrize("is_running", [True, False])
def test_an_organisation_is_added_renamed_and_removed(own_site: GatewayProcess, is_running: bool) -> None:
    if is_running:
        own_site.start()
    assert [one["id"] for one in own_site.json("org", "list")] == ["default"]
    new = own_site.json("org", "add", "acme", "--name", "Acme Ltd.")
    assert (new["id"], new["name"], new["devices"]) == ("acme", "Acme Ltd.", 0)
    assert own_site.neurogate("org", "rename", "acme", "Acme").stdout == "acme is called Acme.\n"
    assert own_site.json("org", "show", "acme")["name"] == "Acme"
    own_site.json("device", "add", "kitchen", "--organization", "acme")
    refused = own_site.neurogate("org", "remove", "acme")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: acme has 1 devices: kitchen.\nRevoke each (neurogate device revoke)")
    own_site.neurogate("device", "revoke", "kitchen", "--organization", "acme")
    assert own_site.neurogate("org", "remove", "acme").stdout.startswith("acme is gone")
    assert [one["id"] for one in own_site.json("org", "list")] == ["default"]
    assert own_site.neurogate("org", "remove", "default").stderr.startswith("Error: default is in the configuration.\n")
    assert own_site.neurogate("org", "show", "acme").stderr.startswith(
        "Error: There is no organisation acme.\nneurogate org"
    )


@pytest.mark.parametrize("is_running", [True, False])
def test_a_device_moves_with_or_without_a_gateway(own_site: GatewayProcess, is_running: bool) -> None:
    own_site.json("device", "add", "kitchen")
    own_site.json("org", "add", "acme")
    token = own_site.json("token", "create", "owner", "--role", "owner")["token"]
    own_site.start()
    message = {"topic": "devices/kitchen/config", "payload": {"v": 1}, "qos": 1, "retain": True}
    body = json.dumps({"operation": "publish", "messages": [message, message | {"topic": "devices/hall/config"}]})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{own_site.http_port}/api/v1/mqtt-broker"
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers)) as answer:
        assert answer.status == 200
    if not is_running:
        own_site.stop()
    moved = own_site.json("device", "transfer", "kitchen", "--to", "acme")
    assert moved["username"] == "acme/kitchen"
    assert [(one["organization_id"], one["status"]) for one in own_site.json("device", "list")] == [("acme", "active")]
    refused = own_site.neurogate("device", "transfer", "kitchen", "--to", "acme")
    assert refused.stderr.startswith("Error: There is no device kitchen in default.\n")
    if is_running:
        own_site.stop()
    with closing(sqlite3.connect(own_site.data_dir / "log.db")) as db:
        assert db.execute("SELECT topic FROM retained_messages").fetchall() == [("default/devices/hall/config",)]


def test_equal_names_of_tokens_are_told_apart(own_site: GatewayProcess) -> None:
    of_site = own_site.json("token", "create", "alice", "--role", "owner", "--site")
    assert of_site["organization_id"] is None
    own_site.json("token", "create", "alice")
    refused = own_site.neurogate("token", "revoke", "alice")
    assert refused.stderr.startswith("Error: Several have a token alice: the site, default.\nSay whose: --organization")
    assert own_site.neurogate("token", "revoke", "alice", "--site").returncode == 0
    assert [one["organization_id"] for one in own_site.json("token", "list")] == ["default"]
    assert own_site.neurogate("token", "create", "x", "--site", "--organization", "a").returncode == 1
    refused = own_site.neurogate("token", "create", "x", "--site", "--role", "device")
    assert refused.stderr.startswith("Error: A token of the role device is for an organisation.")


def test_p7_a_first_start_shows_no_token(own_site: GatewayProcess) -> None:
    (own_site.folder / "neurogate.toml").rename(own_site.folder / "gateway.toml")
    shown = own_site.neurogate("init").stdout
    assert shown.count("ngt_") == 1
    assert "site owner's token" in shown
    (own_site.folder / "gateway.toml").rename(own_site.folder / "neurogate.toml")
    assert [(one["name"], one["organization_id"]) for one in own_site.json("token", "list")] == [("owner", None)]
    with own_site.popen("run", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if b"gateway ready" in line:
                process.terminate()
    assert b"gateway stopped" in lines[-1]
    assert not any(b"ngt_" in line for line in lines)
