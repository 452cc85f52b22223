"""Real clients over TLS: they come in by the site's CA, and whoever is refused is told why, on both sides."""

import asyncio
import importlib.util
import logging
import os
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.certificates.authority import certificate_pem, key_pem
from gateway.certificates.site_ca import SiteCa
from gateway.operations.certificates import issue_certificate, renew_certificates, show_certificates
from tests.site import Site, reading, until
from tests.tls.site import authorities, tls_site, trusting

WAIT_S = 20
TOPIC = "devices/kitchen/telemetry"
OTHER_NAME = "127.1"
"""Is 127.0.0.1 as well, and is in no certificate."""

IF_THERE_IS_ONE = pytest.mark.skipif(
    importlib.util.find_spec("micropython_unix") is None, reason="no MicroPython for this machine on PyPI"
)


class Case:
    """A gateway, and how a client goes about it."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        self.name = "localhost"
        self.pinned = "ca.pem"
        self.certificate = False
        self.by_websocket = False

    @property
    def port(self) -> int:
        mqtt = self.site.settings.mqtt
        return mqtt.websocket_tls_port if self.by_websocket else mqtt.tls_port

    @property
    def login(self) -> tuple[str, str]:
        """Without a certificate by password, with one by nothing else."""
        kitchen = self.site.kitchen
        return ("", "") if self.certificate else (kitchen.username, kitchen.password)

    def file(self, name: str) -> str:
        return str(self.folder / name)


async def mosquitto(case: Case) -> str:
    username, password = case.login
    told = ["-u", username, "-P", password] if username else []
    if case.certificate:
        told += ["--cert", case.file("kitchen.crt.pem"), "--key", case.file("kitchen.key.pem")]
    process = await asyncio.create_subprocess_exec(
        *("mosquitto_pub", "-h", case.name, "-p", str(case.port), "--cafile", case.file(case.pinned), *told),
        *("-q", "1", "-t", TOPIC, "-m", reading().decode()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(WAIT_S):
        said, _ = await process.communicate()
    return "" if process.returncode == 0 else said.decode() or "failed"


async def paho_mqtt(case: Case) -> str:
    return await asyncio.to_thread(_paho, case)


def _paho(case: Case) -> str:
    """Publish one reading; returns what paho complains of."""
    transport = "websockets" if case.by_websocket else "tcp"
    client = paho.Client(CallbackAPIVersion.VERSION2, "board", protocol=paho.MQTTv311, transport=transport)  # type: ignore[arg-type]
    client.ws_set_options("/mqtt")
    if case.login[0]:
        client.username_pw_set(*case.login)
    shown = (case.file("kitchen.crt.pem"), case.file("kitchen.key.pem")) if case.certificate else (None, None)
    client.tls_set(case.file(case.pinned), *shown)
    answered = threading.Event()
    answers: list[object] = []
    complaints: list[str] = []
    client.on_log = lambda _client, _data, _level, words: complaints.append(words)

    def on_connect(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
        answers.append(reason)
        answered.set()

    client.on_connect = on_connect
    try:
        client.connect(case.name, case.port)
        client.loop_start()
        try:
            while not answered.wait(0.05):
                if found := [words for words in complaints if "alert" in words]:
                    return found[0]
            if str(answers[0]) != "Success":
                return str(answers[0])
            client.publish(TOPIC, reading(), 1).wait_for_publish(WAIT_S)
        finally:
            client.disconnect()
            client.loop_stop()
    except OSError as error:
        return str(error)
    return ""


async def micropython(case: Case) -> str:
    """Log in; that it publishes over its TLS too is no other code than without."""
    pem = (case.folder / case.pinned).read_text()
    pinned = []
    for number, block in enumerate(pem.split("-----END CERTIFICATE-----\n")[:-1]):
        path = case.folder / f"{case.pinned}-{number}.der"
        path.write_bytes(ssl.PEM_cert_to_DER_cert(block + "-----END CERTIFICATE-----\n"))
        pinned.append(str(path))
    shown = [case.file("kitchen.crt.der"), case.file("kitchen.key.der")] if case.certificate else []
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("micropython"), STORY, str(case.port), case.name, ",".join(pinned)),
        *(*case.login, *shown),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT_S):
        said = (await process.communicate())[0].decode().strip()
    return "" if said == "answer 20020000" else said


STORY = Path(__file__).parents[1] / "broker/clients/tls_of_micropython.py"
Client = Callable[[Case], Coroutine[Any, Any, str]]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho's, when refused
CLIENTS = [mosquitto, paho_mqtt, pytest.param(micropython, marks=IF_THERE_IS_ONE)]


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    async with tls_site(tmp_path) as site:
        yield Case(site, tmp_path)


async def issue(case: Case) -> None:
    """Let the kitchen have a certificate."""
    new = await case.site.command(issue_certificate, organization_id="default", device_id="kitchen")
    write_private(case.folder / "kitchen.key.pem", new.key.encode())
    write_private(case.folder / "kitchen.key.der", bytes.fromhex(new.key_der_hex))
    (case.folder / "kitchen.crt.pem").write_text(new.certificate)
    (case.folder / "kitchen.crt.der").write_bytes(ssl.PEM_cert_to_DER_cert(new.certificate))


def write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


async def refused(case: Case, client: Client, reason: str, log: pytest.LogCaptureFixture) -> str:
    """Return what the client says, when the gateway has said `reason` and nothing else."""
    with log.at_level(logging.WARNING):
        said = await client(case)
        assert said
        metric = f'neurogate_front_door_refused_total{{reason="{reason}"}}'
        refusals = case.site.gateway._metrics.refused
        await until(lambda: bool(refusals.labels(reason)._value.get()), metric)
    ours = [one.getMessage() for one in log.records if one.levelno >= logging.WARNING]
    assert set(ours) == {f"connection closed: {reason}"}
    assert await case.site.metric(metric) >= 1
    return said


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_that_pins_the_ca_comes_in(case: Case, client: Client) -> None:
    assert await client(case) == ""
    if client is not micropython:
        assert len(await case.site.stored(1)) == 1


async def test_and_over_a_websocket_on_its_own_port_and_that_of_https(case: Case) -> None:
    case.by_websocket = True
    assert await paho_mqtt(case) == ""
    assert len(await case.site.stored(1)) == 1
    url = f"https://localhost:{case.site.settings.http.tls_port}"
    async with case.site.http.ws_connect(f"{url}/mqtt", protocols=["mqtt"], ssl=trusting(case.folder)) as socket:
        await socket.send_bytes(b"\x10\x0c\0\4MQTT\4\2\0\0\0\0")
        assert (await socket.receive_bytes(timeout=WAIT_S)) == b"\x20\2\0\5"
    async with case.site.http.get(f"{url}/ready", ssl=trusting(case.folder)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_wrong_name_is_refused(case: Case, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    case.name = OTHER_NAME
    said = await refused(case, client, "tls_bad_certificate", caplog)
    assert "TLS error" in said or "mismatch" in said or "does not match" in said


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_unknown_ca_is_refused(case: Case, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    stranger = SiteCa.new("other", datetime.now(UTC)).current.certificate
    (case.folder / "stranger.pem").write_bytes(certificate_pem(stranger))
    case.pinned = "stranger.pem"
    said = await refused(case, client, "tls_unknown_ca", caplog)
    assert "TLS error" in said or "unable to get local issuer" in said or "not correctly signed" in said


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_expired_certificate_is_refused(
    tmp_path: Path, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    ca = SiteCa.new("expired", datetime.now(UTC))
    ended = ca.current.issue_server(["localhost"], datetime.now(UTC) - timedelta(days=1))
    own = tmp_path / "own.pem"
    write_private(own, key_pem(ended.key) + certificate_pem(ended.certificate))
    async with tls_site(tmp_path, certificate_file=str(own), client_certificates="optional") as site:
        case = Case(site, tmp_path)
        (tmp_path / "ca.pem").write_bytes(certificate_pem(ca.current.certificate))
        said = await refused(case, client, "tls_certificate_expired", caplog)
        assert "TLS error" in said or "has expired" in said
        async with site.http.get(site.url("/ready")) as answer:
            assert "has ended" in str((await answer.json())["notices"])


@pytest.mark.parametrize("client", CLIENTS)
async def test_no_certificate_where_one_is_required_is_refused(
    tmp_path: Path, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with tls_site(tmp_path, client_certificates="required") as site:
        case = Case(site, tmp_path)
        said = await refused(case, client, "tls_certificate_required", caplog)
        assert "connection was lost" in said or "certificate required" in said or "FATAL_ALERT" in said
        await issue(case)
        case.certificate = True
        assert await client(case) == ""


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_certificate_of_a_stranger_is_refused(
    tmp_path: Path, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with tls_site(tmp_path / "other", client_certificates="optional") as other:
        await issue(Case(other, tmp_path))
    async with tls_site(tmp_path, client_certificates="optional") as site:
        case = Case(site, tmp_path)
        case.certificate = True
        said = await refused(case, client, "tls_client_unknown_ca", caplog)
        assert "connection was lost" in said or "alert unknown ca" in said or "FATAL_ALERT" in said


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_board_that_was_away_through_renewals_comes_in(case: Case, client: Client) -> None:
    first = [one.pem for one in await case.site.command(show_certificates) if one.role == "authority"]
    (case.folder / "only.pem").write_text(first[0])
    for authority in (False, True, True):
        await case.site.command(renew_certificates, authority=authority)
        for pinned in ("ca.pem", "only.pem"):
            case.pinned = pinned
            assert await client(case) == ""
    (case.folder / "new.pem").write_text(await authorities(case.site))
    case.pinned = "new.pem"
    assert await client(case) == ""
