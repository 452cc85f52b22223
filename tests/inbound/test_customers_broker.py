"""A customer's own broker, a real mosquitto: what is published there is stored once, and nothing of it is lost."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import cloud_sync
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.packets import Login
from cloud_sync.integrations.mqtt_external import MqttExternal
from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists
from gateway.model.status import ReceivingStatus
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device
from gateway.operations.integrations import (
    IntegrationFields,
    IntegrationView,
    add_integration,
    change_integration,
    show_integration,
    try_integration,
)
from tests.cloud_sync.samples import ANYWHERE
from tests.inbound.site import Site as Bench
from tests.inbound.site import open_site
from tests.mosquitto import Mosquitto, mosquitto
from tests.site import Site, reading, running_site, until

PASSWORD = "planted-of-the-customer-4711"
WAIT_S = 30
HUB = "$sys/version/1.0/devices/hub1/properties_report"
INACTIVE, ACTIVE = IntegrationFields(status="inactive"), IntegrationFields(status="active")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    rights = "user us\ntopic readwrite #\ntopic readwrite $sys/#\n"
    with mosquitto(tmp_path_factory.mktemp("mosquitto"), users={"us": PASSWORD}, rights=rights) as running:
        yield running


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path / "data") as running:
        yield running


def at(broker: Mosquitto, topics: str, protocol: str = "mqtt", **more: Any) -> dict[str, Any]:
    """Return settings, as the platform's documents have them."""
    where = {"brokerUrl": f"{protocol}://127.0.0.1", "port": broker.ports[protocol], "topics": topics}
    return where | {"username": "us", "password": PASSWORD} | more


async def add(site: Site, settings: dict[str, Any], organization: str = "acme", name: str = "plant") -> IntegrationView:
    about = {"organization_id": organization, "integration_type": "mqtt_external", "name": name}
    return await site.command(add_integration, **about, settings=settings)  # type: ignore[arg-type]


def status(site: Site) -> ReceivingStatus:
    (one,) = site.gateway._running.integrations.receiving()
    return one


async def listens(site: Site) -> None:
    await until(lambda: status(site).state == "receiving", "it receives", patience_s=WAIT_S)


async def publish(broker: Mosquitto, topic: str, *payloads: bytes, retain: bool = False) -> None:
    """Let a device of theirs publish."""
    program = await asyncio.create_subprocess_exec(
        *("mosquitto_pub", "-p", str(broker.ports["mqtt"]), "-u", "us", "-P", PASSWORD, "-q", "1", "-t", topic, "-l"),
        *(["-r"] if retain else []),
        stdin=subprocess.PIPE,
    )
    await asyncio.wait_for(program.communicate(b"".join(one + b"\n" for one in payloads)), WAIT_S)
    assert program.returncode == 0


def place() -> str:
    """Return a topic that no other test has."""
    return f"plant-{uuid4().hex[:8]}"


@pytest.mark.parametrize(("protocol", "version"), [("mqtt", "3.1.1"), ("mqtts", "5"), ("ws", "5")])
async def test_what_is_published_there_is_the_integrations_organisations(
    site: Site, broker: Mosquitto, protocol: str, version: str
) -> None:
    topic = place()
    secure = {"ca": broker.ca} if protocol == "mqtts" else {}
    one = await add(site, at(broker, f"{topic}/#, other/+", protocol, version=version, **secure))
    assert (one.capabilities, one.secret_names) == (["receives", "tests"], ["password"])
    await listens(site)
    await publish(broker, f"{topic}/a", reading("hall", boot_id="b", seq=1), b"no JSON", reading("attic"))
    await until(lambda: status(site).received == 3, "all are on disk")
    assert {(one.organization_id, one.device_id) for one in await site.stored(2)} == {
        ("acme", "hall"),
        ("acme", "attic"),
    }
    assert [(one.organization_id, one.source) for one in await site.quarantined()] == [("acme", f"{topic}/a")]
    assert await site.metric(f'neurogate_received_messages_total{{integration="{one.id}"}}') == 3
    assert await site.metric(f'neurogate_receiving{{integration="{one.id}"}}') == 1
    async with site.http.get(site.url("/ready")) as answer:
        shown = await answer.text()
    assert json.loads(shown)["receiving"][0]["state"] == "receiving"
    assert "plant" not in shown


async def test_a_hub_goes_on_as_it_hears_that_its_report_is_stored(site: Site, broker: Mosquitto) -> None:
    about = {"organization_id": "acme", "device_id": "thermometer", "hardware_ids": ("AA:01",)}
    await site.command(add_device, **about, metadata={})  # type: ignore[arg-type]
    await add(site, at(broker, "$sys/version/+/devices/#", payloadParser="vmark"))
    await listens(site)
    hub = await asyncio.create_subprocess_exec(
        *(
            "stdbuf",
            "-oL",
            "mosquitto_sub",
            "-p",
            str(broker.ports["mqtt"]),
            "-u",
            "us",
            "-P",
            PASSWORD,
            "-q",
            "1",
            "-C",
            "2",
            "-d",
        ),
        *("-t", f"{HUB}_reply"),
        stdout=subprocess.PIPE,
    )
    assert hub.stdout is not None
    while b"SUBACK" not in await asyncio.wait_for(hub.stdout.readline(), WAIT_S):
        pass
    report = {"devices": [{"hardware_ids": ["AA:01"], "properties": {"t": 21}}, {"serial_number": "S9", "t": 22}]}
    await publish(broker, HUB, json.dumps(report).encode(), b"no report")
    told, _ = await asyncio.wait_for(hub.communicate(), WAIT_S)
    assert told.count(b'{"result":0}') == 2
    assert sorted(one.device_id for one in await site.stored(2)) == ["S9", "thermometer"]
    assert [one.code for one in await site.quarantined()] == ["invalid_json"]
    await until(lambda: status(site).received == 2, "our own replies are no messages")


async def test_the_rights_that_the_guide_gives_are_enough(site: Site, tmp_path: Path) -> None:
    guide = (Path(cloud_sync.__file__).parent / "guides" / "mqtt-external.md").read_text("utf-8")
    (rights,) = re.findall(r"^```acl\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    users = {"neurogate": PASSWORD, "us": PASSWORD}
    theirs = "\nuser us\ntopic readwrite #\ntopic readwrite $sys/#\n"
    with mosquitto(tmp_path, users=users, rights=rights + theirs) as broker:
        ours = at(broker, "devices/+/telemetry,$sys/version/+/devices/#", payloadParser="vmark") | {
            "username": "neurogate"
        }
        await add(site, ours)
        await listens(site)
        login = Login("hub1", "us", PASSWORD)
        at_broker = Broker("127.0.0.1", broker.ports["mqtt"], uses_tls=False, websocket_path=None, login=login)
        async with aclosing(await open_connection(at_broker, ANYWHERE, timeout_s=WAIT_S)) as hub:
            await hub.subscribe([f"{HUB}_reply"])
            await (await hub.publish(HUB, b'{"properties": {"t": 21}}'))
            (told,) = await asyncio.wait_for(hub.received(1), WAIT_S)
    assert told.payload == b'{"result":0}'
    assert [one.device_id for one in await site.stored(1)] == ["hub1"]


async def test_what_we_forward_and_hear_again_goes_round_no_more(site: Site, broker: Mosquitto) -> None:
    topic = place()
    settings = {"broker_url": "127.0.0.1", "port": broker.ports["mqtt"], "username": "us", "password": PASSWORD}
    both = settings | {"topic": f"{topic}/out", "topics": f"{topic}/#", "client_id": topic}
    about = {"organization_id": "acme", "integration_type": "mqtt", "name": "both"}
    one = await site.command(add_integration, **about, settings=both)  # type: ignore[arg-type]
    assert {"forwards", "receives"} <= {*one.capabilities}
    await listens(site)
    await publish(broker, f"{topic}/in", reading("hall"), reading("attic"))
    await until(lambda: delivered(site) == 2, "both are forwarded")
    await publish(broker, f"{topic}/in", reading("cellar"))
    assert [one.device_id for one in await site.stored(3)] == ["hall", "attic", "cellar"]
    with pytest.raises(AlreadyExists):  # it publishes by a name of its own
        await add(site, at(broker, topic, clientId=f"{topic}-out"))


def delivered(site: Site) -> int:
    (one,) = site.gateway._running.integrations.running()
    assert one.forwarder is not None
    return one.forwarder._delivered


async def test_what_comes_while_we_are_away_is_not_lost(site: Site, broker: Mosquitto) -> None:
    topic = place()
    one = await add(site, at(broker, f"{topic}/+"))
    await listens(site)
    await site.command(change_integration, integration_id=one.id, fields=INACTIVE)
    await publish(broker, f"{topic}/a", *(reading("hall", boot_id="b", seq=seq) for seq in range(60)))
    await site.command(change_integration, integration_id=one.id, fields=ACTIVE)
    assert [one.seq for one in await site.stored(60)] == [*range(60)]


async def test_what_is_retained_is_no_new_reading_each_time(site: Site, broker: Mosquitto) -> None:
    topic = place()
    one = await add(site, at(broker, f"{topic}/+"))
    await listens(site)
    await publish(broker, f"{topic}/a", reading("hall"), retain=True)
    await site.stored(1)
    for _ in range(2):
        await site.command(change_integration, integration_id=one.id, fields=ACTIVE)  # anew
        await listens(site)
        await until(lambda: status(site).received == 1, "the retained message")
    assert len(await site.stored(1)) == 1


async def test_a_wrong_password_is_told_and_the_secret_is_not(site: Site, broker: Mosquitto) -> None:
    settings = at(broker, place()) | {"password": "planted-wrong"}
    one = await add(site, settings)
    await until(lambda: status(site).state == "error", "the error", patience_s=WAIT_S)
    shown = await site.command(show_integration, integration_id=one.id)
    assert (shown.status, "password" in shown.error, "planted" in str(shown)) == ("error", True, False)
    assert shown.health is not None
    assert shown.health.error_kind == "authentication"
    await site.command(change_integration, integration_id=one.id, settings={"password": PASSWORD})
    await listens(site)
    assert (await site.command(show_integration, integration_id=one.id)).status == "active"


async def test_a_topic_that_we_may_not_hear_is_told(site: Site) -> None:
    """mosquitto grants what it then sends nothing of; our own broker refuses it."""
    hub = await site.command(add_credential, name="hub", organization_id="default")
    login = {"username": hub.username, "password": hub.password}
    where = {"brokerUrl": "127.0.0.1", "port": site.mqtt_port} | login
    one = await add(site, where | {"topics": "devices/+/telemetry, plant/+"})
    await listens(site)
    shown = await site.command(show_integration, integration_id=one.id)
    assert (shown.status, "plant/+" in shown.error, "telemetry" in shown.error) == ("error", True, False)
    (*_, found) = await site.command(try_integration, integration_id=one.id)
    assert (found.level, found.words) == ("broken", "It does not let us hear plant/+.")
    await site.command(change_integration, integration_id=one.id, settings={"topics": "plant/+"})
    await until(lambda: status(site).state == "error", "nothing is left to hear")
    assert "plant/+" in status(site).last_error
    assert (status(site).next_attempt_s or 0) > 200


async def test_after_a_restart_of_the_broker_it_receives_again(tmp_path: Path) -> None:
    folder, rights = tmp_path / "broker", "user us\ntopic readwrite #\n"
    folder.mkdir()
    async with running_site(tmp_path / "data") as site:
        with mosquitto(folder, users={"us": PASSWORD}, rights=rights) as broker:
            await add(site, at(broker, "plant/+"))
            await listens(site)
            await publish(broker, "plant/a", reading("hall"))
            await site.stored(1)
        await until(lambda: status(site).state == "retrying", "it has noticed", patience_s=WAIT_S)
        again = await asyncio.create_subprocess_exec("mosquitto", "-c", str(folder / "mosquitto.conf"))
        try:
            await listens(site)
            await publish(broker, "plant/a", reading("attic"))
            await site.stored(2)
        finally:
            again.terminate()
            await asyncio.wait_for(again.wait(), WAIT_S)


async def test_two_with_one_client_id_at_one_broker_are_refused(site: Site, broker: Mosquitto) -> None:
    settings = at(broker, place(), clientId="panel")
    first = await add(site, settings)
    with pytest.raises(AlreadyExists, match="cannot have this client id at this broker"):
        await add(site, settings, "other", "theirs")
    second = await add(site, settings | {"clientId": "{gateway_id}-{integration_id}"}, "other", "theirs")
    with pytest.raises(AlreadyExists):
        await site.command(change_integration, integration_id=second.id, settings={"clientId": "panel"})
    await site.command(change_integration, integration_id=first.id, fields=INACTIVE)
    await site.command(change_integration, integration_id=second.id, settings={"clientId": "panel"})
    with pytest.raises(AlreadyExists):
        await site.command(change_integration, integration_id=first.id, fields=ACTIVE)
    await site.command(change_integration, integration_id=first.id, settings={"topics": "else"})  # it does not run


async def test_of_two_that_have_come_about_the_first_runs(tmp_path: Path, broker: Mosquitto) -> None:
    table = {"type": "mqtt_external", "organizations": ["acme"]} | at(broker, place(), clientId="twice")
    tables = [table | {"name": "one"}, table | {"name": "two"}]
    async with running_site(tmp_path, integrations=tables) as site:
        await listens(site)
        assert status(site).name == "one"
        second = await site.command(show_integration, integration_id="two")
        assert (second.status, "this client id at this broker" in second.error) == ("error", True)
        with pytest.raises(AlreadyExists):
            await add(site, at(broker, place(), clientId="twice"))


async def test_p2_killed_between_the_store_and_the_acknowledgement(tmp_path: Path, broker: Mosquitto) -> None:
    topic = place()
    settings = {"type": "mqtt_external", "name": "plant"} | at(broker, f"{topic}/+", clientId=topic)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.inbound.killed", str(tmp_path), json.dumps(settings)), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"receiving\n"
    payloads = [reading("hall", boot_id="b", seq=seq) for seq in range(5)] + [reading("hall", n=n) for n in range(5)]
    await publish(broker, f"{topic}/a", *payloads)
    assert await asyncio.wait_for(process.wait(), WAIT_S) == -signal.SIGKILL
    assert int(await process.stdout.read()) > 0
    async with open_site(tmp_path) as bench:
        already = len(await bench.stored())
        assert already > 0
        again = MqttExternal(MqttExternal.Config.model_validate(settings), ManualClock(), ANYWHERE)
        async with bench.receiving(again) as inbound:
            await until(lambda: inbound.status().received >= 10, "what was not acknowledged comes again")
        await once_each(bench)


async def once_each(bench: Bench) -> None:
    stored = await bench.stored()
    keyed = [one.seq for one in stored if one.seq is not None]
    assert sorted(keyed) == [*range(5)]
    others = [one.body["n"] for one in stored if one.seq is None]
    assert sorted(others) == [*range(5)]
