"""`/ws`: readings out as they are committed, readings in, and nobody is slowed by who watches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.live_feed import Follower, Wanted
from gateway.model.roles import Role
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device, list_devices, revoke_device
from gateway.operations.organizations import add_organization, remove_organization
from gateway.operations.tokens import create_token, revoke_token
from tests.ports import free_port
from tests.site import PATIENCE_S, Site, reading, running_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, http={"rate_limit_per_minute": 0}) as site:
        yield site


@dataclass
class Watcher:
    """A client."""

    socket: aiohttp.ClientWebSocketResponse

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def hear(self) -> Any:
        return json.loads(await self.socket.receive_str(timeout=PATIENCE_S))

    async def ask(self, **message: Any) -> Any:
        await self.say(**message)
        return await self.hear()

    async def is_closed(self) -> int:
        message = await self.socket.receive(timeout=PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.CLOSE
        return int(message.data)


@asynccontextmanager
async def watching(site: Site, secret: str = "", *, port: int = 0, query: str = "") -> AsyncIterator[Watcher]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    url = f"http://127.0.0.1:{port or site.http_port}/ws{query}"
    async with site.http.ws_connect(url, headers=headers) as socket:
        yield Watcher(socket)


async def token(site: Site, role: Role = "member", organization_id: str = "default") -> str:
    new = await site.command(create_token, name=f"{role}-{organization_id}", organization_id=organization_id, role=role)
    return new.token


async def store(site: Site, *bodies: bytes, password: str = "") -> None:
    headers = {"x-api-key": password or site.kitchen.password, "content-type": "application/json"}
    for body in bodies:
        async with site.http.post(site.url("/api/v1/sensor-data"), data=body, headers=headers) as answer:
            assert answer.status in {202, 207}


async def test_readings_come_as_they_are_committed(site: Site) -> None:
    async with watching(site, await token(site)) as watcher:
        assert await watcher.ask(type="subscribe") == {
            "type": "subscribed",
            "filters": {"device_ids": [], "sensors": []},
        }
        await store(site, reading(boot_id="b", seq=1), reading(boot_id="b", seq=2))
        heard = [await watcher.hear() for _ in range(2)]
        assert [one["type"] for one in heard] == ["sensor-data"] * 2
        assert [one["data"]["seq"] for one in heard] == [1, 2]
        assert heard[0]["data"]["device_id"] == "kitchen"
        assert {"received_at", "device_metadata", "sensors"} <= heard[0]["data"].keys()


async def test_filters_choose_devices_and_sensors_and_may_change(site: Site) -> None:
    hall = await site.command(add_device, organization_id="default", device_id="hall", metadata={})
    gas = reading("hall", sensors={"mq134": {"gas_concentration": 1.5}})
    async with watching(site, await token(site)) as watcher:
        await watcher.ask(type="subscribe", filters={"device_ids": ["hall"]})
        await store(site, reading())
        await store(site, reading("hall"), password=hall.password)
        assert (await watcher.hear())["data"]["device_id"] == "hall"
        await watcher.ask(type="subscribe", filters={"sensors": ["mq134"]})
        await store(site, reading("hall"), gas, password=hall.password)
        assert "mq134" in (await watcher.hear())["data"]["sensors"]
        assert await watcher.ask(type="unsubscribe") == {"type": "unsubscribed"}
        await store(site, gas, password=hall.password)
        assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"


async def test_who_cannot_send_headers_logs_in_by_the_first_message(site: Site) -> None:
    async with watching(site) as watcher:
        answer = await watcher.ask(type="auth", token=await token(site))
        assert answer == {"type": "authenticated", "organization_id": "default"}
        assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"


@pytest.mark.parametrize("first", [{"type": "auth", "token": "wrong"}, {"type": "subscribe"}])
async def test_who_does_not_log_in_is_closed(site: Site, first: dict[str, str]) -> None:
    async with watching(site) as watcher:
        answer = await watcher.ask(**first)
        assert (answer["type"], answer["error"]["code"]) == ("error", "unauthorized")
        assert await watcher.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with watching(site, "wrong"):
            pass
    assert refused.value.status == 401


async def test_who_says_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.live._AUTH_S", 0.05)
    async with watching(site) as watcher:
        assert (await watcher.hear())["error"]["code"] == "unauthorized"
        assert await watcher.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize("broken", ["gateway.callers.Callers.authenticate", "gateway.live_feed.Follower.next"])
async def test_a_fault_of_ours_closes_as_the_protocol_has_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("by a test")

    async with watching(site) as watcher:
        secret = await token(site)
        monkeypatch.setattr(broken, fail)
        await watcher.say(type="auth", token=secret)
        if broken.endswith("next"):
            assert (await watcher.hear())["type"] == "authenticated"
            assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"
        assert await watcher.is_closed() == aiohttp.WSCloseCode.INTERNAL_ERROR
    (logged,) = [one for one in caplog.records if one.name == "gateway.web.live"]
    assert logged.exc_info is not None
    assert secret not in caplog.text


async def test_p9_strangers_take_no_place_from_who_has_a_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.live._STRANGERS_AT_MOST", 1)
    async with watching(site) as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with watching(site):
                pass
        async with watching(site, await token(site)) as watcher:
            assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"
        assert (await stranger.ask(type="subscribe"))["error"]["code"] == "unauthorized"


async def test_p9_one_token_takes_no_place_from_the_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.live._SOCKETS_OF_ONE", 2)
    greedy = await token(site)
    async with watching(site, greedy), watching(site) as second:
        await second.ask(type="auth", token=greedy)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with watching(site, greedy):
                pass
        assert refused.value.status == 429
        async with watching(site) as third:
            assert (await third.ask(type="auth", token=greedy))["error"]["code"] == "too_many_sockets"
            assert await third.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert await site.metric('neurogate_front_door_refused_total{reason="too_many_live_of_one"}') == 2
        async with watching(site, await token(site, "owner")) as other:
            assert (await other.ask(type="subscribe"))["type"] == "subscribed"
    async with watching(site, greedy) as again:
        assert (await again.ask(type="subscribe"))["type"] == "subscribed"


async def test_p9_who_logs_in_by_a_message_takes_no_place_that_is_not_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.live._SOCKETS_AT_MOST", 1)
    async with watching(site, await token(site)), watching(site) as late:
        answer = await late.ask(type="auth", token=await token(site, "owner"))
        assert answer["error"]["code"] == "service_unavailable"
        assert await late.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_document_without_a_reading_is_told_so(site: Site) -> None:
    async with watching(site, site.kitchen.password) as board:
        answer = await board.ask(type="reading", data={"readings": []}, ref=1)
        assert (answer["ref"], answer["error"]["code"]) == (1, "no_readings")


async def test_p1_a_reading_is_acknowledged_when_it_is_on_disk(site: Site) -> None:
    async with watching(site, site.kitchen.password) as board:
        data = json.loads(reading(boot_id="b", seq=1))
        assert await board.ask(type="reading", data=data, ref="x") == {"type": "ack", "ref": "x"}
        ((count,),) = await site.log.fetch("SELECT count(*) FROM device_telemetry_history")
        assert count == 1
        answer = await board.ask(type="reading", data={"device_id": "kitchen"}, ref=7)
        assert (answer["ref"], answer["error"]["code"]) == (7, "invalid_reading")
        assert len(await site.quarantined()) == 1
        foreign = await board.ask(type="reading", data=json.loads(reading("hall")), ref="y")
        assert foreign["error"]["code"] == "foreign_device"


async def test_both_directions_share_a_socket(site: Site) -> None:
    async with watching(site, site.kitchen.password) as board:
        await board.ask(type="subscribe")
        await board.say(type="reading", data=json.loads(reading()), ref=1)
        heard = {one["type"] for one in (await board.hear(), await board.hear())}
        assert heard == {"ack", "sensor-data"}


async def test_a_hub_sends_for_its_devices(site: Site) -> None:
    hub = await site.command(add_credential, name="hub", organization_id="default")
    async with watching(site, hub.password) as board:
        for device_id in ("one", "two"):
            answer = await board.ask(type="reading", data=json.loads(reading(device_id)), ref=device_id)
            assert answer == {"type": "ack", "ref": device_id}
        answer = await board.ask(type="reading", data={"sensors": {}}, ref=1)
        assert answer["error"]["code"] == "invalid_device_id"
    assert [one.device_id for one in await site.stored(2)] == ["one", "two"]


@pytest.mark.parametrize("device_id", ["a/b", "x/telemetry/../y", "", "+", "a b", 7, None])
async def test_p8_what_cannot_be_a_devices_id_registers_none(site: Site, device_id: object) -> None:
    async with watching(site, await token(site, "device")) as hub:
        answer = await hub.ask(type="reading", data=json.loads(reading()) | {"device_id": device_id}, ref=1)
        assert answer["error"]["code"] == "invalid_device_id"
    assert [one.device_id for one in await site.command(list_devices)] == ["kitchen"]
    assert [(one.device_id, one.code) for one in await site.quarantined()] == [("", "invalid_device_id")]


@pytest.mark.parametrize(
    ("role", "watches", "sends"),
    [("owner", "subscribed", "ack"), ("member", "subscribed", "error"), ("device", "error", "ack")],
)
async def test_what_each_role_may(site: Site, role: Role, watches: str, sends: str) -> None:
    async with watching(site, await token(site, role)) as watcher:
        assert (await watcher.ask(type="reading", data=json.loads(reading()), ref=1))["type"] == sends
        assert (await watcher.ask(type="subscribe"))["type"] == watches


async def test_p8_nobody_sees_what_is_not_theirs(site: Site) -> None:
    theirs = await site.command(add_device, organization_id="acme", device_id="kitchen", metadata={})
    async with (
        watching(site, await token(site)) as watcher,
        watching(site, theirs.password) as board,
    ):
        await watcher.ask(type="subscribe")
        await board.ask(type="subscribe")
        refused = await board.ask(type="subscribe", filters={"device_ids": ["hall"]})
        assert refused["error"]["code"] == "forbidden"
        await board.ask(type="subscribe")
        await store(site, reading(), password=theirs.password)
        assert (await board.hear())["data"]["organization_id"] == "acme"
        await store(site, reading())
        assert (await watcher.hear())["data"]["organization_id"] == "default"


async def test_who_loses_access_is_closed(site: Site) -> None:
    async with (
        watching(site, await token(site)) as watcher,
        watching(site, site.kitchen.password) as board,
        watching(site, await token(site, "owner")) as other,
    ):
        for one in (watcher, board, other):
            await one.ask(type="subscribe")
        await site.command(revoke_token, name="member-default")
        assert await watcher.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        await site.command(revoke_device, organization_id="default", device_id="kitchen")
        assert await board.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert (await other.ask(type="unsubscribe"))["type"] == "unsubscribed"


async def test_who_watches_an_organisation_that_is_removed_is_closed(site: Site) -> None:
    for organization_id in ("beta", "gamma"):
        await site.command(add_organization, organization_id=organization_id)
    new = await site.command(create_token, name="all", organization_id=None, role="owner")
    async with (
        watching(site, new.token, query="?organization_id=gamma") as gone,
        watching(site, new.token, query="?organization_id=beta") as there,
    ):
        for one in (gone, there):
            assert (await one.ask(type="subscribe"))["type"] == "subscribed"
        await site.command(remove_organization, organization_id="gamma")
        assert await gone.is_closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert (await there.ask(type="unsubscribe"))["type"] == "unsubscribed"


@pytest.mark.parametrize(
    ("message", "ref"), [({"type": "reading", "ref": 7}, 7), ({"type": "reading", "data": 5, "ref": "x"}, "x")]
)
async def test_who_sends_what_cannot_be_understood_is_told_which_it_was(
    site: Site, message: dict[str, Any], ref: str | int
) -> None:
    async with watching(site, site.kitchen.password) as board:
        answer = await board.ask(**message)
        assert (answer["error"]["code"], answer["ref"]) == ("invalid_message", ref)


async def test_who_logs_in_twice_is_told_so(site: Site) -> None:
    async with watching(site, site.kitchen.password) as board:
        assert (await board.ask(type="auth", token=site.kitchen.password))["error"]["code"] == "already_logged_in"
        assert (await board.ask(type="subscribe"))["type"] == "subscribed"


@pytest.mark.parametrize("message", ["nonsense", "[]", '{"type":"dance"}', '{"type":"reading","ref":1}'])
async def test_what_cannot_be_understood_is_said_and_ends_nothing(site: Site, message: str) -> None:
    async with watching(site, await token(site)) as watcher:
        await watcher.socket.send_str(message)
        assert (await watcher.hear())["error"]["code"] == "invalid_message"
        await watcher.socket.send_bytes(b"{}")
        assert (await watcher.hear())["error"]["code"] == "not_text"
        assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"


async def test_p9_who_sends_too_often_is_told_so(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, http={"rate_limit_burst": 2}) as site,
        watching(site, site.kitchen.password) as board,
    ):
        answers = [await board.ask(type="reading", data=json.loads(reading()), ref=number) for number in range(3)]
        assert [one["type"] for one in answers] == ["ack", "ack", "error"]
        assert answers[2]["error"]["code"] == "rate_limited"


async def test_p9_a_client_that_reads_nothing_costs_nobody_anything_and_is_told(site: Site) -> None:
    secret = await token(site)
    async with watching(site, secret) as slow, watching(site, secret) as quick:
        await slow.ask(type="subscribe")
        await quick.ask(type="subscribe")
        slow_transport: asyncio.Transport = slow.socket._response.connection.transport  # type: ignore[union-attr,assignment]
        slow_transport.pause_reading()
        note = "x" * 20_000
        heard = 0
        for first in range(0, 800, 40):
            many = [json.loads(reading(boot_id="b", seq=seq, note=note)) for seq in range(first, first + 40)]
            await store(site, json.dumps({"readings": many}).encode())
            while heard < first + 40:
                assert (await quick.hear())["type"] == "sensor-data"
                heard += 1
        slow_transport.resume_reading()
        got = missed = 0
        while got + missed < 800:
            one = await slow.hear()
            got += one["type"] == "sensor-data"
            missed += one.get("count", 0)
            if not missed and got == 799:
                break
        assert missed > 0
        assert got + missed == 800
        name = 'neurogate_events_dropped_total{destination="live",reason="slow_follower"}'
        assert await site.metric(name) == missed


async def test_a_feed_that_is_far_behind_skips_and_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.live_feed._FAR_BEHIND_ROWS", 50)
    monkeypatch.setattr("gateway.live_feed._PAGE_READINGS", 10)
    async with watching(site, await token(site)) as watcher:
        await watcher.ask(type="subscribe")
        await asyncio.sleep(0.05)
        many = [json.loads(reading(boot_id="b", seq=seq)) for seq in range(100)]
        await store(site, json.dumps({"readings": many}).encode())
        first = await watcher.hear()
        assert first == {"type": "missed", "count": 90}
        assert [(await watcher.hear())["data"]["seq"] for _ in range(10)] == list(range(90, 100))


async def test_it_has_a_port_of_its_own_and_so_have_the_metrics(tmp_path: Path) -> None:
    ws, metrics = free_port(), free_port()
    async with running_site(tmp_path, http={"websocket_port": ws, "metrics_port": metrics}) as site:
        async with watching(site, await token(site), port=ws) as watcher:
            assert (await watcher.ask(type="subscribe"))["type"] == "subscribed"
        async with site.http.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
            assert "sensor_data_ingested_total" in await answer.text()
        async with site.http.get(f"http://127.0.0.1:{ws}/metrics") as answer:
            assert answer.status == 404


async def test_a_stop_ends_every_socket(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site, watching(site, await token(site)) as watcher:
        await watcher.ask(type="subscribe")
        await site.gateway._running.listeners.aclose()
        assert await watcher.is_closed() == aiohttp.WSCloseCode.GOING_AWAY


async def test_what_waits_for_a_follower_is_bounded() -> None:
    follower = Follower(Wanted("default"))
    taken = sum(follower.put(b"x" * 10_000) for _ in range(200))
    assert taken == 100
    assert (await follower.next())[0] == 100
    assert (await follower.next())[0] == 0


async def test_a_request_that_is_no_websocket_is_told_so(site: Site) -> None:
    async with site.http.get(site.url("/ws")) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "not_a_websocket"
