"""A broker is tried as far as its rights go: a real mosquitto, over TCP, TLS and WebSocket."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_client.address import Address
from cloud_sync.integrations.mqtt_client.config import MqttConfig
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, Answer
from cloud_sync.integrations.mqtt_client.reasons import refused_login
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from gateway.model.finding import Finding
from tests.cloud_sync.integrations.conftest import PASSWORD
from tests.cloud_sync.integrations.mqtt_client.fake_broker import fake_broker
from tests.cloud_sync.samples import ANYWHERE
from tests.mosquitto import Mosquitto


def config(**settings: Any) -> MqttConfig:
    return MqttConfig.model_validate({"type": "mqtt", "name": "test"} | settings)


async def check(egress: Egress = ANYWHERE, **settings: Any) -> list[Finding]:
    async with Mqtt(config(**settings), ManualClock(), egress) as it:
        return await it.check()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("protocol", ["mqtt", "wss"])
async def test_a_broker_says_whether_it_lets_us_in(real: Mosquitto, protocol: str, version: str) -> None:
    at: dict[str, Any] = {"broker_url": "127.0.0.1", "protocol": protocol, "port": real.ports[protocol]}
    at |= {"username": "hub", "version": version} | ({"ca": real.ca} if protocol == "wss" else {})
    assert {one.level for one in await check(**at, password=PASSWORD)} == {"ok"}
    *_, found = await check(**at, password="wrong")
    assert (found.level, "wrong" in str(found)) == ("broken", False)
    assert "password" in found.words + found.hint
    *_, found = await check(**at, password=PASSWORD, client_id="panel", topics="site/+/telemetry")
    assert found.words == "It lets us in and hear the topics."
    found = (await check(**at, password=PASSWORD, topics=["site/#", "$SYS/broker/uptime"]))[-1]
    assert found.words in {"It does not let us hear $SYS/broker/uptime.", "It lets us in and hear the topics."}


async def test_a_broker_of_another_authority_or_that_wants_a_certificate_is_told(
    real: Mosquitto, identity: tuple[str, str]
) -> None:
    at: dict[str, Any] = {"broker_url": "127.0.0.1", "protocol": "mqtts", "username": "hub", "password": PASSWORD}
    *_, found = await check(**at, port=real.ports["mqtts"])
    assert found.words.startswith("The certificate of 127.0.0.1 is of nobody that this machine trusts")
    at |= {"port": real.ports["mutual"], "ca": real.ca}
    *_, found = await check(**at)
    assert (found.level, "`client_cert`" in found.hint) == ("broken", True)
    certificate, key = identity
    assert {one.level for one in await check(**at, client_cert=certificate, client_key=key)} == {"ok"}


@pytest.mark.parametrize(
    ("lacks", "settings", "words"),
    [
        ("RetainAvailable", {"topic": "r", "retain": True}, "Leave out `retain`,"),
        ("RetainAvailable", {"home_assistant": True}, "Leave out `home_assistant`,"),
        ("RetainAvailable", {"status_topic": "s", "topic": "r", "retain": True}, "`retain` and `status_topic`"),
        ("RetainAvailable", {"topic": "r"}, None),
        ("MaximumQoS", {"topic": "r"}, "QoS 1"),
        ("MaximumQoS", {"topics": "r"}, None),
        ("WildcardSubscriptionAvailable", {"topics": "a/+"}, "whole topics"),
        ("WildcardSubscriptionAvailable", {"topics": "a/b"}, None),
    ],
)
async def test_what_a_broker_says_it_cannot_do_is_told(lacks: str, settings: dict[str, Any], words: str | None) -> None:
    async with fake_broker(lacks=(lacks,)) as fake:
        *_, found = await check(broker_url="127.0.0.1", port=fake.port, version="5", **settings)
    assert found.level == ("ok" if words is None else "broken")
    assert (words or "") in found.hint


def test_a_will_that_cannot_be_retained_is_no_matter_of_retain() -> None:
    failed = refused_login(MQTT_5, Answer(0x9A))
    assert "`status_topic`" in failed.hint
    assert "retain =" not in failed.hint


async def test_what_is_no_broker_is_told(real: Mosquitto) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        *_, found = await check(broker_url="127.0.0.1", port=port)
    assert found.words == "It ends the connection when MQTT is spoken to it."
    *_, found = await check(broker_url="127.0.0.1", port=real.ports["mqtt"], use_tls=True)
    assert found.words.startswith("TLS with 127.0.0.1 fails")
    *_, found = await check(broker_url="ws://127.0.0.1/mqtt", port=real.ports["mqtt"])
    assert found.level == "broken"


async def test_p9_egress_is_asked_before_a_connection_is_made(real: Mosquitto) -> None:
    public = Egress(EgressSettings(policy="public"))
    (found,) = await check(public, broker_url="127.0.0.1", port=real.ports["mqtt"])
    assert found.words == "Egress does not allow the addresses of 127.0.0.1."


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (
            {"broker_url": "mqtt.example.com", "port": 1883, "protocol": "mqtt", "use_tls": False},
            ("", 1883, False, None),
        ),
        ({"broker_url": "mqtt://mqtt.example.com", "port": 1883, "use_tls": True}, ("", 1883, True, None)),
        ({"broker_url": "mqtts://mqtt.example.com"}, ("", 8883, True, None)),
        ({"broker_url": "wss://mqtt.example.com:9001/mqtt"}, ("", 9001, True, "/mqtt")),
        ({"broker_url": "mqtt.example.com", "protocol": "ws"}, ("", 80, False, "/mqtt")),
        ({"broker_url": "[::1]:1884"}, ("::1", 1884, False, None)),
    ],
)
def test_an_address_is_as_the_documents_write_it(settings: dict[str, Any], address: tuple[str, int, bool, Any]) -> None:
    host, *rest = address
    assert config(**settings).address == Address(host or "mqtt.example.com", *rest)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"broker_url": "http://x.example"}, "begins with http://"),
        ({"broker_url": "mqtt://u:p@x.example"}, "contains credentials"),
        ({"broker_url": "mqtt://x.example:1", "port": 2}, "port say different things"),
        ({"broker_url": "mqtt://x.example", "protocol": "ws"}, "protocol say different things"),
        ({"broker_url": "mqtts://x.example", "use_tls": False}, "use_tls says that it does not"),
        ({"broker_url": "mqtt://"}, "names no host"),
        ({"broker_url": "x.example", "password": "p"}, "needs a username"),
        ({"broker_url": "x.example", "topics": "a/#/b"}, "is no topic filter"),
        ({"broker_url": "x.example:99999"}, "from 1 to 65535"),
        ({"broker_url": "mqtt://x.example:0"}, "from 1 to 65535"),
        ({"broker_url": "mqtt://x.example:u:p@"}, "from 1 to 65535|credentials"),
        ({"broker_url": "x.example:port"}, "from 1 to 65535"),
        ({"broker_url": "x.example", "client_id": "a\0"}, "holds a NUL"),
        ({"broker_url": "x.example", "username": "\0"}, "holds a NUL"),
        ({"broker_url": "x.example", "timeout_s": 3_601}, "3600"),
        ({"broker_url": "x.example", "alpn": "mqtt"}, "alpn is said in TLS"),
        ({"broker_url": "mqtts://x.example", "alpn": ["mqtt", ""]}, "1 to 255 characters of ASCII"),
        ({"broker_url": "mqtts://x.example", "alpn": "x" * 256}, "1 to 255 characters of ASCII"),
        ({"broker_url": "mqtts://x.example", "alpn": "ä"}, "1 to 255 characters of ASCII"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as refused:
        config(**settings)
    assert "u:p@" not in str(refused.value)


@pytest.mark.parametrize("template", [{"v": "{{values}}"}, {"$each_reading": {"at": "{{time}}"}}, "[1]"])
@pytest.mark.parametrize(
    ("topic", "heard"),
    [
        ("site/{device_id}", "site/#"),
        ("site/{device_id}", "site/+"),
        ("site/{device_id}", "other, site/kitchen"),
        ("{organization_id}/x/{device_id}", "+/x/+"),
        ("site/{sensor}", "site/pir/#"),
        ("site/all", "site/all/#"),
        ("site/out-{device_id}", "site/out-1"),
        ("$x/{device_id}", "$x/#"),
    ],
)
def test_p2_what_would_go_round_for_ever_is_refused(topic: str, heard: str, template: object) -> None:
    where = {"broker_url": "x.example", "topic": topic, "topics": heard}
    with pytest.raises(ValidationError, match="go round for ever"):
        config(**where, payload_template=template)
    config(**where)
    for known in ({"a": ["{{id}}"]}, {"{{id}}": 1}, {"$each_reading": "{{ reading }}"}, ["{{reading.id}}"]):
        config(**where, payload_template=known)


def test_p2_our_own_shape_names_its_reading_by_id_or_is_refused() -> None:
    where = {"broker_url": "x.example", "topic": "site/{device_id}", "topics": "site/#"}
    shape = {"device_id": "{{device_id}}", "sensors": "{{sensors}}"}
    with pytest.raises(ValidationError, match="go round for ever"):
        config(**where, payload_template=shape | {"reading_id": "{{id}}"})
    config(**where, payload_template=shape | {"id": "{{id}}"})


@pytest.mark.parametrize(
    ("topic", "heard"),
    [
        ("site/{device_id}", "others/#"),
        ("site/{device_id}", "site/+/more, site"),
        ("site/out-{device_id}", "site/in-1"),
        ("$x/{device_id}", "#"),
        ("site/{device_id}/up", "site/+/down"),
    ],
)
def test_where_others_publish_it_is_heard_whatever_is_published(topic: str, heard: str) -> None:
    config(broker_url="x.example", topic=topic, topics=heard, payload_template={"v": "{{values}}"})
