"""Azure IoT Hub as Microsoft's own clients know it: what is sent, as whom, how it is refused, and what that means."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import ClientSession, web
from yarl import URL

from cloud_sync.contract import (
    AuthFailed,
    Batch,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from gateway.model.reading import rfc3339, wire_reading
from tests.cloud_sync.dead_letters import letters
from tests.cloud_sync.integrations.clouds import azure, cases
from tests.cloud_sync.integrations.clouds.azure import DEVICE, DEVICE_KEY, HUB, POLICY, POLICY_KEY, fake_hub, made
from tests.cloud_sync.samples import NOW_MS, append_of, batch, batch_of, sent, stored
from tests.cloud_sync.site import Site, running, until

RECORDED = json.loads(Path(azure.__file__).with_name("azure_recorded.json").read_text())


async def test_what_microsofts_client_has_sent_is_understood_by_our_fake() -> None:
    async with fake_hub() as fake, ClientSession() as session:
        expires_s = int(dict(parse_qsl(RECORDED["headers"]["authorization"]))["se"])
        url = URL(f"{fake.endpoint.rstrip('/')}{RECORDED['path']}", encoded=True)
        for now_s, status in ((expires_s - 5, 204), (expires_s, 401)):
            fake.now_s = now_s
            async with session.post(url, data=RECORDED["body"].encode(), headers=RECORDED["headers"]) as answer:
                assert answer.status == status
    [(device, messages)] = fake.received
    assert device == "d1"
    assert [message["body"].decode() for message in messages] == ['{"t":21.5}', '{"t":"ü"}']


async def test_ours_is_like_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_hub() as fake, made(fake, connection_string=DEVICE) as it:
        seen: list[web.Request] = []
        real = fake._events

        def events(request: web.Request, device: str, body: bytes) -> web.Response:
            seen.append(request)
            return real(request, device, body)

        monkeypatch.setattr(fake, "_events", events)
        assert await sent(it, batch(2)) == Ok()
    [ours] = seen
    assert (ours.method, ours.raw_path) == (RECORDED["method"], RECORDED["path"])
    for name in ("content-type", "iothub-to"):
        assert ours.headers[name] == RECORDED["headers"][name]
    theirs = json.loads(RECORDED["body"])[0]
    assert set(theirs) <= set(json.loads(fake.bodies[0])[0])
    assert set(theirs["properties"]) <= set(json.loads(fake.bodies[0])[0]["properties"])


async def test_each_device_sends_its_own_readings_and_one_token_is_for_all() -> None:
    given = batch_of("d1", "d2", "d1")
    async with fake_hub() as fake, made(fake) as it:
        assert await sent(it, given) == Ok()
    assert [device for device, _ in fake.received] == ["d1", "d2"]
    message = fake.received[0][1][1]
    wire = wire_reading(given.readings[2], gateway_id="site-1", log_uuid="log-1")
    assert json.loads(message["body"]) == wire
    assert message["properties"] == {
        "iothub-contenttype": "application/json",
        "iothub-contentencoding": "utf-8",
        "iothub-app-iothub-creation-time-utc": rfc3339(NOW_MS),
        "iothub-messageid": wire["id"],
    }
    assert len(set(fake.tokens)) == 1
    assert fake.tokens[0].startswith(f"SharedAccessSignature sr={HUB}%2Fdevices&")


async def test_with_a_devices_string_the_gateway_is_that_device() -> None:
    async with fake_hub() as fake, made(fake, connection_string=DEVICE) as it:
        assert await sent(it, batch_of("other", "d2")) == Ok()
    [(device, messages)] = fake.received
    assert device == "d1"
    assert [json.loads(message["body"])["device_id"] for message in messages] == ["other", "d2"]


async def test_no_request_is_larger_than_the_limit() -> None:
    async with fake_hub() as fake, made(fake) as it:
        assert await sent(it, batch(700)) == Ok()
    sizes = [len(body) for body in fake.bodies]
    assert len(sizes) == 2
    assert 260_000 < max(sizes) <= 261_119
    assert [json.loads(one["body"])["seq"] for _, all_ in fake.received for one in all_] == list(range(1, 701))


async def test_a_reading_that_is_too_large_is_not_sent() -> None:
    large = [stored(1, {"sensors": {}, "note": "x" * 200_000}, "d1")]
    async with fake_hub() as fake, made(fake) as it:
        assert isinstance(await sent(it, Batch("msg_1", large, "site-1", "log-1")), TooLarge)
    assert fake.requests == []


async def test_a_token_is_used_for_50_minutes_and_none_is_used_that_has_expired() -> None:
    await cases.a_token_is_used_for_50_minutes_and_none_that_has_expired(fake_hub, made)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, "ThrottlingException", RetryAfter),
        (429, "", RetryAfter),
        (403, "IotHubQuotaExceeded", RetryAfter),
        (503, "ServerBusy", RetryAfter),
        (500, "ServerError", NotConnected),
        (400, "ArgumentInvalid", Rejected),
        (413, "MessageTooLarge", TooLarge),
        (401, "IotHubUnauthorizedAccess", AuthFailed),
        (403, "InvalidOperation", AuthFailed),
        (404, "", WrongAddress),
    ],
)
async def test_a_refusal_is_known_by_its_code(status: int, code: str, expected: type[Outcome]) -> None:
    await cases.a_refusal_is_known(fake_hub, made, (status, code, "too bad"), expected)


async def test_a_device_that_is_not_registered_holds_up_no_other() -> None:
    async with fake_hub() as fake, made(fake) as it:
        alone = await sent(it, batch_of("unknown"))
        assert isinstance(alone, Rejected)
        assert not alone.is_certain  # perhaps nobody is registered, and the fault is in the settings
        outcome = await sent(it, batch_of("d1", "unknown", "d2", "unknown"))
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [2, 4]
        assert "the device unknown is not registered in the hub" in outcome.reason
        assert [device for device, _ in fake.received] == ["d1", "d2"]
        alone = await sent(it, batch_of("unknown", first_row=2))
        assert isinstance(alone, Rejected)
        assert alone.is_certain


async def test_the_device_of_the_settings_is_a_matter_of_the_settings() -> None:
    async with fake_hub() as fake, made(fake, connection_string=DEVICE) as it:
        fake.devices.clear()
        assert isinstance(await sent(it, batch(1)), WrongAddress)
        assert (await it.check())[-1].words.startswith("The hub knows no device d1")


async def test_a_wrong_clock_is_told_as_such() -> None:
    await cases.a_wrong_clock_is_told(fake_hub, made, -7_200, "7,200 s behind")


@pytest.mark.parametrize("connection_string", [POLICY, DEVICE])
async def test_a_check_says_that_we_are_accepted_and_takes_nothing(connection_string: str) -> None:
    async with fake_hub() as fake, made(fake, connection_string=connection_string) as it:
        fake.waiting = ["lock-1"]
        assert [one.level for one in await it.check()] == ["ok", "warning", "ok"]  # it is http here
    assert fake.waiting == ["lock-1"]
    assert fake.received == []


async def test_a_check_says_what_is_wrong() -> None:
    async with fake_hub() as fake:
        fake.keys = {"iothubowner": POLICY_KEY}
        async with made(fake) as it:
            found = (await it.check())[-1]
            assert (found.level, "DeviceConnect" in found.hint) == ("broken", True)
            assert POLICY_KEY not in repr(found)
        async with made(fake, connection_string=POLICY.replace("=device;", "=iothubowner;")) as it:
            assert any("may do everything" in one.words for one in await it.check())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"connection_string": ""}, "HostName="),
        ({"connection_string": "HostName=h;SharedAccessKey=QUJD"}, "HostName="),
        ({"connection_string": f"{DEVICE};SharedAccessKeyName=device"}, "HostName="),
        ({"connection_string": f"{DEVICE};ModuleId=m"}, "other parts"),
        ({"connection_string": f"HostName={HUB};DeviceId=d1;SharedAccessKey=secret key"}, "not base64"),
        ({"hub_name": "another"}, "hub_name is another"),
        ({"endpoint": "https://x.example.com/path"}, "nothing behind it"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    cases.refused(lambda: made(None, **settings), words, "secret key", DEVICE_KEY)


@pytest.mark.parametrize("hub_name", ["hub", "HUB", HUB])
def test_the_name_of_the_hub_may_be_said_besides(hub_name: str) -> None:
    assert made(None, hub_name=hub_name).config


def test_no_key_is_shown() -> None:
    it = made(None)
    assert POLICY_KEY not in repr(it.config) + repr(it._identity)


async def test_p4_the_engine_delivers_what_it_may_in_order_and_sets_the_rest_aside(site: Site) -> None:
    """A talkative device that nobody has registered stops none of the others, and nothing is lost or repeated."""
    devices = ["d1", *["unknown"] * 15, "d2", *["unknown"] * 15, "d1", "unknown"]
    await append_of(site.log, *devices)
    async with fake_hub() as fake:
        fake.refuses = [(429, "ThrottlingException", "slow down")]
        it = made(fake, clock=site.clock, start="oldest", rate_limit_per_minute=0)
        async with running(site.forwarder(it)) as forwarder:
            await until(lambda: forwarder._live.position == len(devices))
            refused = await letters(site)
            assert (await forwarder.status()).delivery == "ok"
    assert [(device, [json.loads(one["body"])["seq"] for one in all_]) for device, all_ in fake.received] == [
        ("d1", [0, 32]),
        ("d2", [16]),
    ]
    assert refused == [row for row, device in enumerate(devices, 1) if device == "unknown"]
