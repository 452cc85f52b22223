"""With a certificate of our CA a device is who the certificate says, and nobody else, until it is revoked."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.model.errors import NotFound
from gateway.operations.alerts import list_alerts
from gateway.operations.certificates import issue_certificate, renew_certificates
from gateway.operations.devices import add_device, revoke_device, rotate_device
from gateway.storage.disk import replace_private
from tests.broker.raw import connect, publish
from tests.site import Site, reading, until
from tests.tls.site import tls_site, trusting
from tests.tls.test_handshake import WAIT_S, refusals

ACCEPTED = b"\x20\2\0\0"
NOT_AUTHORIZED = b"\x20\2\0\5"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with tls_site(tmp_path, client_certificates="optional") as running:
        yield running


async def issue(site: Site, folder: Path, device_id: str = "kitchen") -> Path:
    new = await site.command(issue_certificate, organization_id="default", device_id=device_id)
    path = folder / f"{device_id}.pem"
    replace_private(path, (new.key + new.certificate).encode())
    return path


async def come(
    site: Site, folder: Path, stack: AsyncExitStack, certificate: Path | None, hello: bytes
) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Send CONNECT with the certificate; returns its answer."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.settings.mqtt.tls_port, ssl=trusting(folder, certificate), server_hostname="localhost"
    )
    stack.callback(writer.transport.abort)
    writer.write(hello)
    return await asyncio.wait_for(reader.readexactly(4), WAIT_S), reader, writer


async def test_it_has_the_rights_of_its_device_without_a_password(site: Site, tmp_path: Path) -> None:
    certificate = await issue(site, tmp_path)
    async with AsyncExitStack() as stack:
        for hello in (connect("a"), connect("b", site.kitchen.username), connect("c", "", "")):
            answer, reader, writer = await come(site, tmp_path, stack, certificate, hello)
            assert answer == ACCEPTED
        writer.write(publish("devices/kitchen/telemetry", reading(), qos=1))
        assert await asyncio.wait_for(reader.readexactly(4), WAIT_S) == b"\x40\2\0\1"
        assert (await site.stored(1))[0].device_id == "kitchen"
        writer.write(publish("devices/cellar/telemetry", reading("cellar"), qos=1))
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""


async def test_nobody_is_another_than_the_certificate_says(site: Site, tmp_path: Path) -> None:
    certificate = await issue(site, tmp_path)
    other = await site.gateway.add_device("cellar")
    async with AsyncExitStack() as stack:
        hello = connect("x", other.username, other.password)
        answer, *_ = await come(site, tmp_path, stack, certificate, hello)
        assert answer == NOT_AUTHORIZED
        assert refusals(site, "certificate_of_another") == 1
        answer, *_ = await come(site, tmp_path, stack, None, hello)  # by password, as anybody may
        assert answer == ACCEPTED


async def test_a_revoked_device_loses_its_session_and_does_not_come_back(site: Site, tmp_path: Path) -> None:
    certificate = await issue(site, tmp_path)
    async with AsyncExitStack() as stack:
        _, reader, _ = await come(site, tmp_path, stack, certificate, connect("x"))
        await site.command(revoke_device, organization_id="default", device_id="kitchen")
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        answer, *_ = await come(site, tmp_path, stack, certificate, connect("x"))
        assert answer == NOT_AUTHORIZED
        site.clock.advance(1)
        await site.command(add_device, organization_id="default", device_id="kitchen", metadata={})
        answer, *_ = await come(site, tmp_path, stack, certificate, connect("x"))
        assert answer == NOT_AUTHORIZED  # that is another credential of the same name
        assert refusals(site, "certificate_revoked") == 2
        answer, *_ = await come(site, tmp_path, stack, await issue(site, tmp_path), connect("x"))
        assert answer == ACCEPTED
    with pytest.raises(NotFound, match="neurogate device add cellar"):
        await site.command(issue_certificate, organization_id="default", device_id="cellar")


async def test_over_https_it_posts_readings_without_a_key(site: Site, tmp_path: Path) -> None:
    url = f"https://localhost:{site.settings.http.tls_port}/api/v1/sensor-data"
    headers = {"content-type": "application/json"}
    certificate = await issue(site, tmp_path)
    for shown, status in ((None, 401), (certificate, 202)):
        context = trusting(tmp_path, shown)
        async with site.http.post(url, data=reading(), headers=headers, ssl=context) as answer:
            assert answer.status == status
    assert (await site.stored(1))[0].device_id == "kitchen"
    await site.command(revoke_device, organization_id="default", device_id="kitchen")
    key = headers | {"x-api-key": (await site.gateway.add_device("cellar")).password}
    for told in (headers, key):  # also on a connection that is still open
        async with site.http.post(url, data=reading(), headers=told, ssl=context) as answer:
            assert answer.status == 401


async def test_a_new_password_ends_no_session_by_certificate(site: Site, tmp_path: Path) -> None:
    certificate = await issue(site, tmp_path)
    async with AsyncExitStack() as stack:
        _, reader, writer = await come(site, tmp_path, stack, certificate, connect("x"))
        await site.command(rotate_device, organization_id="default", device_id="kitchen", overlap_ms=0)
        writer.write(b"\xc0\0")
        assert await asyncio.wait_for(reader.readexactly(2), WAIT_S) == b"\xd0\0"


async def test_certificates_of_the_ca_before_stay_good(site: Site, tmp_path: Path) -> None:
    certificate = await issue(site, tmp_path)
    await site.command(renew_certificates, authority=True)
    async with AsyncExitStack() as stack:
        answer, *_ = await come(site, tmp_path, stack, certificate, connect("x"))
        assert answer == ACCEPTED


async def test_where_it_is_required_no_password_helps_on_any_port_over_tls(tmp_path: Path) -> None:
    async with tls_site(tmp_path, client_certificates="required") as site:
        hello = connect("x", site.kitchen.username, site.kitchen.password)
        certificate = await issue(site, tmp_path)
        url = f"https://localhost:{site.settings.http.tls_port}"
        for shown, expected in ((None, NOT_AUTHORIZED), (certificate, ACCEPTED)):
            context = trusting(tmp_path, shown)
            async with site.http.ws_connect(f"{url}/mqtt", protocols=["mqtt"], ssl=context) as socket:
                await socket.send_bytes(hello)
                assert await socket.receive_bytes(timeout=WAIT_S) == expected
            async with site.http.get(f"{url}/health", ssl=context) as answer:  # people and programs have none
                assert answer.status == 200
        assert refusals(site, "tls_certificate_required") == 1
        own = f"https://localhost:{site.settings.mqtt.websocket_tls_port}/mqtt"
        with pytest.raises((ssl.SSLError, OSError)):
            async with site.http.ws_connect(own, protocols=["mqtt"], ssl=trusting(tmp_path)) as socket:
                await socket.receive_bytes(timeout=WAIT_S)
        await until(lambda: refusals(site, "tls_certificate_required") > 1, "it is counted")


async def test_a_server_certificate_of_our_ca_is_no_clients(site: Site, tmp_path: Path) -> None:
    shown = site.settings.gateway.data_dir / "server.key"
    async with AsyncExitStack() as stack:
        with pytest.raises((ssl.SSLError, asyncio.IncompleteReadError)):
            await come(site, tmp_path, stack, shown, connect("x", site.kitchen.username, site.kitchen.password))
        await until(lambda: refusals(site, "tls_client_bad_certificate") == 1, "it is counted")


async def test_when_it_is_off_a_certificate_is_not_asked_for(tmp_path: Path) -> None:
    async with tls_site(tmp_path) as site, AsyncExitStack() as stack:
        certificate = await issue(site, tmp_path)
        answer, *_ = await come(site, tmp_path, stack, certificate, connect("x", site.kitchen.username))
        assert answer == NOT_AUTHORIZED


async def test_one_that_ends_soon_becomes_an_alert_and_a_new_one_resolves_it(site: Site, tmp_path: Path) -> None:
    async def alerts() -> list[tuple[str | None, str, str]]:
        await site.gateway._alerts.turn()
        return [(one.organization_id, one.subject, one.state) for one in await site.command(list_alerts)]

    async with AsyncExitStack() as stack:
        for days, expected in ((20, "open"), (400, "resolved")):
            new = await site.command(issue_certificate, organization_id="default", device_id="kitchen", life_days=days)
            path = tmp_path / f"{days}.pem"
            replace_private(path, (new.key + new.certificate).encode())
            answer, *_ = await come(site, tmp_path, stack, path, connect("x"))
            assert answer == ACCEPTED
            assert await alerts() == [("default", "kitchen", expected)]
