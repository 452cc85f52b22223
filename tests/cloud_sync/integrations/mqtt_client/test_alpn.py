"""A server that tells by ALPN (RFC 7301) what is spoken to it, as AWS IoT does on port 443."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import WrongAddress
from cloud_sync.integrations.http.line import Line
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_client.config import MqttConfig
from cloud_sync.integrations.mqtt_client.reasons import Failed
from cloud_sync.integrations.mqtt_client.transport import open_stream
from cloud_sync.integrations.mqtt_external import MqttExternal
from gateway.clock import ManualClock
from gateway.model.finding import Finding
from tests.cloud_sync.integrations.certificates import Authority, serving
from tests.cloud_sync.integrations.mqtt_client.fake_broker import FakeBroker, fake_broker
from tests.cloud_sync.samples import ANYWHERE
from tests.mosquitto import await_port
from tests.ports import free_port

AWS = "x-amzn-mqtt-ca"


async def check(port: int, ca: str, **settings: Any) -> list[Finding]:
    at = {"broker_url": f"mqtts://127.0.0.1:{port}", "ca": ca, "version": "5"} | settings
    config = MqttConfig.model_validate({"type": "mqtt", "name": "test"} | at)
    async with Mqtt(config, ManualClock(), ANYWHERE) as it:
        return await it.check()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def by_alpn(fake: FakeBroker, seen: list[str | None]) -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        seen.append(tls.selected_alpn_protocol())
        if seen[-1] == AWS:
            await fake.serve(reader, writer)
        writer.close()

    return serve


@pytest.mark.parametrize("alpn", [AWS, ["other", AWS]])
@pytest.mark.parametrize("trusts", ["ca", "machine"])
async def test_mqtt_is_spoken_to_who_is_told_so(
    authority: Authority, alpn: Any, trusts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    server = authority.server("127.0.0.1")
    server.set_alpn_protocols(["h2", AWS])
    where: dict[str, Any] = {"ca": authority.file.read_text()}
    if trusts == "machine":  # nothing particular but alpn
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        where = {"ca": None}
    async with fake_broker() as fake, serving(server, by_alpn(fake, seen)) as port:
        *_, found = await check(port, alpn=alpn, **where)
        assert (found.level, len(fake.logins)) == ("ok", 1)
        assert set(seen) == {AWS}
        config = {"type": "mqtt_external", "name": "test", "brokerUrl": f"mqtts://127.0.0.1:{port}", "topics": "a"}
        settings = MqttExternal.Config.model_validate(config | where | {"version": "5", "alpn": alpn})
        async with MqttExternal(settings, ManualClock(), ANYWHERE) as it:
            assert {one.level for one in await it.check()} == {"ok"}
        seen.clear()
        *_, found = await check(port, **where)
        assert (found.level, set(seen)) == ("broken", {None})


@pytest.fixture
def of_another(authority: Authority) -> Iterator[int]:
    """The port of a server that refuses who does not name what it speaks."""
    authority.server("127.0.0.1")
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "server.pem", "-alpn", "h2", "-quiet"]
    process = subprocess.Popen(command, cwd=authority.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        await_port(port)
        yield port
    finally:
        process.kill()
        process.communicate()


async def test_who_speaks_none_of_it_is_told_apart(authority: Authority, of_another: int) -> None:
    ca = authority.file.read_text()
    *_, found = await check(of_another, ca, alpn=AWS)
    assert found.words == "TLS with 127.0.0.1 fails: it speaks none of what `alpn` names."
    assert found.hint == "Correct `alpn`."
    line = Line(ca=ca, alpn=(AWS,))
    with pytest.raises(Failed) as failed:
        await open_stream("127.0.0.1", of_another, ANYWHERE, uses_tls=True, websocket_path=None, line=line)
    assert failed.value.outcome == WrongAddress("127.0.0.1 speaks none of what `alpn` names")
