"""Notifications over HTTP: the documented request, what it answers, and the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import NotConnected
from gateway.operations.notifications import follow_notification
from gateway.storage.notification_rows import NewNotification
from tests.cloud_sync.integrations.fake_slack import FakeSlack, fake_slack
from tests.site import PATIENCE_S, until
from tests.web.api import Asker, asker, running_api

DOCUMENTED: dict[str, Any] = {
    "organization_id": "default",
    "integration_type": "slack",
    "message": "Test notification",
    "priority": "high",
}
MAIL = {"type": "email", "name": "mail", "smtp_host": "mail.invalid", "from_email": "gateway@example.org"}
"""It names nobody: what goes there has failed at once, and no name is looked up."""


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with fake_slack() as slack:
        yield slack


@pytest.fixture
async def api(tmp_path: Path, slack: FakeSlack) -> AsyncIterator[Asker]:
    chat = {"type": "slack", "name": "chat", "webhook_url": slack.url}
    other = {"type": "slack", "name": "others", "webhook_url": slack.url, "organizations": ["other"]}
    async with running_api(tmp_path, "admin", integrations=[other, chat, MAIL]) as api:
        yield api


async def settled(api: Asker, name: str) -> dict[str, Any]:
    async def row() -> dict[str, Any]:
        status, answer = await api.get(f"/api/v1/notification-log/{name}")
        assert status == 200
        found: dict[str, Any] = answer
        return found

    while (found := await row())["status"] == "pending":
        pass
    return found


@pytest.mark.parametrize("prefix", ["/api/v1", "/functions/v1"])
async def test_the_documented_request_is_taken_and_arrives(api: Asker, slack: FakeSlack, prefix: str) -> None:
    status, answer = await api.post(f"{prefix}/send-notification", DOCUMENTED)
    assert status == 202
    assert answer | {"id": ""} == {
        "id": "",
        "status": "pending",
        "integration_id": "chat",
        "integration_type": "slack",
        "duplicate": False,
    }
    await until(lambda: len(slack.posted) == 1)
    assert "Test notification" in slack.posted[0]["text"]
    row = await settled(api, answer["id"])
    assert (row["status"], row["priority"], row["retry_count"], row["error_message"]) == ("sent", "high", 0, "")
    assert row["metadata"] == {"by": "token:default-admin"}
    assert row["sent_at"] is not None


async def test_every_documented_field_is_taken(api: Asker) -> None:
    body = DOCUMENTED | {"integration_id": "mail", "integration_type": "email", "subject": "Pump"}
    body |= {"data": {"device_id": "pump-1", "level": 1.5}, "recipients": ["nobody"], "kind": "pump.off"}
    nothing = dict.fromkeys(("integration_id", "subject", "data", "recipients", "dedupe_key"))
    status, _ = await api.post("/api/v1/send-notification", DOCUMENTED | nothing)  # is as if it were not there
    assert status == 202
    status, answer = await api.post("/api/v1/send-notification", body)
    assert status == 202
    row = await settled(api, answer["id"])
    assert (row["data"], row["recipients"], row["kind"]) == (body["data"], ["nobody"], "pump.off")
    assert (row["status"], row["error_message"]) == ("failed", "none of its recipients is an e-mail address")


WRONG: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"integration_type": "pigeon"}, (404, "not_found")),
    ({"integration_id": "others"}, (404, "not_found")),
    ({"integration_id": "mail"}, (404, "not_found")),
    ({"message": ""}, (400, "invalid_notification")),
    ({"priority": "urgent"}, (400, "invalid_request")),
    ({"recipient": "anna@example.org"}, (400, "invalid_request")),
    ({"subject": "two\nlines"}, (400, "invalid_notification")),
    ({"organization_id": "other"}, (403, "forbidden")),
]


async def test_what_is_wrong_is_told_and_nothing_goes_out(api: Asker, slack: FakeSlack) -> None:
    for fields, expected in WRONG:
        status, answer = await api.post("/api/v1/send-notification", DOCUMENTED | fields)
        assert (status, answer["error"]["code"]) == expected, fields
        assert answer["error"]["hint"]
    assert (await api.get("/api/v1/notification-log"))[1]["notifications"] == []
    assert slack.posted == []


async def test_the_same_key_is_told_once(api: Asker, slack: FakeSlack) -> None:
    first, second = [
        (await api.post("/api/v1/send-notification", DOCUMENTED | {"dedupe_key": "pump"}))[1] for _ in range(2)
    ]
    assert (first["duplicate"], second["duplicate"], second["id"]) == (False, True, first["id"])
    assert (await settled(api, first["id"]))["repeats"] == 1
    assert len(slack.posted) == 1


async def test_the_log_is_filtered_and_paged_and_what_has_failed_goes_again(api: Asker) -> None:
    sent = [(await api.post("/api/v1/send-notification", DOCUMENTED))[1]["id"] for _ in range(3)]
    to_mail = DOCUMENTED | {"integration_type": "email"}
    failed = (await api.post("/api/v1/send-notification", to_mail))[1]["id"]
    for name in (*sent, failed):
        await settled(api, name)

    async def log(**query: str | int) -> tuple[list[str], str | None]:
        status, answer = await api.get("/functions/v1/notification-log", **query)
        assert status == 200
        return [row["id"] for row in answer["notifications"]], answer["next_cursor"]

    assert await log() == ([failed, *reversed(sent)], None)
    first, cursor = await log(limit=3)
    assert first == [failed, sent[2], sent[1]]
    assert await log(limit=3, cursor=cursor or "") == ([sent[0]], None)
    assert await log(status="failed") == ([failed], None)
    assert await log(integration_id="chat", limit=1) == ([sent[2]], str(int(cursor or 0) + 1))

    status, answer = await api.post(f"/api/v1/notification-log/{failed}/resend", {})
    assert (status, answer["status"]) == (200, "retrying")
    status, answer = await api.post(f"/api/v1/notification-log/{sent[0]}/resend", {})
    assert (status, answer["error"]["code"]) == (409, "conflict")
    assert "notification.resend" in str((await api.get("/api/v1/activity-log"))[1])
    foreign = await asker(api.site, "admin", "other")
    assert (await foreign.get(f"/api/v1/notification-log/{failed}"))[0] == 404
    assert (await foreign.get("/api/v1/notification-log"))[1]["notifications"] == []


async def test_who_follows_one_misses_nothing_that_happens_meanwhile(api: Asker) -> None:
    inside = api.site.gateway._running.site
    log = inside.notifier.log
    added = await log.add(NewNotification("default", "nobody-sends-it", "slack", "hello"))
    rows = follow_notification(inside, organization_id="default", notification_id=added.id)
    assert (await anext(rows)).status == "pending"
    await log.freeze("nobody-sends-it")
    await log.sent(added.id)  # while whoever follows it is busy with what was before
    async with asyncio.timeout(PATIENCE_S):
        assert [row.status async for row in rows] == ["sent"]


async def test_nothing_shows_the_address_of_the_channel(api: Asker, slack: FakeSlack) -> None:
    slack.answers = [(400, slack.url, {})]
    _, answer = await api.post("/api/v1/send-notification", DOCUMENTED)
    row = await settled(api, answer["id"])
    assert row["status"] == "failed"
    assert "XXXXXXXX" not in str(row)


async def test_an_alert_is_told_to_who_wants_to_know_of_such(tmp_path: Path, slack: FakeSlack) -> None:
    chat = {"type": "slack", "name": "chat", "webhook_url": slack.url, "notify": {"kinds": ["alert.conn*"]}}
    cloud = {"type": "webhook", "name": "cloud", "url": "http://127.0.0.1:9/"}
    async with running_api(tmp_path, "admin", integrations=[chat, cloud]) as api:
        parts = api.site.gateway._running
        (health,) = [one.health for one in parts.integrations.running() if one.id == "cloud"]
        for _ in range(3):
            health.failed(NotConnected("connection refused"))
            api.site.clock.advance(60_000)
        for _ in range(2):
            await api.site.gateway._alerts.turn()
        await until(lambda: len(slack.posted) == 1)
        assert "cloud cannot be reached: connection refused" in slack.posted[0]["text"]
        _, page = await api.get("/api/v1/notification-log")
        (row,) = page["notifications"]
        assert (row["kind"], row["data"]["subject"]) == ("alert.connection_failed", "cloud")


async def test_other_settings_let_what_waits_go_at_once_and_a_removal_gives_it_up(
    tmp_path: Path, slack: FakeSlack
) -> None:
    async with running_api(tmp_path, "admin") as api:
        chat = {"integration_type": "slack", "name": "chat", "settings": {"webhook_url": slack.url}}
        slack.answers = [(429, "slow down", {"Retry-After": "3600"})] * 2
        _, integration = await api.post("/api/v1/integrations", chat)
        _, first = await api.post("/api/v1/send-notification", DOCUMENTED)
        assert (await settled(api, first["id"]))["status"] == "retrying"
        path = f"/api/v1/integrations/{integration['id']}"
        changed = '{"settings": {"username": "bot %d"}}'
        assert (await api.ask("PATCH", path, {}, changed % 1))[0] == 200
        await until(lambda: slack.answers == [])
        await until_row(api, first["id"], retry_count=2)
        assert (await api.ask("PATCH", path, {}, changed % 2))[0] == 200
        await until_row(api, first["id"], status="sent")

        slack.answers = [(429, "slow down", {"Retry-After": "3600"})]
        _, second = await api.post("/api/v1/send-notification", DOCUMENTED)
        await until_row(api, second["id"], status="retrying")
        assert (await api.ask("DELETE", path, {}))[0] == 204
        row = await until_row(api, second["id"], status="failed")
        assert row["error_message"] == "The integration was removed."
        assert await api.site.metric(f'neurogate_notification_attempts_total{{integration="{integration["id"]}"') == 0


async def until_row(api: Asker, name: str, **wanted: object) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            _, row = await api.get(f"/api/v1/notification-log/{name}")
            found: dict[str, Any] = row
            if found == found | wanted:
                return found
            await asyncio.sleep(0.01)
