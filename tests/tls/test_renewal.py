"""New certificates take effect without anybody losing a connection, by themselves and when asked for."""

import asyncio
import os
import socket
import ssl
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.certificates.authority import certificate_pem, fingerprint, key_pem
from gateway.certificates.site_ca import SiteCa
from gateway.config import HttpSettings, MqttSettings, Section, load
from gateway.machine_names import host_label
from gateway.model.errors import ConfigError, PortInUse, StoreFailed
from gateway.operations.certificates import init_certificates, renew_certificates, show_certificates
from gateway.storage.certificates import SiteCertificates
from gateway.tls import site_tls
from tests.broker.raw import publish
from tests.site import Site, reading, running_site, until
from tests.tls.site import tls_site, trusting
from tests.tls.test_handshake import WAIT_S, secure

DAY_MS = 86_400_000


async def shown_by(site: Site) -> str:
    """Return the fingerprint of what a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", site.settings.mqtt.tls_port, ssl=context)
    der = writer.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return _fingerprint(der)


def _fingerprint(der: bytes) -> str:
    from cryptography import x509

    return fingerprint(x509.load_der_x509_certificate(der))


def own_file(path: Path, ca: SiteCa, ends: datetime) -> str:
    issued = ca.current.issue_server(["localhost"], ends)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key_pem(issued.key) + certificate_pem(issued.certificate))
    return fingerprint(issued.certificate)


async def test_open_connections_live_on_and_new_ones_get_the_new_certificate(tmp_path: Path) -> None:
    async with tls_site(tmp_path) as site, AsyncExitStack() as stack:
        reader, writer = await secure(site, tmp_path, stack)
        before = await shown_by(site)
        for number, authority in enumerate((False, True), 1):
            (*_, server) = await site.command(renew_certificates, authority=authority)
            assert (server.role, await shown_by(site)) == ("server", server.fingerprint)
            assert server.fingerprint != before
            writer.write(publish("devices/kitchen/telemetry", reading(seq=number, boot_id="a"), qos=1))
            assert await asyncio.wait_for(reader.readexactly(4), WAIT_S) == b"\x40\2\0\1"
        url = f"https://localhost:{site.settings.http.tls_port}/health"
        async with site.http.get(url, ssl=trusting(tmp_path)) as answer:  # what was pinned at first
            assert answer.status == 200


async def test_a_replaced_ca_is_no_longer_known(tmp_path: Path) -> None:
    async with tls_site(tmp_path) as site, AsyncExitStack() as stack:
        await site.command(init_certificates, replace=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            await secure(site, tmp_path, stack)


async def test_it_is_renewed_by_itself_while_the_gateway_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_tls, "_LOOK_EVERY_S", 0.02)
    async with tls_site(tmp_path) as site, AsyncExitStack() as stack:
        _, writer = await secure(site, tmp_path, stack)  # kept: what is dropped, newer Pythons close
        before = await shown_by(site)
        metric = 'neurogate_certificate_expiry_seconds{certificate="server"}'
        assert await site.metric(metric) == pytest.approx(365 * 86_400, abs=90_000)
        site.clock.advance(250 * DAY_MS)
        async with asyncio.timeout(WAIT_S):
            while await shown_by(site) == before:
                pass
        assert await site.metric(metric) == pytest.approx(365 * 86_400, abs=90_000)
        assert site.gateway._running.door.connections >= 1
        assert not writer.is_closing()


async def test_when_it_cannot_be_renewed_the_old_one_stays_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_tls, "_LOOK_EVERY_S", 0.02)
    async with tls_site(tmp_path) as site:
        before = await shown_by(site)

        def full(*_: object) -> None:
            raise StoreFailed("There is no room.")

        monkeypatch.setattr(SiteCertificates, "_write", full)
        site.clock.advance(340 * DAY_MS)
        said: list[str] = []
        async with asyncio.timeout(WAIT_S):
            while len(said) < 2:
                async with site.http.get(site.url("/ready")) as answer:
                    assert answer.status == 200
                    said = (await answer.json())["notices"]
        assert "There is no room." in said[0]
        assert said[1].startswith("The server's certificate ends in 25 days")
        assert await shown_by(site) == before
        site.clock.advance(30 * DAY_MS)
        async with site.http.get(site.url("/ready")) as answer:
            assert "has ended" in (await answer.json())["notices"][1]
        assert await site.metric('neurogate_certificate_expiry_seconds{certificate="server"}') < 0
        assert await shown_by(site) == before


async def test_a_certificate_of_ones_own_is_shown_and_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(site_tls, "_LOOK_EVERY_S", 0.02)
    ca, now = SiteCa.new("own", datetime.now(UTC)), datetime.now(UTC)
    own = tmp_path / "own.pem"
    first = own_file(own, ca, now + timedelta(days=90))
    async with tls_site(tmp_path, certificate_file=str(own), client_certificates="optional") as site:
        assert await shown_by(site) == first
        own.write_text("nonsense")
        await until(lambda: "cannot be used" in caplog.text, "it is said")
        assert await shown_by(site) == first
        second = own_file(own, ca, now + timedelta(days=20))
        async with asyncio.timeout(WAIT_S):
            while await shown_by(site) != second:
                pass
        async with site.http.get(site.url("/ready")) as answer:
            assert "put a new one in its place" in str((await answer.json())["notices"])


@pytest.mark.parametrize("content", [None, "nonsense"])
async def test_a_certificate_of_ones_own_that_cannot_be_used_is_an_error_at_the_start(
    tmp_path: Path, content: str | None
) -> None:
    own = tmp_path / "own.pem"
    if content:
        own.write_text(content)
    with pytest.raises(ConfigError, match=r"tls\.certificate_file"):
        async with tls_site(tmp_path, certificate_file=str(own)):
            pass


async def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = SiteCa.new("own", datetime.now(UTC)).current.issue_server(["x"], datetime.now(UTC) + timedelta(days=9))
    encrypted = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "own.pem").write_bytes(encrypted + certificate_pem(issued.certificate))
    with pytest.raises(ConfigError, match="passphrase"):
        async with tls_site(tmp_path, certificate_file=str(tmp_path / "own.pem")):
            pass


async def test_without_a_port_over_tls_nothing_is_made(site: Site) -> None:
    names = {path.name for path in site.settings.gateway.data_dir.iterdir()}
    assert not names & {"site-ca.key", "server.key"}
    made = await site.command(init_certificates)
    assert [one.role for one in made] == ["authority", "next_authority", "server"]
    assert await site.command(show_certificates) == made


async def test_a_tls_port_that_is_taken_is_named_and_the_others_are_closed(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for table in ("mqtt", "http"):
            tables: dict[str, Any] = {table: {"tls_port": port}}
            with pytest.raises(PortInUse, match=rf"Port {port} .* {table}\.tls_port"):
                async with running_site(tmp_path / table, **tables):
                    pass


@pytest.mark.parametrize(("table", "section"), [("mqtt", MqttSettings), ("http", HttpSettings)])
async def test_a_taken_tls_port_that_nobody_asked_for_stops_nothing_and_is_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, section: type[Section]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(section, "model_fields_set", frozenset())  # as if it were the default
        tables: dict[str, Any] = {table: {"tls_port": port}}
        async with running_site(tmp_path, **tables) as site:
            async with site.http.get(site.url("/ready")) as response:
                said = await response.json()
            parts = site.gateway._running
            open_port = parts.door.ports.mqtt_tls if table == "mqtt" else parts.http.tls_port
    assert response.status == 200
    assert [words for words in said["notices"] if f"Port {port}" in words and f"{table}.tls_port" in words]
    assert open_port == 0


def test_a_tls_port_is_asked_for_by_a_file_or_the_environment_and_not_by_default(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text("[mqtt]\nport = 1884\n")
    (tmp_path / "asks.toml").write_text("[mqtt]\ntls_port = 8883\n")
    bare, asks = tmp_path / "bare.toml", tmp_path / "asks.toml"
    assert "tls_port" not in load(bare, {}).settings.mqtt.model_fields_set
    assert "tls_port" in load(asks, {}).settings.mqtt.model_fields_set
    assert "tls_port" in load(bare, {"NEUROGATE_MQTT__TLS_PORT": "8883"}).settings.mqtt.model_fields_set


async def test_the_name_that_mdns_announces_is_one_that_a_client_may_check(tmp_path: Path) -> None:
    async with tls_site(tmp_path) as site:
        known = await site.command(show_certificates)
        (server,) = (one for one in known if one.role == "server")
    assert f"{host_label(site.settings.gateway.id)}.local" in server.names
