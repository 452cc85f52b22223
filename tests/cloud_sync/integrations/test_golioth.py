"""Golioth as a strict stand-in has it: what is sent, as whom, how fast, how it is refused, and what that means."""

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

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
from cloud_sync.integrations import golioth
from cloud_sync.integrations.coap import session
from cloud_sync.integrations.golioth import Golioth
from cloud_sync.registry import config_of
from gateway.model.selection import Selection
from gateway.storage.integrations import IntegrationRow
from tests.cloud_sync.dead_letters import letters
from tests.cloud_sync.integrations.clouds import cases
from tests.cloud_sync.integrations.clouds.golioth import (
    BASE,
    MINE,
    PROJECT,
    PSK,
    PSK_ID,
    fake_golioth,
    known,
    made,
    per_device,
)
from tests.cloud_sync.integrations.coap_server import coap_client
from tests.cloud_sync.samples import append_of, batch, batch_of, sent, stored
from tests.cloud_sync.site import Site, running, until


async def test_libcoaps_client_gets_along_with_our_fake() -> None:
    async with fake_golioth() as fake:
        said = await coap_client(fake.port, ".s/position", '[{"t":21.5}]', identity=PSK_ID, key=PSK)
        assert fake.streamed == [(PSK_ID, ".s/position", [{"t": 21.5}])]
        assert "2.04" in said
        fake.refuses.append(("4.29", 7))
        said = await coap_client(fake.port, ".s/position", "[]", identity=PSK_ID, key=PSK)
        assert "4.29" in said
        assert "Max-Age:7" in said
        await coap_client(fake.port, ".s/position", "[]", identity=PSK_ID, key="another key")
        assert (len(fake.streamed), fake.handshakes) == (1, 2)


async def test_a_message_is_an_array_of_readings_below_the_limit_and_their_time_is_where_golioth_looks() -> None:
    async with fake_golioth() as fake, made(fake, path="site/readings") as it:
        given = batch(20)
        assert await sent(it, given) == Ok()
    assert {(who, path) for who, path, _ in fake.streamed} == {(PSK_ID, ".s/site/readings")}
    assert max(map(len, fake.bodies)) <= 1024
    readings = [reading for *_, readings in fake.streamed for reading in readings]
    assert [reading["seq"] for reading in readings] == [*range(1, 21)]
    assert {"t", "ts", "time", "timestamp"} & readings[0].keys() == {"time"}
    assert readings[0]["time"] == "2026-11-20T12:00:00.250Z"
    assert fake.handshakes == 1, "a session is kept"


async def test_what_a_sensor_calls_t_stays_with_it() -> None:
    async with fake_golioth() as fake, made(fake) as it:
        given = Batch("m", [stored(1, {"sensors": {"air": {"t": 21.5, "ts": 1}}})], "site-1", "log-1")
        assert await sent(it, given) == Ok()
    [(*_, [reading])] = fake.streamed
    assert reading["sensors"] == {"air": {"t": 21.5, "ts": 1}}


@pytest.mark.parametrize("exponent", [6, 4])
async def test_a_reading_that_is_larger_goes_out_in_blocks_as_large_as_they_may_be(exponent: int) -> None:
    async with fake_golioth(block_exponent=exponent) as fake, made(fake) as it:
        given = Batch("m", [stored(1, {"sensors": {"camera": {"seen": "x" * 3_000}}}), stored(2)], "site-1", "log-1")
        assert await sent(it, given) == Ok()
    large, small = fake.bodies
    assert len(large) > 3_000
    assert len(small) < 1_024
    assert [reading["seq"] for *_, readings in fake.streamed for reading in readings] == [1, 2]
    assert fake.requests == (5 if exponent == 6 else 11)


@pytest.mark.parametrize("size", [3_000, 300])
async def test_where_the_first_is_too_large_already_it_goes_out_in_the_blocks_that_are_asked_for(size: int) -> None:
    """RFC 7959, 2.9.3."""
    async with fake_golioth(largest_exponent=5) as fake, made(fake) as it:
        given = Batch("m", [stored(1, {"sensors": {"camera": {"seen": "x" * size}}})], "site-1", "log-1")
        assert await sent(it, given) == Ok()
        assert [reading["seq"] for *_, readings in fake.streamed for reading in readings] == [1]
        assert fake.requests == 1 + -(-len(fake.bodies[0]) // 512)


@pytest.mark.parametrize("echoes", [True, False])
async def test_p1_a_block_that_is_taken_by_itself_is_not_all_of_it(*, echoes: bool) -> None:
    """RFC 7959, 2.3: a server may act on each block at once; one that does not know blocks would leave out the rest."""
    async with fake_golioth(answers_blocks="2.04", echoes_blocks=echoes) as fake, made(fake) as it:
        given = Batch("m", [stored(1, {"sensors": {"camera": {"seen": "x" * 3_000}}})], "site-1", "log-1")
        outcome = await sent(it, given)
    if echoes:
        assert (outcome, [len(one) > 3_000 for one in fake.bodies]) == (Ok(), [True])
    else:
        assert isinstance(outcome, NotConnected)
        assert "in blocks" in outcome.reason


async def test_a_device_makes_no_more_than_twenty_requests_a_second() -> None:
    """The stand-in refuses the 21st of a second."""
    async with fake_golioth() as fake, made(fake, rate_limit_per_minute=0) as it:
        assert await sent(it, batch(75)) == Ok()
        assert fake.requests == 25


async def test_each_device_has_its_own_session_and_key() -> None:
    async with fake_golioth(devices=known("d1", "d2")) as fake, made(fake, **per_device("d1", "d2")) as it:
        assert await sent(it, batch_of("d1", "d2", "d1")) == Ok()
        assert it.config.selection.devices == ("d1", "d2")
    assert [(who, [one["seq"] for one in readings]) for who, _, readings in fake.streamed] == [
        (f"d1@{PROJECT}", [1, 3]),
        (f"d2@{PROJECT}", [2]),
    ]


async def test_a_device_of_another_organisation_speaks_for_none_of_the_same_id(site: Site) -> None:
    await append_of(site.log, "d1", "acme/d1", "d1")
    async with (
        fake_golioth(devices=known("d1")) as fake,
        made(fake, site.clock, **per_device("d1"), start="oldest") as it,
        running(site.forwarder(it)) as forwarder,
    ):
        await until(lambda: forwarder._live.position == 3)
    assert [one["seq"] for *_, readings in fake.streamed for one in readings] == [0, 2]


@pytest.mark.parametrize(
    ("code", "max_age", "expected"),
    [
        ("4.01", None, AuthFailed),
        ("4.03", None, AuthFailed),
        ("4.04", None, WrongAddress),
        ("4.05", None, WrongAddress),
        ("4.08", None, NotConnected),
        ("4.13", None, TooLarge),
        ("4.00", None, Rejected),
        ("4.15", None, Rejected),
        ("4.29", 7, RetryAfter),
        ("5.03", 0, RetryAfter),
        ("5.00", None, NotConnected),
        ("5.04", None, NotConnected),
        ("3.01", None, NotConnected),
    ],
)
async def test_a_refusal_is_known_by_its_code(code: str, max_age: int | None, expected: type[Outcome]) -> None:
    async with fake_golioth() as fake, made(fake) as it:
        fake.refuses.append((code, max_age))
        outcome = await sent(it, batch())
        assert type(outcome) is expected
        assert code in getattr(outcome, "reason", "")
        assert PSK not in repr(outcome)
        assert getattr(outcome, "seconds", None) == max_age
        assert await sent(it, batch()) == Ok()


async def test_a_batch_that_was_throttled_goes_on_where_it_was() -> None:
    async with fake_golioth() as fake, made(fake) as it:
        given = batch(9)
        body = it.encode(given)
        fake.throttles_from = 2
        assert isinstance(await it.send(given, body), RetryAfter)
        assert fake.requests == 2
        assert await it.send(given, body) == Ok()
    assert [one["seq"] for *_, readings in fake.streamed for one in readings] == [*range(1, 10)]


async def test_p4_the_engine_delivers_in_order_through_throttling_and_sets_aside_what_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_REFUSED_AFTER_S", 0.0)
    devices = [*["d1", "d2", "d3"] * 4, "d1"]
    await append_of(site.log, *devices)
    keys = per_device("d1", "d2", d2="another key")
    async with fake_golioth(devices=known("d1", "d2")) as fake:
        fake.refuses.append(("4.29", 1))
        settings: dict[str, Any] = {"start": "oldest", "timeout_s": 0.4, "devices": ["*"]}
        async with made(fake, site.clock, **keys, **settings) as it, running(site.forwarder(it)) as forwarder:
            await until(lambda: forwarder._live.position == len(devices))
            refused = await letters(site)
    assert [one["seq"] for who, _, readings in fake.streamed for one in readings] == [0, 3, 6, 9, 12]
    assert refused == [row for row, device in enumerate(devices, 1) if device != "d1"]


async def test_a_check_says_what_works_and_what_does_not() -> None:
    async with fake_golioth(devices=known("d1", "d2")) as fake:
        async with made(fake, **per_device("d1", "d2", d2="another key"), timeout_s=0.4) as it:
            fine, broken = await it.check()
        assert (fine.level, broken.level) == ("ok", "broken")
        assert "d1" in fine.words
        assert "d2" in broken.words
        assert fake.requests == 0
    async with fake_golioth(is_deaf=True) as fake, made(fake, timeout_s=0.3) as it:
        (silent,) = await it.check()
        assert "does not answer" in silent.words
        assert "UDP" in silent.hint


@pytest.mark.parametrize(
    ("status", "level", "words"),
    [(200, "ok", "takes the API key"), (401, "broken", "does not take the API key"), (404, "warning", "unexpected")],
)
async def test_a_check_asks_the_management_api_as_well(status: int, level: str, words: str) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers["x-api-key"]))
        return web.json_response({"code": 5, "message": f"no {request.headers['x-api-key']}"}, status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with fake_golioth() as fake, TestServer(app) as server:
        api: dict[str, Any] = {
            "api_key": "planted-api-key",
            "project_id": PROJECT,
            "base_url": str(server.make_url("/v1")),
        }
        async with made(fake, **api) as it:
            handshake, found = await it.check()
    assert (handshake.level, found.level) == ("ok", level)
    assert words in found.words
    assert "planted" not in repr(found)
    assert asked == [(f"/v1/projects/{PROJECT}", "planted-api-key")]


async def test_a_new_key_takes_over_a_batch_that_waits_for_it(site: Site) -> None:
    await append_of(site.log, *["d1"] * 5)
    async with fake_golioth(devices={PSK_ID: "the new key"}) as fake:
        async with made(fake, site.clock, start="oldest", timeout_s=0.3) as it:
            async with running(site.forwarder(it)) as forwarder:
                await until(lambda: forwarder._standing.failures > 0)
            first = (await forwarder.status()).last_error
        it = made(fake, site.clock, start="oldest", psk="the new key")
        async with it, running(site.forwarder(it)) as forwarder:
            await until(lambda: forwarder._live.position == 5)
    assert "psk_id or psk" in first
    assert [one["seq"] for *_, readings in fake.streamed for one in readings] == [0, 1, 2, 3, 4]


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    config = made().config
    assert Golioth.lacks(config) == ""
    monkeypatch.setattr(golioth, "NOT_INSTALLED", "pyOpenSSL is not installed")
    assert "pip install 'neurogate[golioth]'" in Golioth.lacks(config)
    assert Golioth.lacks(Golioth.Config.model_validate(BASE | {"webhook_secret": "a secret for them"})) == ""
    (finding,) = await made().check()
    assert (finding.level, "neurogate[golioth]" in finding.hint) == ("broken", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"psk_id": PSK_ID}, "both or neither"),
        ({}, "nothing is said of how to send"),
        (MINE | {"mode": "per_device"}, "leave out psk_id"),
        (per_device("d1") | {"mode": "gateway"}, "are for mode"),
        (per_device("d1") | {"organizations": ()}, "each organisation names its devices"),
        (per_device("d1") | {"organizations": ("a", "b")}, "each organisation names its devices"),
        (MINE | {"project_id": "another"}, "another"),
        (MINE | {"psk": "x" * 200}, "1 to 128"),
        (MINE | {"path": "/a"}, "path"),
        (MINE | {"webhook_secret": "short"}, "16 to 255"),
        (
            MINE | {"webhook_secret": "a secret for them", "organizations": ["acme", "default"]},
            "what comes by webhook_secret belongs to one organisation",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    cases.refused(lambda: Golioth.Config.model_validate(BASE | settings), words, PSK)


def test_an_organisation_need_not_say_that_the_keys_are_its_own() -> None:
    keys = per_device("d1")["device_keys"]
    config = config_of(IntegrationRow("4711", "acme", "golioth", "x", {"mode": "per_device"}), {"device_keys": keys})
    assert config.selection == Selection(("d1",), frozenset({"acme"}))


@pytest.mark.parametrize(
    "settings", [{"webhook_secret": "a secret for the way in"}, {"api_key": "k", "project_id": "p"}]
)
def test_one_that_only_hears_takes_no_readings(settings: dict[str, Any]) -> None:
    assert not Golioth.Config.model_validate(BASE | settings).takes_readings
    assert Golioth.Config.model_validate(BASE | MINE | settings | {"project_id": PROJECT}).takes_readings


def test_the_devices_keys_are_secret() -> None:
    config = Golioth.Config.model_validate(BASE | per_device("d1"))
    assert PSK not in repr(config) + config.model_dump_json()
    assert json.loads(config.model_dump_json())["device_keys"]["d1"]["psk_id"] == f"d1@{PROJECT}"
