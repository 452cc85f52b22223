"""Integrations that organisations manage: a change takes effect at once, and touches only what it changed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cloud_sync.integrations.webhook import Webhook
from gateway import integrations
from gateway.config.masking import MASK
from gateway.integrations import RunningIntegrations
from gateway.model.errors import AlreadyExists, BadInput, Conflict, NotFound
from gateway.model.finding import Finding
from gateway.operations.buffer import buffer_status
from gateway.operations.integration_trials import try_settings
from gateway.operations.integrations import (
    IntegrationFields,
    IntegrationView,
    add_integration,
    change_integration,
    integration_schemas,
    list_integrations,
    remove_integration,
    show_integration,
    try_integration,
)
from gateway.running_integration import Running
from gateway.storage.commit_thread import CommitThread
from gateway.storage.integrations import Integrations
from gateway.storage.state import State
from gateway.wanted_integrations import Wanted
from tests.cloud_sync.integrations.mqtt_client.fake_broker import fake_broker
from tests.site import PATIENCE_S, FailingDisk, Site, reading, running_site, until

SECRET = "planted-kitchen-table-4711"
INACTIVE = IntegrationFields(status="inactive")
ACTIVE = IntegrationFields(status="active")


class Receiver:
    """Addresses that are told apart by their name, and what came to them."""

    def __init__(self) -> None:
        self.came: dict[str, list[str]] = {}
        self.ids: list[tuple[str, str]] = []
        self.status = 200
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        name, ids = request.match_info["name"], [one["device_id"] for one in (await request.json())["readings"]]
        self.ids.append((name, request.headers["webhook-id"]))
        await self.open.wait()
        if self.status == 200:
            self.came.setdefault(name, []).extend(ids)
        return web.Response(status=self.status)

    def got(self, name: str) -> list[str]:
        return self.came.get(name, [])


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{name}", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/"))
        yield receiver
        receiver.open.set()


@asynccontextmanager
async def site(folder: Path, receiver: Receiver, *, first: Site | None = None) -> AsyncIterator[Site]:
    """A gateway with one destination in its file."""
    table = {"type": "webhook", "name": "file", "url": f"{receiver.url}file", "rate_limit_per_minute": 0}
    kitchen = None if first is None else first.kitchen
    async with running_site(folder, integrations=[table], kitchen=kitchen) as running:
        yield running


async def send(site: Site, device_id: str = "kitchen", password: str = "") -> None:
    headers = {"x-api-key": password or site.kitchen.password, "content-type": "application/json"}
    async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(device_id), headers=headers) as answer:
        assert answer.status == 202


async def add(site: Site, receiver: Receiver, path: str, organization: str = "default", **more: Any) -> IntegrationView:
    settings: dict[str, Any] = {"url": f"{receiver.url}{path}", "rate_limit_per_minute": 0}
    return await site.command(
        add_integration,
        organization_id=organization,
        integration_type="webhook",
        name=f"To {path[:5]}",
        settings=settings | more,
    )


async def change(site: Site, one: IntegrationView, **what: Any) -> IntegrationView:
    return await site.command(change_integration, integration_id=one.id, **what)


def all_running(site: Site) -> RunningIntegrations:
    return site.gateway._running.integrations


def running(site: Site, one: IntegrationView | str) -> Running:
    wanted = one if isinstance(one, str) else one.id
    return next(found for found in all_running(site).running() if found.id == wanted)


async def cursors(site: Site) -> set[str]:
    return {cursor.name for cursor in await site.log.cursors()}


async def metrics(site: Site) -> str:
    async with site.http.get(site.url("/metrics")) as answer:
        return await answer.text()


async def test_one_that_is_added_begins_at_once_with_its_organisations_readings_only(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with site(tmp_path, receiver) as here:
        attic = await here.gateway.add_device("attic", organization_id="acme")
        await send(here)
        new = await add(here, receiver, "acme", "acme")
        assert (new.origin, new.status, new.organization_id) == ("api", "active", "acme")
        await send(here)
        await send(here, "attic", attic.password)
        await until(lambda: receiver.got("acme") == ["attic"], "the delivery")
        await until(lambda: receiver.got("file") == ["kitchen", "kitchen", "attic"], "the other's")
        labels = f'{{integration="{new.id}",name="To acme",organization="acme",type="webhook"}}'
        assert await here.metric(f"neurogate_integration_info{labels}") == 1
        (place,) = [one for one in (await here.command(buffer_status)).destinations if one.name == new.id]
        assert (place.label, place.state) == ("To acme", "idle")
    async with site(tmp_path, receiver, first=here) as again:
        await send(again, "attic", attic.password)
        await until(lambda: receiver.got("acme") == ["attic", "attic"], "the delivery after a restart")


async def test_its_settings_cannot_give_it_the_readings_of_others(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        with pytest.raises(BadInput, match="organizations is no setting"):
            await add(here, receiver, "acme", "acme", organizations=["default"])
        new = await add(here, receiver, "acme", "acme")
        async with State.open(
            here.state_db, b"k" * 32, clock=here.clock
        ) as state:  # as if somebody had got around that
            await Integrations(state).change(
                new.id, lambda row, _: (replace(row, settings={**row.settings, "organizations": []}), None)
            )
        await all_running(here).apply()
        assert "organizations is no setting" in (await here.command(show_integration, integration_id=new.id)).error
        await send(here)
        await until(lambda: receiver.got("file") == ["kitchen"], "the other's delivery")
        assert receiver.got("acme") == []


async def test_a_change_restarts_that_one_alone_and_its_batch_under_way_stays_the_same(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with site(tmp_path, receiver) as here:
        one, other = await add(here, receiver, "one"), await add(here, receiver, "other")
        before = {found.id: found for found in all_running(here).running()}
        receiver.open.clear()
        await send(here)
        await until(lambda: len(receiver.ids) == 3, "three batches under way")
        receiver.status = 503
        changed = await change(here, one, settings={"timeout_s": 5}, name="Renamed")
        receiver.open.set()
        receiver.status = 200
        await until(
            lambda: receiver.got("one") == receiver.got("other") == ["kitchen"], "the deliveries", patience_s=15
        )
        assert changed.settings["timeout_s"] == 5
        assert len({batch for name, batch in receiver.ids if name == "one"}) == 1
        after = {found.id: found for found in all_running(here).running()}
        assert {name for name in after if after[name] is not before[name]} == {one.id}
        task = before[one.id].task
        assert task is not None
        assert task.cancelled()
        renamed = await change(here, other, name="Other")
        assert after[other.id].name == renamed.name == "Other"
        await send(here)
        await until(lambda: receiver.got("one") == receiver.got("other") == ["kitchen"] * 2, "later deliveries")
        assert f'integration="{other.id}",name="Other"' in await metrics(here)
        assert "To other" not in await metrics(here)


async def test_an_inactive_one_gives_up_its_place(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        assert (await change(here, one, fields=INACTIVE)).status == "inactive"
        assert one.id not in await cursors(here)
        assert f'destination="{one.id}"' not in await metrics(here)
        await send(here, "kitchen")
        assert (await change(here, one, fields=ACTIVE)).status == "active"
        await send(here)
        await until(lambda: receiver.got("one") == ["kitchen"], "what came since")
        await until(lambda: len(receiver.got("file")) == 2, "the other's deliveries")
        await change(here, one, fields=INACTIVE)
    async with site(tmp_path, receiver, first=here) as again:
        assert one.id not in await cursors(again)


async def test_one_that_is_to_forward_nothing_takes_no_place(tmp_path: Path, receiver: Receiver) -> None:
    async with fake_broker(level=4) as broker, site(tmp_path, receiver) as here:
        new = await here.command(
            add_integration,
            organization_id="default",
            integration_type="mqtt",
            name="Broker",
            settings={"broker_url": "127.0.0.1", "port": broker.port},
        )
        assert new.id not in await cursors(here)
        await change(here, new, settings={"topic": "readings/{device_id}"})
        assert new.id in await cursors(here)
        await send(here)
        await until(lambda: [one.topic for one in broker.came] == ["readings/kitchen"], "the reading")
        await change(here, new, settings={"topic": None})
        assert new.id not in await cursors(here)


async def test_one_that_was_told_to_stop_goes_on_from_its_place_when_its_owner_says_so(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        receiver.status = 410
        await send(here)
        await until(lambda: "410" in all_running(here).errors().get(one.id, ""), "the end")
        shown = await here.command(show_integration, integration_id=one.id)
        assert (shown.status, shown.error) == ("error", all_running(here).errors()[one.id])
        (of_file, _) = await here.command(list_integrations, organization_id="default")
        assert (of_file.status, of_file.error) == ("error", "")  # what it said is for the site's owner
        receiver.status = 200
        assert (await change(here, one, fields=ACTIVE)).status == "active"
        await until(lambda: receiver.got("one") == ["kitchen"], "what was kept for it")


async def test_of_a_removed_one_nothing_is_left(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        receiver.status = 422
        await send(here)
        await until(lambda: running(here, one).forwarder is not None and bool(receiver.ids), "the refusal")
        receiver.status = 200
        await send(here)
        await until(lambda: receiver.got("one") == ["kitchen"], "the delivery")
        async with asyncio.timeout(PATIENCE_S):
            while not await here.log.dead_letters.counts():  # noqa: ASYNC110 - a commit has to end
                await asyncio.sleep(0.01)
        logger = f"cloud_sync.forwarder.{one.id}"
        assert logger in logging.Logger.manager.loggerDict
        await here.command(remove_integration, integration_id=one.id)
        assert set(await here.log.dead_letters.counts()) <= {"file"}
        assert await cursors(here) == {"file"}
        assert one.id not in await metrics(here)
        assert set(here.log.bounds.readers) == {"file"}
        assert logger not in logging.Logger.manager.loggerDict
        assert [found.id for found in all_running(here).running()] == ["file"]
        with pytest.raises(NotFound):
            await here.command(remove_integration, integration_id=one.id)
        state = here.gateway._running.state
        assert await Integrations(state).removed() == []


async def test_one_that_is_removed_while_another_change_takes_effect_is_not_started_again(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        rows, read = Integrations(here.gateway._running.state), RunningIntegrations._wanted

        async def read_and_remove(self: RunningIntegrations) -> dict[str, Wanted]:
            wanted = await read(self)
            monkeypatch.undo()
            await rows.remove(one.id)
            return wanted

        monkeypatch.setattr(RunningIntegrations, "_wanted", read_and_remove)
        await all_running(here).apply()
        assert await rows.removed() == [one.id]  # there is still something to be done
        await all_running(here).apply()
        assert await rows.removed() == []
        assert [found.id for found in all_running(here).running()] == ["file"]
        assert await cursors(here) == {"file"}


async def test_what_was_changed_without_a_gateway_holds_after_the_next_start(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with site(tmp_path, receiver) as here:
        gone, rests = await add(here, receiver, "gone"), await add(here, receiver, "rests")
        receiver.status = 500
        await send(here)
    # Between a change and what follows from it, the gateway may also be killed.
    await here.command(remove_integration, integration_id=gone.id)
    await here.command(change_integration, integration_id=rests.id, fields=INACTIVE)
    new = await add(here, receiver, "new", start="oldest")
    receiver.status = 200
    async with site(tmp_path, receiver, first=here) as again:
        await until(lambda: receiver.got("new") == receiver.got("file") == ["kitchen"], "what had waited")
        assert await cursors(again) == {"file", new.id}
        assert receiver.got("gone") == receiver.got("rests") == []


async def test_one_whose_key_is_lost_stops_no_other_and_keeps_its_place(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one", auth_token=SECRET)
        assert one.secret_names == ["auth_token"]
        assert SECRET not in repr(one)
    never_started = await add(here, receiver, "never", auth_token=SECRET)
    key = lose_key(tmp_path)
    async with site(tmp_path, receiver, first=here) as again:
        shown = await again.command(show_integration, integration_id=one.id)
        assert shown.status == "error"
        assert shown.error.startswith("Its key vault-")
        async with again.http.get(again.url("/ready")) as answer:
            notices = (await answer.json())["notices"]
        assert [notice for notice in notices if one.id in notice] == [
            f"The integration {one.id} is not started: neurogate integration show {one.id} says why."
        ]
        assert await again.metric(f'neurogate_delivery_state{{destination="{one.id}",state="stopped"}}') == 1
        await send(again)
        await until(lambda: receiver.got("file") == ["kitchen"], "the other's delivery")
        with pytest.raises(Exception, match="auth_token of this integration cannot be read"):
            await change(again, one, settings={"timeout_s": 5})
        assert (await change(again, one, name="Renamed all the same")).status == "error"
        key.back()
        await all_running(again).apply()
        await until(lambda: receiver.got("one") == receiver.got("never") == ["kitchen"], "what they have waited for")
        assert running(again, never_started).forwarder is not None
        assert (await again.command(show_integration, integration_id=one.id)).status == "active"
        key.lose()
        changed = await change(again, one, settings={"auth_token": SECRET + "2"})  # said anew: that helps as well
        assert changed.status == "active"


class lose_key:  # noqa: N801 - a verb
    """The vault's key, taken away."""

    def __init__(self, folder: Path) -> None:
        (self._path,) = folder.glob("vault-*.key")
        self._kept = folder / "kept"
        self.lose()

    def lose(self) -> None:
        self._path.rename(self._kept)

    def back(self) -> None:
        self._kept.rename(self._path)


async def test_those_of_the_file_are_read_only_and_keep_their_names(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        (of_file,) = await here.command(list_integrations, organization_id="default")
        assert (of_file.id, of_file.origin, of_file.organization_id, of_file.settings) == ("file", "file", "", {})
        for attempt in (
            here.command(remove_integration, integration_id="file"),
            here.command(change_integration, integration_id="file", name="Mine"),
        ):
            with pytest.raises(Conflict, match="declared in the configuration file"):
                await attempt
        with pytest.raises(AlreadyExists, match="The configuration has an integration file already"):
            await here.command(
                add_integration,
                organization_id="default",
                integration_type="webhook",
                name="file",
                settings={"url": receiver.url},
            )


async def test_a_row_with_the_id_of_one_in_the_file_does_not_run(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
    tables = [{"type": "webhook", "name": one.id, "url": f"{receiver.url}file"}]
    async with running_site(tmp_path, integrations=tables, kitchen=here.kitchen) as again:
        await send(again)
        await until(lambda: receiver.got("file") == ["kitchen"], "the file's delivery")
        assert [found.origin for found in all_running(again).running()] == ["file"]


async def test_rows_are_read_again_from_time_to_time(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert integrations._READ_AGAIN_S == 300
    monkeypatch.setattr(integrations, "_READ_AGAIN_S", 0.05)
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        state = here.gateway._running.state
        await Integrations(state).change(one.id, lambda row, _: (replace(row, status="inactive"), None))
        await until(lambda: [found.id for found in all_running(here).running()] == ["file"], "the change")


async def test_a_change_that_a_full_disk_forbids_takes_effect_later(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "_TRY_AGAIN_S", 0.05)
    disk = FailingDisk()
    monkeypatch.setattr(CommitThread, "_attempt", lambda *job: disk.attempt(*job))  # noqa: PLW0108 - a method's self
    async with site(tmp_path, receiver) as here:
        one, other = await add(here, receiver, "one"), await add(here, receiver, "other")
        disk.failing = True
        changed = await change(here, one, fields=INACTIVE)
        assert changed.error.startswith("A change could not take effect yet: ")
        disk.failing = False
        await until(lambda: one.id not in here.log.bounds.readers, "the change")
        async with asyncio.timeout(PATIENCE_S):
            while one.id in await cursors(here):  # noqa: ASYNC110 - a commit has to end
                await asyncio.sleep(0.01)
        assert (await here.command(show_integration, integration_id=one.id)).error == ""
        await send(here)
        await until(lambda: receiver.got("other") == ["kitchen"], "the other's delivery")
        assert other.id in here.log.bounds.readers


async def test_one_that_breaks_as_it_is_made_or_does_not_end_disturbs_no_other(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leave = Webhook.__aexit__

    async def hang(webhook: Webhook, *exc: object) -> None:
        await leave(webhook, *exc)
        await asyncio.Event().wait()

    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        with monkeypatch.context() as patch:
            patch.setattr(integrations, "_ENDS_WITHIN_S", 0.05)
            patch.setattr(Webhook, "__aexit__", hang)
            await change(here, one, settings={"timeout_s": 5})
        assert "an integration did not end in time" in caplog.text
        with monkeypatch.context() as patch:
            patch.setattr(Webhook, "__init__", lambda *_: 1 / 0)
            bad = await add(here, receiver, "bad")
        assert (bad.status, bad.error) == ("error", "It cannot be made (ZeroDivisionError); the log says more.")
        await send(here)
        await until(lambda: receiver.got("one") == receiver.got("file") == ["kitchen"], "the others' deliveries")


async def test_whoever_asks_finds_what_serves_them(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        mine, theirs = await add(here, receiver, "mine"), await add(here, receiver, "theirs", "acme")
        found = all_running(here)
        await until(lambda: all(one.entered.is_set() for one in found.running()), "all of them")

        def name(*what: Any) -> str | None:
            one = found.find(*what)
            return None if one is None else one.id

        assert name("default", "webhook") == mine.id
        assert name("acme") == theirs.id
        assert name("beta", "webhook") == name("beta", None, "file") == "file"
        assert name("default", None, theirs.id) is None
        assert name("default", "slack") is None
        await change(here, mine, fields=INACTIVE)
        assert name("default") == "file"


async def test_nobody_sees_or_changes_what_is_another_organisations(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one", "acme")
        names = [found.id for found in await here.command(list_integrations, organization_id="beta")]
        assert names == ["file"]
        for operation in (show_integration, change_integration, remove_integration, try_integration):
            with pytest.raises(NotFound):
                await here.command(operation, integration_id=one.id, organization_id="beta")


async def test_what_a_form_was_shown_of_a_secret_changes_nothing(tmp_path: Path, receiver: Receiver) -> None:
    token = "t" * 40
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, token, custom_headers={"X-A": SECRET, "X-B": "b"})
        assert token not in repr(one)
        assert one.secret_names == ["custom_headers", "url"]
        changed = await change(
            here, one, settings={"url": one.settings["url"], "custom_headers": {"X-B": None}, "auth_token": None}
        )
        assert changed.secret_names == ["custom_headers", "url"]
        config: Any = running(here, one).config
        assert str(config.url) == receiver.url + token
        assert {name: value.get_secret_value() for name, value in config.custom_headers.items()} == {"X-A": SECRET}
        for settings, words in (
            ({"timeout_s": -1}, "timeout_s must be more than 0.0, not -1."),
            ({"urll": "x"}, "Unknown key urll. Did you mean url?"),
            ({"url": None}, "url is missing. Where the batches go."),
            ({"custom_headers": {"X A": SECRET}}, "custom_headers: "),
            ({"url": f"nonsense-{SECRET}"}, "url must be a valid URL"),
            ({"url": f"{receiver.url}elsewhere/{MASK}"}, f"url: {MASK} only stands for what is not shown."),
            ({"auth_token": MASK}, f"auth_token: {MASK} only stands for what is not shown."),
        ):
            with pytest.raises(BadInput) as raised:
                await change(here, one, settings=settings)
            assert str(raised.value).startswith(words), raised.value
            assert SECRET not in str(raised.value)
        assert str(running(here, one).config.url) == receiver.url + token  # type: ignore[attr-defined]
        with pytest.raises(BadInput):
            await add(here, receiver, MASK)
        with pytest.raises(BadInput):
            await here.command(
                try_settings,
                organization_id="default",
                integration_type="webhook",
                settings={"url": f"{receiver.url}{MASK}"},
            )


async def test_it_can_be_tried(tmp_path: Path, receiver: Receiver) -> None:
    async with site(tmp_path, receiver) as here:
        one = await add(here, receiver, "one")
        found: list[Finding] = await here.command(try_integration, integration_id=one.id)
        assert found
        assert await here.command(try_integration, integration_id="file")
        schemas = {schema.type: schema for schema in await here.command(integration_schemas)}
        assert "forwards" in schemas["webhook"].capabilities
        assert receiver.ids == []
