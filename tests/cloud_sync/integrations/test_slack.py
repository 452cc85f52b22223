"""Slack: our stand-in for it is proved by Slack's own client, and then it checks us."""

from typing import Any

import pytest
from pydantic import ValidationError
from slack_sdk.webhook.async_client import AsyncWebhookClient

from cloud_sync.contract import AuthFailed, Gone, NotConnected, Ok, Outcome, Rejected, RetryAfter, WrongAddress
from cloud_sync.integrations.slack import Slack, cut
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.fake_slack import PATH, TOKEN, FakeSlack, fake_slack
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, notification


def config(url: str, **settings: Any) -> Slack.Config:
    return Slack.Config.model_validate({"type": "slack", "name": "chat", "webhook_url": url} | settings)


async def notify(url: str, told: Any = None, **settings: Any) -> Outcome:
    async with Slack(config(url, **settings), ManualClock(NOW_MS), ANYWHERE) as slack:
        return await slack.notify(told or notification())


async def test_the_stand_in_answers_slacks_own_client_as_slack_does() -> None:
    async with fake_slack() as slack:
        sent = await AsyncWebhookClient(slack.url).send(text="Hello, <!here> &amp; all")
        assert (sent.status_code, sent.body) == (200, "ok")
        assert slack.posted == [{"text": "Hello, <!here> &amp; all"}]
        for wrong, expected in (
            (slack.url.replace(TOKEN, "nonsense"), (403, "invalid_token")),
            (slack.url.replace("B00000000", "B1"), (404, "no_service")),
        ):
            answer = await AsyncWebhookClient(wrong).send(text="Hello")
            assert (answer.status_code, answer.body) == expected
        empty = await AsyncWebhookClient(slack.url).send(text="")
        assert (empty.status_code, empty.body) == (400, "no_text")
        slack.answers = [(429, "rate_limited", {"Retry-After": "30"})]
        limited = await AsyncWebhookClient(slack.url).send(text="Hello")
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "30")


async def test_a_message_is_posted_as_the_settings_say() -> None:
    async with fake_slack() as slack:
        told = notification(data={"room": "cellar"})
        assert await notify(slack.url, told, channel="#alerts", username="House", icon_emoji=":bell:") == Ok()
        assert await notify(slack.url) == Ok()
    first, second = slack.posted
    assert (first["channel"], first["username"], first["icon_emoji"]) == ("#alerts", "House", ":bell:")
    assert first["text"] == (
        "*Pump*\nThe pump is off.\nroom: cellar\n_high, site-1, 2026-11-20T12:00:00.250Z_"
    )  # fmt: skip
    assert list(second) == ["text"]


async def test_what_is_told_calls_nobody_and_links_nowhere() -> None:
    async with fake_slack() as slack:
        told = notification(subject="<!channel>", message="<https://evil.example|here> & <@U123>", data={"a": "<b>"})
        await notify(slack.url, told, notify={"templates": {"*": {"text": "<!here> {{title}} {{body}} {{details}}"}}})
    assert slack.posted[0]["text"] == (
        "<!here> &lt;!channel&gt; &lt;https://evil.example|here&gt; &amp; &lt;@U123&gt; a: &lt;b&gt;"
    )  # fmt: skip


async def test_what_is_too_long_is_cut_between_characters() -> None:
    async with fake_slack() as slack:
        assert await notify(slack.url, notification(message="&" * 8_000, data={"a": "<" * 200})) == Ok()
    for length in range(39_990, 40_010):
        text = cut("&amp;" * 8_000 + "x" * (length - 40_000) if length > 40_000 else "y" * length)
        assert len(text) <= 40_000
        whole = text.removesuffix("\n… (cut; the whole is in the notification log)")
        assert whole.replace("&amp;", "").strip("xy") == ""


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((400, "invalid_payload", {}), Rejected),
        ((403, "action_prohibited", {}), AuthFailed),
        ((404, "channel_not_found", {}), WrongAddress),
        ((410, "channel_is_archived", {}), Gone),
        ((500, "rollup_error", {}), NotConnected),
    ],
)
async def test_what_slack_says(answer: tuple[int, str, dict[str, str]], kind: type[Outcome]) -> None:
    async with fake_slack() as slack:
        slack.answers = [answer]
        outcome = await notify(slack.url)
    assert type(outcome) is kind
    assert not isinstance(outcome, Ok)
    assert answer[1] in outcome.reason


async def test_asked_to_wait_it_says_how_long() -> None:
    async with fake_slack() as slack:
        slack.answers = [(429, "rate_limited", {"Retry-After": "30"})]
        assert await notify(slack.url) == RetryAfter(30.0, "HTTP 429 rate_limited")


@pytest.mark.parametrize("wrong", ["nonsense", "ftp://hooks.slack.com/a", f"https://anna:{TOKEN}@hooks.slack.com/a"])
def test_the_address_is_a_secret(wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(wrong)
    assert wrong not in str(caught.value)
    assert TOKEN not in repr(config(f"https://hooks.slack.com{PATH}"))


async def test_no_answer_repeats_the_address() -> None:
    async with fake_slack() as slack:
        slack.answers = [(400, f"no such hook: {PATH}", {})]
        outcome = await notify(slack.url)
        assert isinstance(outcome, Rejected)
        assert TOKEN not in outcome.reason


async def test_a_check_posts_nothing() -> None:
    async def levels(slack: FakeSlack) -> list[str]:
        async with Slack(config(slack.url), ManualClock(NOW_MS), ANYWHERE) as one:
            return [found.level for found in await one.check()]

    async with fake_slack() as slack:
        assert await levels(slack) == ["ok", "ok"]
    assert slack.posted == []
    assert await levels(slack) == ["broken"]
