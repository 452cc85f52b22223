"""`alerts` as an owner, a member and the command line see them; a whole gateway whose destination is away."""

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cloud_sync.contract import AuthFailed, NotConnected
from gateway.cli import command_line
from gateway.config import load
from gateway.model.roles import Role
from gateway.operations.integrations import add_integration, remove_integration
from gateway.storage.alerts import Alerts, Cause
from tests.site import Site
from tests.web.api import asker, running_api

PATH = "/api/v1/alerts"
CLOUD = {"type": "webhook", "name": "cloud", "url": "http://127.0.0.1:9/"}


async def opened(site: Site, organization_id: str | None, subject: str, kind: str = "too_hot") -> str:
    alerts = Alerts(await site.gateway._running.site.state())
    cause = Cause(organization_id, kind, subject, "low", f"{subject} is too hot.")
    return str((await alerts.open(cause, reopen_ms=0))[0].id)


async def test_a_destination_that_is_away_becomes_an_alert_and_comes_back(tmp_path: Path) -> None:
    async with running_api(tmp_path, "admin", integrations=[CLOUD]) as admin:
        site = admin.site
        parts = site.gateway._running
        (cloud,) = parts.integrations.running()
        health = cloud.health
        for _ in range(3):
            health.failed(NotConnected("connection refused"))
            site.clock.advance(60_000)
        await site.gateway._alerts.turn()
        _, page = await admin.get(PATH, state="open")
        (alert,) = page["alerts"]
        assert (alert["kind"], alert["severity"], alert["subject"]) == ("connection_failed", "medium", "cloud")
        assert (alert["organization_id"], alert["count"]) == (None, 3)
        assert alert["message"] == "cloud cannot be reached: connection refused"
        _, ready = await admin.get("/ready")
        assert ready["destinations"][0]["health"]["error_kind"] == "connection"
        assert await site.metric('neurogate_integration_up{integration="cloud"}') == 0
        health.succeeded(0.1)
        await site.gateway._alerts.turn()
        _, page = await admin.get(PATH)
        assert [one["state"] for one in page["alerts"]] == ["resolved"]


async def test_one_that_cannot_be_started_becomes_an_alert(tmp_path: Path) -> None:
    config = tmp_path / "neurogate.toml"
    config.write_text('[[integrations]]\ntype = "webhook"\nname = "cloud"\nurl = "${vault:nothing}"\n')
    tables: Any = load(config, {}).settings.integrations
    async with running_api(tmp_path / "data", "admin", integrations=tables) as admin:
        await admin.site.gateway._alerts.turn()
        _, page = await admin.get(PATH, kind="configuration_error")
        assert page["alerts"][0]["message"].startswith("cloud is not started: ")


async def test_one_of_an_organisation_is_its_alone_and_ends_with_it(tmp_path: Path) -> None:
    async with running_api(tmp_path, "owner") as owner:
        site = owner.site
        added = await site.command(
            add_integration,
            organization_id="acme",
            integration_type="webhook",
            name="Acme's",
            settings={"url": CLOUD["url"]},
        )
        (cloud,) = site.gateway._running.integrations.running()
        for _ in range(3):
            cloud.health.failed(AuthFailed("401"))
        await site.gateway._alerts.turn()
        acme = await asker(site, "member", "acme")
        _, page = await acme.get(PATH)
        assert [(one["kind"], one["subject"], one["message"]) for one in page["alerts"]] == [
            ("authentication_failed", added.id, "Acme's does not let us in: 401")
        ]
        assert (await owner.get(PATH))[1]["alerts"] == []
        await site.command(remove_integration, integration_id=added.id)
        await site.gateway._alerts.turn()
        assert [one["state"] for one in (await acme.get(PATH))[1]["alerts"]] == ["resolved"]


async def test_alerts_of_the_site_are_for_those_who_care_for_it(tmp_path: Path) -> None:
    async with running_api(tmp_path, "admin") as admin:
        await opened(admin.site, None, "server")
        await opened(admin.site, "default", "kitchen")
        await opened(admin.site, "acme", "shed")

        async def seen(role: Role, whose: str | None, **query: str) -> set[str]:
            who = await asker(admin.site, role, whose)
            _, page = await who.get(PATH, **query)
            return {one["subject"] for one in page["alerts"]}

        assert await seen("owner", "default") == {"server", "kitchen"}
        assert await seen("member", "default") == {"kitchen"}
        assert await seen("owner", "acme") == {"shed"}
        assert await seen("owner", None) == {"server", "kitchen", "shed"}
        assert await seen("admin", None, organization_id="default") == {"server", "kitchen"}


async def test_somebody_knows_of_it_and_then_it_is_done(tmp_path: Path) -> None:
    async with running_api(tmp_path, "admin") as admin:
        alert = await opened(admin.site, "default", "kitchen")
        owner = await asker(admin.site, "owner")
        status, known = await admin.post(f"{PATH}/{alert}/acknowledge", {})
        assert (status, known["state"], known["acknowledged_by"]) == (200, "acknowledged", "token:default-admin")
        _, again = await owner.post(f"{PATH}/{alert}/acknowledge", {})
        assert again == known
        _, done = await owner.post(f"{PATH}/{alert}/resolve", {})
        assert done["state"] == "resolved"
        status, refused = await owner.post(f"{PATH}/{alert}/acknowledge", {})
        assert (status, refused["error"]["code"]) == (409, "conflict")
        assert (await owner.get(f"{PATH}/{alert}"))[1] == done
        assert [(await owner.get(f"{PATH}/{wrong}"))[0] for wrong in ("999", "x", "9" * 40)] == [404] * 3
        _, log = await owner.get("/api/v1/activity-log", limit=2)
        assert [(one["action"], one["actor"]) for one in log["activity"]] == [
            ("alert.resolve", "token:default-owner"),
            ("alert.acknowledge", "token:default-admin"),
        ]


async def test_they_are_listed_in_pages_and_by_what_they_are(tmp_path: Path) -> None:
    async with running_api(tmp_path, "member") as member:
        for kind in ("too_hot", "too_cold", "too_wet"):
            await opened(member.site, "default", "kitchen", kind)
        _, page = await member.get(PATH, limit=2)
        _, rest = await member.get(PATH, limit=2, cursor=page["next_cursor"])
        kinds = [one["kind"] for one in page["alerts"] + rest["alerts"]]
        assert (kinds, rest["next_cursor"]) == (["too_wet", "too_cold", "too_hot"], None)
        assert len((await member.get(PATH, kind="too_hot"))[1]["alerts"]) == 1
        assert (await member.get(PATH, severity="critical"))[1]["alerts"] == []
        assert (await member.get(PATH, severity="loud"))[0] == 400


async def test_the_command_line_shows_and_acknowledges(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "neurogate.toml"
    config.write_text(f'version = 1\n[gateway]\ndata_dir = "{site.settings.gateway.data_dir}"\n')

    async def neurogate(*arguments: str) -> str:
        done = await asyncio.to_thread(
            CliRunner().invoke, command_line(["alert"]), ["alert", *arguments, "-c", str(config)]
        )
        assert done.exit_code == 0, done.output
        return done.output

    assert await neurogate("list") == "Nothing is wrong.\n"
    alert = await opened(site, "acme", "shed")
    assert "shed is too hot. (acme)" in " ".join((await neurogate("list")).split())
    assert await neurogate("acknowledge", alert) == f"{alert} is acknowledged by cli.\n"
    assert json.loads(await neurogate("list", "--json"))[0]["state"] == "acknowledged"
    assert await neurogate("resolve", alert) == f"{alert} is resolved.\n"
    assert await neurogate("list") == "Nothing is wrong now; --all shows what was.\n"
    assert json.loads(await neurogate("list", "--json", "--all"))[0]["resolved_at"] is not None
