"""Home Assistant at another broker sees the devices whose readings are forwarded there."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from pydantic import ValidationError

from cloud_sync.contract import AuthFailed, Batch, Ok, Outcome, RetryAfter
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_client import beside, suspect
from gateway.clock import ManualClock
from gateway.model.home_assistant.topics import object_id
from gateway.model.reading import StoredReading
from tests.cloud_sync.integrations.mqtt_client.fake_broker import fake_broker
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, batch_of, stored
from tests.home_assistant import HomeAssistant, listen, showing
from tests.mosquitto import Mosquitto, mosquitto
from tests.site import reading, running_site, until

PASSWORD = "only-in-the-password-file"
RIGHTS = "user hub\ntopic readwrite #\n"
LOGIN: dict[str, Any] = {"username": "hub", "password": PASSWORD}
DEVICE = object_id("site-1", "default", "esp32-kitchen")
CONFIG, STATE = f"homeassistant/device/{DEVICE}/config", "neurogate/site-1/default/devices/esp32-kitchen/state"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """The broker of a Home Assistant."""
    with mosquitto(tmp_path_factory.mktemp("mosquitto"), users={"hub": PASSWORD}, rights=RIGHTS) as running:
        yield running


@pytest.fixture(autouse=True)
def _holds_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspect, "_HOLDS_S", 0.01)


def made(port: int, clock: ManualClock | None = None, **settings: Any) -> Mqtt:
    raw = {"type": "mqtt", "name": "test", "broker_url": "127.0.0.1", "port": port, "timeout_s": 5, "version": "5"}
    config = Mqtt.Config.model_validate(raw | {"home_assistant": True} | settings)
    return Mqtt(config, clock or ManualClock(NOW_MS), ANYWHERE)


async def sent(it: Mqtt, *readings: StoredReading) -> Outcome:
    given = Batch("msg_1", readings, "site-1", "log-1")
    return await it.send(given, it.encode(given))


def pir(*, motion: bool, row: int = 1, **changes: Any) -> StoredReading:
    return replace(stored(row, {"sensors": {"pir": {"motion_detected": motion}}}), **changes)


def has_heard(it: Any) -> bool:
    return bool(it._publisher._kept._connection.has_received)


@asynccontextmanager
async def home(port: int) -> AsyncIterator[tuple[HomeAssistant, aiomqtt.Client]]:
    shown = HomeAssistant()
    async with aiomqtt.Client("127.0.0.1", port, username="hub", password=PASSWORD) as client:
        await client.subscribe([("homeassistant/+/+/config", 0), ("homeassistant/+/+/+/config", 0)])
        listening = asyncio.create_task(listen(client, shown))
        try:
            yield shown, client
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_it_shows_what_is_forwarded_and_all_of_it_again_when_it_comes(theirs: Mosquitto, tmp_path: Path) -> None:
    port = theirs.ports["mqtt"]
    table = {"type": "mqtt", "name": "home", "broker_url": "127.0.0.1", "port": port, "home_assistant": True}
    table |= {"username": "hub", "password": PASSWORD}
    kitchen = object_id("site-1", "default", "kitchen")
    async with running_site(tmp_path, integrations=[table]) as site:

        async def says(body: bytes) -> None:
            who = site.kitchen
            async with aiomqtt.Client(
                "127.0.0.1", site.mqtt_port, username=who.username, password=who.password
            ) as board:
                await board.publish("devices/kitchen/telemetry", body, qos=1)

        async with home(port) as (shown, _):
            await says(reading())
            await says(reading(sensors={"ld2410": {"presence": True}}))
            await showing(shown, kitchen, "ld2410-presence", "on")
            await showing(shown, kitchen, "pir-motion_detected", "on")
            await showing(shown, kitchen, "connectivity", "on")
        async with home(port) as (shown, client):  # it was restarted
            await showing(shown, kitchen, "pir-motion_detected", "on")
            told = shown.configs
            await client.publish("homeassistant/status", "online", qos=1)
            (running,) = site.gateway._running.integrations.running()
            await until(lambda: has_heard(running.integration), "it has come")
            await says(reading(sensors={"ld2410": {"presence": False}}))
            await showing(shown, kitchen, "ld2410-presence", "off")
            assert shown.configs == told + 1
            await client.publish(f"homeassistant/device/{kitchen}/config", b"", qos=1, retain=True)
            await until(lambda: kitchen not in shown.devices, "its owner has taken it out")


async def test_when_the_gateway_goes_nothing_is_available(theirs: Mosquitto) -> None:
    login: dict[str, Any] = {"username": "hub", "password": PASSWORD}
    async with home(theirs.ports["mqtt"]) as (shown, _):
        async with made(theirs.ports["mqtt"], **login) as it:
            assert await sent(it, pir(motion=True)) == Ok()
            await until(lambda: "neurogate/site-1/status" in shown.heard, "it listens")
            assert await sent(it, pir(motion=True, row=2)) == Ok()
            await showing(shown, DEVICE, "pir-motion_detected", "on")
        await showing(shown, DEVICE, "connectivity", "unavailable")
        assert shown.names[DEVICE]["suggested_area"] == "kitchen"


async def test_of_a_batch_each_devices_last_state_is_told_before_its_readings() -> None:
    async with fake_broker() as fake, made(fake.port, topic="r") as it:
        assert await sent(it, pir(motion=True), pir(motion=False, row=2)) == Ok()
        assert [(one.topic, one.retain) for one in fake.came] == [
            ("neurogate/site-1/status", True),
            (STATE, True),
            (CONFIG, True),
            ("r", False),
            ("r", False),
        ]
        assert json.loads(fake.came[1].payload)["sensors"] == {"pir": {"motion_detected": False}}
        assert await sent(it, pir(motion=True, row=3, time_ms=NOW_MS + 1)) == Ok()
        assert [one.topic for one in fake.came[5:]] == [STATE, "r"]


async def test_a_device_is_gone_when_nothing_comes_from_it() -> None:
    clock = ManualClock(NOW_MS)
    async with fake_broker() as fake, made(fake.port, clock, silent_after_s=60) as it:
        assert await sent(it, pir(motion=True)) == Ok()
        components = json.loads(fake.came[2].payload)["cmps"]
        assert components.pop("connectivity")["off_dly"] == 60
        assert {one["exp_aft"] for one in components.values()} == {60}
        assert json.loads(fake.came[1].payload)["availability"] == "online"
        clock.advance(60_020)
        assert await sent(it, pir(motion=True, row=2)) == Ok()  # of a backlog
        assert json.loads(fake.came[3].payload)["availability"] == "offline"


async def test_what_the_broker_did_not_take_is_told_again() -> None:
    async with fake_broker() as fake, made(fake.port, topic="r") as it:
        fake.refuses[CONFIG] = 0x87
        outcome = await sent(it, pir(motion=True))
        assert isinstance(outcome, AuthFailed)
        assert CONFIG in outcome.reason
        assert "r" not in [one.topic for one in fake.came]
        fake.refuses = {STATE: 0x97}
        assert isinstance(await sent(it, pir(motion=True)), RetryAfter)
        fake.refuses = {}
        assert await sent(it, pir(motion=True)) == Ok()
        assert [one.topic for one in fake.came[-3:]] == [STATE, CONFIG, "r"]


@pytest.mark.parametrize("way", [{"refuses": {CONFIG: 0x95}}, {"refuses": {CONFIG: 0x99}}, {"largest_packet": 800}])
async def test_p4_what_the_broker_takes_no_message_of_holds_up_no_reading(way: dict[str, Any]) -> None:
    many = {"sensors": {"plant": {f"value_{number}": number for number in range(10)}}}
    async with fake_broker(**way) as fake, made(fake.port, topic="r") as it:
        assert await sent(it, stored(1, many)) == Ok()
        topics = [one.topic for one in fake.came]
        assert CONFIG not in topics
        assert topics[-1] == "r"


@pytest.mark.parametrize("forbidden", ["homeassistant/", "neurogate/site-1/default/", "neurogate/site-1/status"])
async def test_p4_a_broker_that_ends_the_connection_instead_of_a_word_holds_up_no_reading(
    forbidden: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By MQTT 3.1.1 it has no other way to forbid something."""
    async with fake_broker(level=4, forbids=forbidden) as fake, made(fake.port, topic="r", version="3.1.1") as it:
        outcomes = [await sent(it, pir(motion=True)) == Ok() for _ in range(16)]
        assert outcomes[-1]
        in_a_row = 3 if forbidden.endswith("status") else 1  # before that there is no connection
        assert [False] * (in_a_row + 1) not in [outcomes[one : one + in_a_row + 1] for one in range(16)]
        assert await sent(it, pir(motion=False, row=2)) == Ok()
        assert fake.readings[-1].topic == "r"
    assert "ends the connection when " in caplog.text


MANY = {"sensors": {"plant": {f"value_{number}": number for number in range(60)}}}


async def test_p4_of_what_a_broker_ends_the_connection_at_that_message_alone_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real one, by MQTT 3.1.1, and a device of so many values that what it is passes the size of a packet."""
    wide, plain = replace(stored(1, MANY), device_id="wide"), replace(pir(motion=True, row=2), device_id="hall")
    limit = "max_packet_size 4000\n"
    with mosquitto(tmp_path, users={"hub": PASSWORD}, rights=RIGHTS, more=limit) as strict:
        port = strict.ports["mqtt"]
        async with home(port) as (shown, _), made(port, None, **LOGIN, topic="r", version="3.1.1") as it:
            outcomes = [await sent(it, pir(motion=True), wide, plain) == Ok() for _ in range(9)]
            assert 3 <= outcomes.count(False) <= 4  # the first may be put down to what was on its way with it
            assert (False, False) not in pairwise(outcomes)  # readings do not wait for it
            for device in ("esp32-kitchen", "hall"):
                await showing(shown, object_id("site-1", "default", device), "pir-motion_detected", "on")
            assert object_id("site-1", "default", "wide") not in shown.devices
            assert await sent(it, pir(motion=False, row=4, time_ms=NOW_MS + 1), wide) == Ok()
            await showing(shown, DEVICE, "pir-motion_detected", "off")
    told = [one.getMessage() for one in caplog.records if "ends the connection when" in one.getMessage()]
    assert [object_id("site-1", "default", "wide") in one for one in told] == [True]


async def test_p4_a_broker_that_ends_the_connection_at_any_message_is_told_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beside, "_LEFT_OUT_AT_MOST", 1)
    readings = batch_of("d1", "d2", "d3").readings
    fake_one = fake_broker(level=4, forbids="homeassistant/device/")
    async with fake_one as fake, made(fake.port, topic="r", version="3.1.1") as it:
        for _ in range(16):  # three endings at each of two, perhaps one more before each, and readings between
            await sent(it, *readings)
        fake.came.clear()
        assert await sent(it, *readings) == Ok()
        assert {one.topic for one in fake.came} <= {"r", "neurogate/site-1/status"}
    told = [one.getMessage() for one in caplog.records if "ends the connection when" in one.getMessage()]
    assert ["anything is told" in one for one in told] == [False, True]


async def test_after_a_break_everything_is_told_again() -> None:
    async with fake_broker() as fake, made(fake.port) as it:
        assert await sent(it, *batch_of("d1", "d2").readings) == Ok()
        for writer in fake.writers:
            writer.close()
        await asyncio.sleep(0)
        told = len(fake.came)
        while await sent(it, pir(motion=True)) != Ok():
            pass
        names = [one.topic.rpartition("/")[2] for one in fake.came[told:]]
        assert names == ["status", *("state", "config") * 3]


async def test_there_is_one_word_of_whether_the_gateway_is_there() -> None:
    with pytest.raises(ValidationError, match="leave out status_topic"):
        made(1883, status_topic="x")
    assert made(1883).config.takes_readings


@pytest.mark.parametrize("topic", ["#", "neurogate/#", "homeassistant/+/+/config"])
def test_what_it_is_told_does_not_come_in_again(topic: str) -> None:
    with pytest.raises(ValidationError, match="would come in again"):
        made(1883, topics=topic)
    made(1883, topics="others/#")


async def test_its_check_says_whether_it_can_hear_it_come(theirs: Mosquitto) -> None:
    it = made(theirs.ports["mqtt"], username="hub", password=PASSWORD)
    assert (await it.check())[-1].words == "It lets us in and hear the topics."
