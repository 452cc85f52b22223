"""Readings reach a broker in order, each until it is acknowledged, and what cannot be sent holds up no other."""

import asyncio
import json
import socket
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import aiomqtt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from cloud_sync.backoff import Backoff
from cloud_sync.contract import AuthFailed, Batch, NotConnected, Ok, Outcome, Rejected, RetryAfter, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_client import suspect
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, Login
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from gateway.model.reading import wire_reading
from tests.cloud_sync.dead_letters import letters
from tests.cloud_sync.integrations.conftest import PASSWORD
from tests.cloud_sync.integrations.http.serving import proxy, serving
from tests.cloud_sync.integrations.mqtt_client.fake_broker import FakeBroker, fake_broker
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, append, batch, batch_of, sent, stored
from tests.cloud_sync.site import Site, running, until
from tests.mosquitto import Mosquitto


@pytest.fixture(autouse=True)
def _holds_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspect, "_HOLDS_S", 0.01)


def made(port: int, **settings: Any) -> Mqtt:
    raw = {"type": "mqtt", "name": "test", "broker_url": "127.0.0.1", "port": port, "timeout_s": 5, "version": "5"}
    return Mqtt(Mqtt.Config.model_validate(raw | {"topic": "r/{device_id}"} | settings), ManualClock(NOW_MS), ANYWHERE)


def seqs(fake: FakeBroker) -> list[int]:
    return [json.loads(one.payload)["seq"] for one in fake.readings]


@pytest.mark.parametrize(
    ("protocol", "version"), [("mqtt", "3.1.1"), ("mqtts", "5"), ("ws", "5"), ("wss", "3.1.1"), ("mutual", "5")]
)
async def test_each_reading_arrives_at_mosquitto_in_order(
    real: Mosquitto, protocol: str, version: str, identity: tuple[str, str]
) -> None:
    given, topic = batch_of("d1", "d:2", "d1"), f"site/{uuid4().hex}"
    at: dict[str, Any] = {"protocol": "mqtts" if protocol == "mutual" else protocol, "version": version}
    at |= {"username": "hub", "password": PASSWORD, "topic": f"{topic}/{{organization_id}}/{{device_id}}"}
    if protocol in ("mqtts", "wss", "mutual"):
        at["ca"] = real.ca
    if protocol == "mutual":
        at["client_cert"], at["client_key"] = identity
    login = Login(uuid4().hex, "hub", PASSWORD)
    watcher = Broker("127.0.0.1", real.ports["mqtt"], uses_tls=False, websocket_path=None, login=login, level=MQTT_5)
    async with aclosing(await open_connection(watcher, ANYWHERE, timeout_s=10)) as connection, asyncio.timeout(10):
        await connection.subscribe([f"{topic}/#"])
        async with made(real.ports[protocol], **at) as it:
            assert await sent(it, given) == Ok()
        found = [await connection.received(1) for _ in range(3)]
    assert [one.topic.removeprefix(topic) for [one] in found] == ["/default/d1", "/default/d:2", "/default/d1"]
    wire = [wire_reading(one, gateway_id="site-1", log_uuid="log-1") for one in given.readings]
    assert [json.loads(one.payload) for [one] in found] == wire


@pytest.mark.parametrize("protocol", ["mqtt", "mqtts", "wss"])
async def test_a_proxy_leads_there(real: Mosquitto, protocol: str) -> None:
    way: dict[str, Any] = {"protocol": protocol, "username": "hub", "password": PASSWORD, "topic": "site/x"}
    if protocol != "mqtt":
        way["ca"] = real.ca
    async with proxy(f"http://127.0.0.1:{real.ports[protocol]}", "me:secret") as (seen, address):
        way["proxy"] = address
        async with made(real.ports[protocol], **way) as it:
            outcome = await sent(it, batch())
            assert isinstance(outcome, WrongAddress)
            assert "proxy_credentials" in outcome.reason
        async with made(real.ports[protocol], **way, proxy_credentials="me:secret") as it:
            assert await sent(it, batch()) == Ok()
            assert (await it.check())[-1].words == "It lets us in."
    assert set(seen.asked) == {b"CONNECT 127.0.0.1:%d HTTP/1.1" % real.ports[protocol]}


async def test_pahos_client_is_understood_by_our_fake() -> None:
    for level, protocol in ((4, aiomqtt.ProtocolVersion.V311), (5, aiomqtt.ProtocolVersion.V5)):
        async with fake_broker(level=level) as fake:
            login: dict[str, Any] = {"username": "u", "password": "p", "identifier": "paho"}
            will = aiomqtt.Will("status", "gone", 1, retain=True)
            async with aiomqtt.Client("127.0.0.1", fake.port, protocol=protocol, will=will, **login) as client:
                await client.publish("a/b", b"{}", qos=1, retain=True)
                await client.subscribe("c", qos=1)
            assert [(one.topic, one.payload, one.retain) for one in fake.came] == [("a/b", b"{}", True)]
            assert fake.logins[0].items() >= {"client_id": "paho", "will": "gone", "username": "u"}.items()


async def test_mqtt_5_says_what_a_message_is() -> None:
    async with fake_broker() as fake, made(fake.port, retain=True) as it:
        assert await sent(it, batch(1)) == Ok()
    [came] = fake.came
    assert came.properties == {"ContentType": "application/json", "UserProperty": [("id", "site-1:log-1:1")]}
    assert came.retain


async def test_each_sensor_may_have_a_topic_of_its_own() -> None:
    body = {"sensors": {"pir": {"motion_detected": True}, "mq134": {"gas_concentration": 1.5}}}
    given = Batch("msg_1", [stored(1, body), stored(2, {"sensors": {}}), stored(3, body)], "site-1", "log-1")
    async with fake_broker() as fake, made(fake.port, topic="{gateway_id}/{device_id}/{sensor}") as it:
        assert await sent(it, given) == Ok()
    device = "site-1/esp32-kitchen/"
    assert [one.topic.removeprefix(device) for one in fake.came] == ["pir", "mq134", "pir", "mq134"]
    assert [json.loads(one.payload)["sensors"] for one in fake.came[:2]] == [
        {"pir": {"motion_detected": True}},
        {"mq134": {"gas_concentration": 1.5}},
    ]


async def test_a_sensor_that_no_topic_can_have_is_refused_alone() -> None:
    readings = [stored(1), stored(2, {"sensors": {"a/+": {"x": 1}}}), stored(3)]
    async with fake_broker() as fake, made(fake.port, topic="{sensor}") as it:
        outcome = await sent(it, Batch("msg_1", readings, "site-1", "log-1"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2]
    assert [one.topic for one in fake.came] == ["pir", "pir"]


async def test_a_template_may_hold_all_readings_of_a_topic_as_far_as_the_broker_takes_them() -> None:
    template = {"from": "{{gateway_id}}", "values": {"$each_reading": ["{{seq}}", "{{reading.note}}"]}}
    body = {"sensors": {}, "note": "ü" * 300}
    readings = [stored(row, body, device_id=f"d{row % 2}") for row in range(1, 11)]
    given = Batch("msg_1", readings, "site-1", "log-1")
    async with fake_broker() as fake, made(fake.port, payload_template=template, max_message_bytes=2_000) as it:
        assert await sent(it, given) == Ok()
        assert it.encode(given).split(b"\n")[1:] == [one.payload for one in fake.came]
    assert max(len(one.payload) for one in fake.came) <= 2_000
    said = [(one.topic, [seq for seq, _ in json.loads(one.payload)["values"]]) for one in fake.came]
    assert said == [("r/d1", [1, 3]), ("r/d1", [5, 7, 9]), ("r/d0", [2, 4]), ("r/d0", [6, 8, 10])]


async def test_thingsboards_gateway_gets_what_it_expects() -> None:
    """As https://thingsboard.io/docs/reference/gateway-mqtt-api/ has it."""
    template = {"{{device_id}}": [{"ts": "{{time_ms}}", "values": "{{values}}"}]}
    async with fake_broker(level=4) as fake:
        at: dict[str, Any] = {"topic": "v1/gateway/telemetry", "username": "ACCESS_TOKEN", "version": "3.1.1"}
        async with made(fake.port, payload_template=template, **at) as it:
            assert await sent(it, batch_of("d1", "d2")) == Ok()
    assert [one.topic for one in fake.came] == ["v1/gateway/telemetry"] * 2
    assert [json.loads(one.payload) for one in fake.came] == [
        {device: [{"ts": NOW_MS, "values": {"pir.motion_detected": True}}]} for device in ("d1", "d2")
    ]


async def test_a_message_that_is_too_large_is_named_and_never_sent() -> None:
    large = [stored(1), stored(2, {"sensors": {}, "note": "x" * 4_000}), stored(3)]
    for broker, ours in (({"largest_packet": 2_000}, {}), ({}, {"max_message_bytes": 2_000})):
        async with fake_broker(**broker) as fake, made(fake.port, **ours) as it:
            outcome = await sent(it, Batch("msg_1", large, "site-1", "log-1"))
            assert isinstance(outcome, Rejected)
            assert (outcome.rows, seqs(fake)) == ([2], [1, 3])


@pytest.mark.parametrize(("broker", "ours", "most"), [(3, 100, 3), (65_535, 5, 5)])
async def test_no_more_is_on_its_way_than_both_sides_want(broker: int, ours: int, most: int) -> None:
    async with fake_broker(receive_maximum=broker, hangs=True) as fake:
        async with made(fake.port, in_flight_max=ours, timeout_s=0.2) as it:
            assert isinstance(await sent(it, batch(20)), NotConnected)
        assert fake.most_unanswered == most


async def test_throttled_in_the_middle_the_retry_goes_on_there() -> None:
    given = batch_of("d1", "d2", "d3", "d1")
    async with fake_broker(refuses={"r/d2": 0x97}) as fake, made(fake.port) as it:
        for _ in range(2):
            assert isinstance(await sent(it, given), RetryAfter)
        fake.refuses.clear()
        assert await sent(it, given) == Ok()
        assert seqs(fake)[0] == 1
        assert seqs(fake).count(1) == 1
        assert seqs(fake)[-3:] == [2, 3, 4]
        assert len(fake.logins) == 1
        assert await sent(it, given) == Ok()  # a batch that is done is not remembered
        assert seqs(fake)[-4:] == [1, 2, 3, 4]


@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x95, 0x99])
async def test_what_is_refused_is_named_and_the_rest_is_not_sent_twice(code: int) -> None:
    async with fake_broker(refuses={"r/d2": code}, says="not this one") as fake, made(fake.port) as it:
        outcome = await sent(it, batch_of("d1", "d2", "d3", "d1"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2]
        assert "not this one" in outcome.reason
        for part in (batch_of("d1"), batch_of("d3", "d1", first_row=3)):
            assert await sent(it, part) == Ok()
        assert seqs(fake) == [1, 3, 4]


@pytest.mark.parametrize("name", ["a+b", "a#", "a\0b"])
async def test_p4_what_no_topic_can_have_is_certainly_the_readings_own_fault(name: str) -> None:
    given = Batch("m", [stored(1, {"sensors": {name: {"v": 1}, "pir": {"v": 1}}}), stored(2)], "site-1", "log-1")
    async with fake_broker() as fake, made(fake.port, topic="r/{sensor}") as it:
        for some in (given, replace(given, readings=given.readings[:1])):
            outcome = await sent(it, some)
            assert isinstance(outcome, Rejected)
            assert (outcome.rows, outcome.is_certain) == ([1], True)
        assert fake.goodbyes == 0


async def test_what_several_readings_are_refused_for_is_halved_and_the_rest_is_not_sent_twice() -> None:
    template = {"$each_reading": "{{seq}}"}
    async with fake_broker(refuses={"r/d2": 0x99}) as fake, made(fake.port, payload_template=template) as it:
        outcome = await sent(it, batch_of("d1", "d2", "d2", "d1"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == ()
        for half in (batch_of("d1", "d2"), batch_of("d2", "d1", first_row=3)):
            outcome = await sent(it, half)
            assert isinstance(outcome, Rejected)
            assert len(outcome.rows) == 1
        for part in (batch_of("d1"), batch_of("d1", first_row=4)):
            assert await sent(it, part) == Ok()
        assert [one.payload for one in fake.came] == [b"[1,4]"]
        assert not it._publisher._taken | it._publisher._begun


@pytest.mark.parametrize("broker", [{"largest_packet": 1_300}, {"judge": lambda said: 0x99 * (said.count(b"x,") > 1)}])
async def test_p3_no_reading_comes_before_those_of_its_topic_that_were_refused_with_others(broker: Any) -> None:
    template = {"$each_reading": ["{{seq}}", "{{reading.note}}"]}
    notes = ["x" * 900 + ","] * 2 + ["y" * 200] * 2
    readings = [stored(row, {"sensors": {}, "note": note}) for row, note in enumerate(notes, 1)]
    given = Batch("m", readings, "site-1", "log-1")
    async with fake_broker(**broker) as fake, made(fake.port, payload_template=template, max_message_bytes=2_000) as it:
        outcome = await sent(it, given)
        assert isinstance(outcome, Rejected)
        assert (outcome.rows, fake.came) == ((), [])
        for some in (readings[:1], readings[1:2], readings[2:]):  # as the engine halves it
            assert await sent(it, replace(given, readings=some)) == Ok()
        assert [[seq for seq, _ in json.loads(one.payload)] for one in fake.came] == [[1], [2], [3, 4]]


async def test_p5_nothing_is_remembered_of_a_reading_that_was_cut_out() -> None:
    body = {"sensors": {"pir": {"x": 1}, "bad": {"x": 1}}}
    given = Batch("m", [stored(1, body), stored(2)], "site-1", "log-1")
    async with fake_broker(refuses={"r/bad": 0x99}) as fake, made(fake.port, topic="r/{sensor}") as it:
        for some in (given.readings, given.readings[:1], given.readings[1:]):
            await sent(it, replace(given, readings=some))
        assert [one.topic for one in fake.came] == ["r/pir", "r/pir"]
        assert not it._publisher._taken | it._publisher._begun


async def test_one_topic_that_is_not_allowed_is_nobodys_own_fault() -> None:
    async with fake_broker(refuses={"all": 0x87}) as fake, made(fake.port, topic="all") as it:
        assert isinstance(await sent(it, batch()), AuthFailed)


async def test_a_broken_connection_is_made_anew_and_what_was_acknowledged_is_not_sent_again() -> None:
    given = batch(4)
    async with fake_broker(level=4, cuts_at=b'"seq":3') as fake, made(fake.port, version="3.1.1") as it:
        outcome = await sent(it, given)
        assert outcome == NotConnected("it ends the connection")
        fake.cuts_at = None
        assert await sent(it, given) == Ok()
        assert seqs(fake) == [1, 2, 3, 4]
        await fake.cut()  # while nothing is sent
        assert isinstance(await sent(it, batch(1)), Ok | NotConnected)
        assert await sent(it, batch(1)) == Ok()


async def test_p4_a_message_that_ends_the_connection_each_time_is_refused_in_the_end() -> None:
    """A broker of MQTT 3.1.1 has no other way to say that it will not have it."""
    given = batch(4)
    async with fake_broker(level=4, cuts_at=b'"seq":3') as fake, made(fake.port, version="3.1.1") as it:
        outcomes = [await sent(it, given) for _ in range(4)]
        assert [type(one) for one in outcomes] == [NotConnected, NotConnected, NotConnected, Rejected]
        rejected: Any = outcomes[-1]
        assert it._publisher._begun <= {(("r/esp32-kitchen",), 4)}
        assert rejected.rows == [3]
        assert await sent(it, Batch("msg_2", given.readings[3:], "site-1", "log-1")) == Ok()
        assert seqs(fake) == [1, 2, 4]


async def test_p4_a_message_at_which_the_connection_ends_while_it_leaves_is_refused_too(real: Mosquitto) -> None:
    """It is larger than what is on its way at once, and the broker goes as soon as it sees how large."""
    large = stored(1, {"sensors": {"camera": {"seen": "x" * 16_000_000}}})
    at: dict[str, Any] = {"version": "3.1.1", "username": "hub", "password": PASSWORD, "topic": "site/{device_id}"}
    async with made(real.ports["mqtt"], **at, max_message_bytes=20_000_000) as it:
        given = Batch("msg_1", (large,), "site-1", "log-1")
        outcomes = [await sent(it, given) for _ in range(4)]
        assert [type(one) for one in outcomes] == [NotConnected, NotConnected, NotConnected, Rejected]
        assert await sent(it, Batch("msg_2", (stored(2),), "site-1", "log-1")) == Ok()


async def test_p4_another_client_with_our_id_makes_no_message_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    """By MQTT 3.1.1 the broker ends the connection without a word when it comes, whatever is on its way."""
    monkeypatch.setattr(suspect, "_HOLDS_S", 0.3)

    async def comes_again(fake: FakeBroker) -> None:
        while True:
            await asyncio.sleep(0.05)
            await fake.cut()

    async with fake_broker(level=4, hangs=True) as fake, made(fake.port, version="3.1.1", client_id="one") as it:
        other = asyncio.create_task(comes_again(fake))
        for _ in range(6):
            assert isinstance(await sent(it, batch(1)), NotConnected)
        other.cancel()
        fake.hangs = False
        assert await sent(it, batch(1)) == Ok()
        assert seqs(fake) == [1]


async def test_one_that_says_what_is_wrong_is_believed() -> None:
    for code, last in ((0x99, Rejected), (0x8E, NotConnected), (0x98, NotConnected)):
        async with fake_broker(goes=code) as fake, made(fake.port) as it:
            assert [type(await sent(it, batch(2))) for _ in range(4)][-1] is last


async def test_p7_a_broker_that_repeats_the_password_is_not_repeated() -> None:
    login: dict[str, Any] = {"username": "gateway", "password": "planted-4711"}
    async with fake_broker(accepts=0x86, says="no, and you said") as fake, made(fake.port, **login) as it:
        outcome = await sent(it, batch())
        found = (await it.check())[-1]
    assert isinstance(outcome, AuthFailed)
    for said in (repr(outcome), repr(found)):
        assert "planted-4711" not in said
        assert "repeats a secret" in said


async def test_a_broker_that_is_gone_at_each_message_makes_none_suspicious() -> None:
    async with fake_broker(level=4, cuts_at=b"seq") as fake, made(fake.port, version="3.1.1") as it:
        fake.accepts = 3
        for _ in range(6):
            assert await sent(it, batch(2)) == NotConnected("it says that it is not available (code 0x03)")


async def test_a_broker_that_hangs_is_given_up_and_tried_anew() -> None:
    async with fake_broker(hangs=True) as fake, made(fake.port, timeout_s=0.2) as it:
        outcome = await sent(it, batch())
        assert outcome == NotConnected("it has not answered for 0.2 s")
        assert outcome.sent
        fake.hangs = False
        assert await sent(it, batch()) == Ok()
        assert len(fake.logins) == 2


async def test_it_is_said_whether_anything_has_left() -> None:
    async with fake_broker() as fake, made(fake.port) as it:
        fake.server.close()
        outcome = await sent(it, batch())
        assert isinstance(outcome, NotConnected)
        assert not outcome.sent


@pytest.mark.parametrize(
    ("level", "code", "kind", "words"),
    [
        (5, 0x86, AuthFailed, "refuses the username or the password"),
        (5, 0x85, AuthFailed, "client id"),
        (5, 0x84, WrongAddress, "does not speak MQTT 5"),
        (5, 1, WrongAddress, "does not speak MQTT 5"),
        (5, 0x89, RetryAfter, "busy"),
        (5, 0x9F, RetryAfter, "too often"),
        (5, 0x88, NotConnected, "not available"),
        (5, 0xBB, NotConnected, "it refuses"),
        (4, 1, WrongAddress, "does not speak MQTT 3.1.1"),
        (4, 2, AuthFailed, "client id"),
        (4, 3, NotConnected, "not available"),
        (4, 4, AuthFailed, "password"),
        (4, 5, AuthFailed, "does not let us in"),
        (4, 9, NotConnected, "it refuses"),
    ],
)
async def test_a_refused_login_is_known_by_its_code(level: int, code: int, kind: type[Outcome], words: str) -> None:
    version = {4: "3.1.1", 5: "5"}[level]
    async with fake_broker(level=level, accepts=code) as fake, made(fake.port, version=version) as it:
        outcome = await sent(it, batch())
        assert type(outcome) is kind
        assert words in repr(outcome)
        found = (await it.check())[-1]
        assert found.level == "broken"
        assert words in found.words.replace("It", "it", 1)
        assert found.hint


async def test_another_password_is_another_integration_and_goes_on_behind() -> None:
    """The engine makes it anew when its settings change."""
    async with fake_broker() as fake:
        async with made(fake.port, username="gateway", password="old") as it:
            assert await sent(it, batch(1)) == Ok()
        async with made(fake.port, username="gateway", password="new") as it:
            assert await sent(it, batch_of("d1", first_row=2)) == Ok()
    assert [one["password"] for one in fake.logins] == ["old", "new"]
    assert seqs(fake) == [1, 2]
    assert fake.goodbyes == 2


async def test_the_broker_tells_whether_we_are_there() -> None:
    async with fake_broker() as fake:
        async with made(fake.port, status_topic="status/{gateway_id}", will="off", birth="on") as it:
            assert await sent(it, batch(1)) == Ok()
            await fake.cut()
            while isinstance(await sent(it, batch(1)), NotConnected):
                pass
        status = [(one.topic, one.payload, one.retain) for one in fake.came if one.retain]
    assert status == [("status/site-1", word, True) for word in (b"on", b"on", b"off")]
    assert {(one["will_topic"], one["will"], one["will_retain"]) for one in fake.logins} == {
        ("status/site-1", "off", True)
    }


async def test_with_a_status_it_comes_back_while_there_is_nothing_to_send() -> None:
    async with fake_broker() as fake, made(fake.port, status_topic="status") as it:
        it._publisher._kept._backoff = Backoff(lambda: 0.001)
        assert await sent(it, batch(1)) == Ok()
        for _ in range(2):
            await fake.cut()
            before = len(fake.came)
            async with asyncio.timeout(10):
                while len(fake.came) == before:
                    await fake.something.wait()
        assert [one.topic for one in fake.came] == ["status", "r/esp32-kitchen", "status", "status"]
        assert await sent(it, batch(1)) == Ok()
        assert len(fake.logins) == 3


async def test_a_status_that_is_not_allowed_is_said() -> None:
    async with fake_broker(refuses={"status": 0x87}) as fake, made(fake.port, status_topic="status") as it:
        for _ in range(2):
            outcome = await sent(it, batch(1))
            assert outcome == AuthFailed("it does not allow it (code 0x87), for the topic status")


@pytest.mark.parametrize(("status", "kind"), [(404, WrongAddress), (401, AuthFailed), (502, NotConnected)])
async def test_a_server_without_such_a_websocket_is_told(status: int, kind: type[Outcome]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(answer) as url, made(URL(url).port or 0, protocol="ws") as it:
        outcome = await sent(it, batch(1))
        assert type(outcome) is kind
        assert f"HTTP {status}" in repr(outcome)


@pytest.mark.parametrize("protocol", ["mqtt", "ws"])
async def test_a_name_that_leads_nowhere_is_told(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_args: Any, **_named: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    async with made(1, broker_url="nobody.invalid", protocol=protocol) as it:
        outcome = await sent(it, batch(1))
    assert outcome == NotConnected("the name nobody.invalid cannot be resolved")
    assert not outcome.sent


async def test_a_proxy_is_no_way_around_egress() -> None:
    egress = Egress(EgressSettings(policy="public", allow=["127.0.0.1"]))
    for protocol in ("mqtt", "wss"):
        config = made(1, broker_url="10.1.2.3", protocol=protocol, proxy="http://127.0.0.1:9")._config
        async with Mqtt(config, ManualClock(NOW_MS), egress) as it:
            outcome = await sent(it, batch(1))
            assert isinstance(outcome, WrongAddress)
            assert "10.1.2.3 is not allowed by egress" in outcome.reason


async def test_what_is_heard_under_the_same_name_is_not_thrown_out() -> None:
    async with fake_broker() as fake:
        for topics, name in (((), "hub"), (["a/#"], "hub-out")):
            async with made(fake.port, client_id="hub", topics=topics) as it:
                assert await sent(it, batch(1)) == Ok()
            assert fake.logins[-1]["client_id"] == name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topic": "a/{device}"}, "in braces there may be {device_id}"),
        ({"topic": "a/#"}, "wildcard"),
        ({"topic": ""}, "empty"),
        ({"status_topic": "{device_id}"}, "in braces there may be {gateway_id}"),
        ({"payload_template": "{{devce_id}}"}, "not JSON"),
        ({"payload_template": ["{{devce_id}}"]}, "unknown field"),
        ({"client_cert": "x"}, "no certificate"),
        ({"ca": "x"}, "no certificate"),
        ({"version": "4"}, "3.1.1"),
        ({"username": "u", "password": "x" * 70_000}, "65,535 bytes"),
        ({"proxy": "http://proxy:3128", "protocol": "ws"}, "ws without TLS does not go by one"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"validation error") as caught:
        made(1, **settings)
    assert words in str(caught.value)


def test_a_certificate_needs_tls_and_its_own_key(identity: tuple[str, str]) -> None:
    certificate, key = identity
    another = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for settings, words in (
        ({"client_cert": certificate, "protocol": "mqtts"}, "needs its key"),
        ({"client_cert": certificate, "client_key": key}, "for TLS"),
        ({"client_cert": certificate, "client_key": another.decode(), "protocol": "mqtts"}, "cannot be used"),
    ):
        with pytest.raises(ValueError, match=words):
            made(1, **settings)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_p2_the_whole_log_arrives_in_order_whatever_the_broker_does(site: Site, version: str) -> None:
    """The line is cut, it is busy, and it will never have the reading 40: that one is a dead letter."""
    level = {"3.1.1": 4, "5": 5}[version]
    await append(site.log, 300)
    async with fake_broker(level=level, cuts_at=b'"seq":40,') as fake:
        it = made(fake.port, version=version, start="oldest", batch_max_readings=100, in_flight_max=10, name="cloud")
        async with it, running(site.forwarder(it)):
            for trouble, count in (("cut", 90), ("busy", 150), ("cut", 210)):
                await until(partial(has_come, fake, count))
                if trouble == "cut":
                    await fake.cut()
                elif version == "5":
                    fake.refuses = {"*": 0x97}
                    await until(lambda: fake.refused > 10)
                    fake.refuses = {}
            await until(lambda: any(b'"seq":299,' in one.payload for one in fake.came[-1:]))
            refused = await letters(site)
    whole = [seq for seq in range(300) if seq != 40]
    assert list(dict.fromkeys(reversed(seqs(fake)))) == whole[::-1]
    if version == "3.1.1":  # by 5 what is behind a message that is refused for a while may come before it, and again
        assert list(dict.fromkeys(seqs(fake))) == whole
    assert refused == [41]


def has_come(fake: FakeBroker, count: int) -> bool:
    return len(fake.came) >= count
