"""`neurogate diag`: what helps is in the bundle, and no secret, wherever one was planted."""

import asyncio
import gzip
import json
import re
import signal
import stat
import tarfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError

import pytest

from gateway.cli.gateway_link import connect
from gateway.config import load
from gateway.diag.anonymity import Anonymity
from gateway.diag.contents import Item
from gateway.diag.redaction import Redaction
from gateway.operations.integrations import add_integration
from tests.gateway_process import CONFIG, GatewayProcess, reading

MARK = "Zx9Planted"
"""In every secret, so that a piece of one is found as well."""
PLANTED = f"""
[ingest]
hook_secret = "{MARK}-hook-secret-0001-abcd"
[egress]
policy = "any"
[[integrations]]
type = "webhook"
name = "api"
url = "http://127.0.0.1:9/hooks/T01/{MARK}0PathToken1/x?sig={MARK}-query"
secret = ["{MARK}-plain-secret-of-32-bytes!", "${{env:OLD_HOOK}}"]
auth_token = "{MARK}-bearer"
custom_headers = {{"X-Tenant" = "{MARK}-header", "X-File" = "${{file:contract.txt}}"}}
payload_template = '{{"key": "${{env:IN_TEMPLATE}}", "all": {{"$each_reading": "{{{{reading}}}}"}}}}'
"""
ENVIRONMENT = {
    "OLD_HOOK": f"whsec_{MARK}AAAABBBBCCCCDDDDEEEEFFFF",
    "IN_TEMPLATE": f"{MARK}-template",
    "MY_API_KEY": f"{MARK}-unrelated",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayProcess]:
    site = GatewayProcess(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "contract.txt").write_text(f"{MARK}-in-a-file\n")
    (tmp_path / "neurogate.toml").write_text(CONFIG + PLANTED)
    yield site
    site.kill()


def bundle(site: GatewayProcess, *arguments: str) -> dict[str, str]:
    """The files of a bundle, by name."""
    path = site.folder / "bundle.tar.gz"
    path.unlink(missing_ok=True)
    done = site.neurogate("diag", "--output", str(path), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert MARK not in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert MARK.encode() not in gzip.decompress(path.read_bytes())
    with tarfile.open(path) as archive:
        files = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            files[member.name.removeprefix("bundle/")] = file.read().decode()
    return files


def test_no_secret_is_in_a_bundle_wherever_it_was_planted(site: GatewayProcess) -> None:
    site.start()
    added = site.json("device", "add", "kitchen")
    token = site.json("token", "create", "panel")["token"]
    site.post(added["password"], reading("kitchen", 1))
    with pytest.raises(ConnectionRefusedError):  # secrets as names, where the log and counters might show them
        site.mqtt(f"{MARK}-username", added["password"])
    with pytest.raises(ConnectionRefusedError):
        site.mqtt("default/kitchen", f"{MARK}-wrong-password")
    files = bundle(site)
    everything = "\n".join(files.values())
    key = (site.data_dir / "password.key").read_bytes()
    for secret in (MARK, added["password"], token, key.hex()):
        assert secret not in everything
        assert secret.lower() not in everything.lower()
    assert "********" in files["config.txt"]
    assert "MY_API_KEY" not in everything  # of others' variables not even the name
    assert '"api"' in everything


def test_what_helps_is_there_and_the_manifest_names_it(site: GatewayProcess) -> None:
    site.start()
    added = site.json("device", "add", "kitchen")
    site.post(added["password"], reading("kitchen", 1))
    with pytest.raises(HTTPError):
        site.post(added["password"], {"device_id": "kitchen", "sensors": {"pir": "a secret payload"}})
    files = bundle(site)
    manifest = files["MANIFEST.txt"]
    named = set(re.findall(r"^(\S+\.(?:txt|json)) ", manifest, re.MULTILINE))
    assert named == files.keys() - {"MANIFEST.txt"}
    assert json.loads(files["versions.json"])["neurogate"]
    store = json.loads(files["store.json"])["databases"]
    assert store["log.db"]["rows"]["device_telemetry_history"] == 1
    assert store["state.db"]["schema"] >= 1
    assert json.loads(files["status.json"])["ingested"] == 1
    assert json.loads(files["troubles.json"])["quarantine"][0]["count"] == 1
    assert "gateway ready" in files["log.txt"]
    assert "sensor_data_ingested_total 1.0" in files["metrics.txt"]
    assert "gateway" in json.dumps(json.loads(files["doctor.json"]))
    assert "broker at " in files["tasks.txt"]
    assert "MainThread" in files["threads.txt"]
    assert "a secret payload" not in "\n".join(files.values())
    assert re.search(r"mqtt.port +0 +# file ", files["config.txt"])


def test_without_a_gateway_and_beside_one_that_hangs_there_is_a_bundle(site: GatewayProcess) -> None:
    assert {"MANIFEST.txt", "config.txt", "doctor.txt", "store.json"} <= bundle(site).keys()
    site.start()
    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)
    assert "did not answer" in bundle(site)["problems.txt"]


async def add_destination(site: GatewayProcess) -> None:
    async with connect(load(site.folder / "neurogate.toml", ENVIRONMENT).settings) as link:
        await link.call(
            add_integration,
            organization_id="acme-clinic",
            integration_type="webhook",
            name="To the ward",
            settings={"url": "https://ward.invalid/hook"},
        )


def test_anonymous_gives_everybody_another_name(site: GatewayProcess) -> None:
    site.start()
    site.json("device", "add", "johns-bedroom", "--organization", "acme-hospital")
    added = site.json("device", "add", "kitchen")
    site.post(added["password"], reading("kitchen", 1))
    asyncio.run(add_destination(site))
    everything = "\n".join(bundle(site).values())
    assert "johns-bedroom" in everything
    assert "acme-clinic" in everything
    files = bundle(site, "--anonymous")
    everything = "\n".join(files.values())
    for name in ("johns-bedroom", "acme-hospital", "kitchen", "acme-clinic", "To the ward", "ward.invalid"):
        assert name not in everything
    known = {one["device_id"] for one in json.loads(files["troubles.json"])["devices"]}
    (active,) = json.loads(files["status.json"])["devices"]
    assert active["device_id"] in known  # the same name all through


class Talkative(BaseHTTPRequestHandler):
    """A receiver that refuses, and repeats in its answer what it should not."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        told = f"unknown customer, password={MARK}-told, see https://x:{MARK}@db/?key={MARK}-key"
        body = f"{told}; {ENVIRONMENT['MY_API_KEY']}, {ENVIRONMENT['IN_TEMPLATE']}".encode()
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_OPTIONS(self) -> None:
        self.send_error(405)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_a_receiver_tells_is_in_no_log_or_status_as_it_was(site: GatewayProcess) -> None:
    with HTTPServer(("127.0.0.1", 0), Talkative) as receiver:
        Thread(target=receiver.serve_forever, daemon=True).start()
        config = (site.folder / "neurogate.toml").read_text()
        (site.folder / "neurogate.toml").write_text(config.replace(":9/hooks", f":{receiver.server_port}/hooks"))
        site.start()
        added = site.json("device", "add", "kitchen")
        site.post(added["password"], reading("kitchen", 1))
        until = time.monotonic() + 20
        while "HTTP 400" not in (files := bundle(site))["log.txt"] or "unknown customer" not in files["status.json"]:
            assert time.monotonic() < until
        receiver.shutdown()


def test_a_setting_from_the_environment_is_known(tmp_path: Path) -> None:
    environ = {"NEUROGATE_INGEST__HOOK_SECRET": f"{MARK}-from-the-environment"}
    (tmp_path / "neurogate.toml").write_text("")
    redaction = Redaction.of(load(tmp_path / "neurogate.toml", environ), environ, tmp_path)
    assert redaction.redacted(f"so it was {MARK}-from-the-environment") == "so it was ********"


def test_names_are_cleaned_in_keys_and_values_and_json_stays_json() -> None:
    item = Item("x.json", "", {"kitchen": 1, "tokens": 3, "token": "t", "list": ["in kitchen", None, True]})
    written = json.loads(item.written(Anonymity(device=["kitchen"]).renamed))
    assert written == {"device-1": 1, "tokens": 3, "token": "********", "list": ["in device-1", None, True]}


def test_a_file_that_is_there_is_not_written_over(site: GatewayProcess) -> None:
    path = site.folder / "mine.tar.gz"
    path.write_text("mine")
    done = site.neurogate("diag", "--output", str(path))
    assert done.returncode == 78
    assert "is there already" in done.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://hooks.example.com/services/T01ABC2/Bx9Kq/AbCdEf0123456789", "https://hooks.example.com/services/********/Bx9Kq/********"),
        ("https://api.example.com/v1/readings?token=abc&x=1", "https://api.example.com/v1/readings?********"),
        ("mqtts://me:geheim@broker:8883/x", "mqtts://broker:8883/x"),
        ("Authorization: Bearer abcdef.123", "Authorization: ********"),
        ("password 'x', token=abc123", "password 'x', token=********"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "********"),
        ("it said eyJhbGciOi.eyJzdWIiOi.c2ln", "it said ********"),
        ("a ngt_0123456789 b", "a ******** b"),
        ("the password is dGhpcyBpc19hIHBhc3N3b3Jk1A here", "the password is ******** here"),
        ('neurogate_front_door_refused_total{reason="rate"} 5', 'neurogate_front_door_refused_total{reason="rate"} 5'),
        ("2026-11-21T17:31:26.730Z kitchen 9f3a61c2", "2026-11-21T17:31:26.730Z kitchen 9f3a61c2"),
    ],
)  # fmt: skip
def test_what_nobody_told_us_of_is_known_by_its_looks(text: str, shown: str) -> None:
    assert Redaction([]).redacted(text) == shown


def test_a_secret_is_found_in_every_form() -> None:
    redaction = Redaction(['ge"heim/ß 99'])
    for form in ('ge"heim/ß 99', json.dumps('ge"heim/ß 99'), "ge%22heim%2F%C3%9F%2099", "Z2UiaGVpbS/DnyA5OQ"):
        assert "99" not in redaction.redacted(f"<{form}>").replace("********", "")
        assert "heim" not in redaction.redacted(f"<{form}>")


def test_addresses_get_other_names_and_times_keep_theirs() -> None:
    anonymity = Anonymity(device=["a"])
    assert anonymity.renamed("10.0.0.7 fe80::1 10.0.0.7 ::1 127.0.0.1 12:30:59 [2001:db8::5]:443") == (
        "address-2 address-3 address-2 ::1 127.0.0.1 12:30:59 [address-4]:443"
    )
    assert anonymity.renamed("AA:BB:CC:00:11:22 in /home/john/x by a") == "address-5 in /home/user/x by device-1"
