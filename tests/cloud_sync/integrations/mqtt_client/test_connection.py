"""The client of other brokers, with a real mosquitto at the other end."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from cloud_sync.contract import AuthFailed, NotConnected, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import Line
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Level, Login, Message, Will
from cloud_sync.integrations.mqtt_client.properties import Property, Value
from cloud_sync.integrations.mqtt_client.reasons import Failed
from gateway.config import EgressSettings
from tests.cloud_sync.integrations.conftest import PASSWORD
from tests.cloud_sync.samples import ANYWHERE
from tests.mosquitto import Mosquitto

LEVELS: tuple[Level, ...] = (MQTT_311, MQTT_5)


def at(real: Mosquitto, level: Level = MQTT_311, protocol: str = "mqtt", **login: Any) -> Broker:
    said = {"client_id": uuid4().hex[:12], "username": "hub", "password": PASSWORD} | login
    uses_tls = protocol in ("mqtts", "wss", "mutual")
    line = Line(ca=real.ca if uses_tls else None)
    path = "/mqtt" if protocol in ("ws", "wss") else None
    return Broker("127.0.0.1", real.ports[protocol], uses_tls, path, Login(**said), level, line)


async def opened(broker: Broker, **more: Any) -> Connection:
    return await open_connection(broker, ANYWHERE, **{"timeout_s": 10.0} | more)


async def taken(connection: Connection, count: int) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await connection.received(1_000)
    return found


def payloads(messages: Iterable[Message]) -> list[bytes]:
    return [one.payload for one in messages]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("protocol", ["mqtt", "mqtts", "ws", "wss"])
async def test_messages_go_and_come_in_order_by_every_transport(real: Mosquitto, protocol: str, level: Level) -> None:
    topic = f"site/{uuid4().hex}"
    few, large = (
        (20, 9_000) if protocol in ("ws", "wss") else (300, 150_000)
    )  # there mosquitto waits 40 ms for each 4 KB
    sent = [b"%d" % number for number in range(few)] + [b"x" * large]
    async with aclosing(await opened(at(real, level, protocol))) as connection:
        assert [one.code for one in await connection.subscribe([f"{topic}/#"])] == [1]
        answers = [await connection.publish(f"{topic}/ü", one) for one in sent]
        assert not any(one.is_refusal for one in await asyncio.gather(*answers))
        found: list[Message] = []
        async with asyncio.timeout(10):
            while len(found) < len(sent):  # mosquitto sends 20 ahead of what is acknowledged
                found += (more := await connection.received(20))
                await connection.acknowledge(more)
        assert payloads(found) == sent
        assert {one.topic for one in found} == {f"{topic}/ü"}


@pytest.mark.parametrize("level", LEVELS)
async def test_what_is_not_acknowledged_comes_again_and_the_rest_does_not(real: Mosquitto, level: Level) -> None:
    topic = f"site/{uuid4().hex}"
    broker = at(real, level, is_clean=False)
    async with aclosing(await opened(broker)) as connection:
        assert not connection.session_present
        await connection.subscribe([topic])
        for number in range(6):
            await (await connection.publish(topic, b"%d" % number))
        found = await taken(connection, 6)
        await connection.acknowledge([found[1], found[0], found[3]])  # of these only 0 and 1 may be told, for the order
    async with aclosing(await opened(broker)) as connection:
        assert connection.session_present
        again = await taken(connection, 4)
        assert payloads(again) == [b"2", b"3", b"4", b"5"]
        await connection.acknowledge([*found, *again])
    async with aclosing(await opened(replace(broker, login=replace(broker.login, is_clean=True)))):
        pass


@pytest.mark.parametrize("level", LEVELS)
async def test_a_refused_login_is_told_as_what_it_is(real: Mosquitto, level: Level) -> None:
    for login in ({"password": "wrong"}, {"username": "nobody"}, {"username": None, "password": None}):
        with pytest.raises(Failed) as refused:
            await opened(at(real, level, **login))
        assert isinstance(refused.value.outcome, AuthFailed)
        assert refused.value.hint
        assert "wrong" not in refused.value.reason
    if level == MQTT_311:  # a broker of 5 gives it a name
        with pytest.raises(Failed, match="client id"):
            await opened(at(real, client_id="", is_clean=False))


async def test_another_authority_and_a_missing_certificate_are_told(real: Mosquitto) -> None:
    for protocol in ("mqtts", "wss"):
        with pytest.raises(Failed, match="certificate") as refused:
            await opened(replace(at(real, protocol=protocol), line=Line()))
        assert refused.value.outcome == NotConnected(refused.value.reason)
    with pytest.raises(Failed) as refused:
        await opened(at(real, protocol="mutual"))
    assert "`client_cert`" in refused.value.hint  # its alert comes, or a reset that is faster


async def test_p9_egress_decides_by_the_address_and_before_a_connection(real: Mosquitto) -> None:
    public = Egress(EgressSettings(policy="public"))
    for protocol in ("mqtt", "ws"):
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(Failed, match="is not allowed by egress") as refused:
                await open_connection(replace(at(real, protocol=protocol), host=host), public, timeout_s=10)
            assert isinstance(refused.value.outcome, WrongAddress)


@pytest.mark.parametrize("level", LEVELS)
async def test_the_will_comes_when_we_go_without_a_word_and_else_not(real: Mosquitto, level: Level) -> None:
    topic = f"site/{uuid4().hex}"
    async with aclosing(await opened(at(real, level))) as watcher:
        await watcher.subscribe([topic])
        polite = await opened(at(real, level, will=Will(topic, b"polite")))
        await polite.aclose()
        rude = await opened(at(real, level, will=Will(topic, b"rude")))
        await rude._stream.close()
        assert payloads(await taken(watcher, 1)) == [b"rude"]
        await rude.aclose()


async def test_mqtt_5_says_what_it_wants_and_what_it_refuses(real: Mosquitto) -> None:
    async with aclosing(await opened(at(real, MQTT_5))) as connection:
        assert connection.largest_packet == 200_000
        told: list[tuple[Property, Value]] = [
            (Property.CONTENT_TYPE, "application/json"),
            (Property.USER, ("id", "a")),
            (Property.USER, ("id", "b")),
        ]
        topic = f"site/{uuid4().hex}"
        await connection.subscribe([topic])
        assert (await (await connection.publish(topic, b"{}", properties=told))).code == 0
        (found,) = await taken(connection, 1)
        assert found.payload == b"{}", "whatever the properties are that it came with"
        assert (await (await connection.publish("elsewhere", b"{}"))).code == 0x87
        assert [one.code for one in await connection.subscribe([topic, "site/+/x"])] == [1, 1]


async def test_a_connection_that_ends_ends_every_wait(real: Mosquitto) -> None:
    broker = at(real)
    async with aclosing(await opened(broker)) as first:
        waits = asyncio.create_task(first.received(1))
        await asyncio.sleep(0)
        async with aclosing(await opened(broker)):  # the same client id: it replaces the first
            with pytest.raises(Failed) as ended:
                async with asyncio.timeout(10):
                    await waits
        assert isinstance(ended.value.outcome, NotConnected)
        assert first.ended is not None
        with pytest.raises(Failed):
            await first.publish("site/x", b"")
