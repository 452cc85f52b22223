"""A check takes the way that deliveries take: with the same CA, and by the same proxy."""

import asyncio
from pathlib import Path
from typing import Any

from cloud_sync.contract import NotConnected, Ok
from cloud_sync.integrations.slack import Slack
from cloud_sync.integrations.webhook import Webhook
from gateway.clock import SystemClock
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.integrations.clouds.aws import fake_aws, made
from tests.cloud_sync.integrations.http.serving import proxy, serving, takes
from tests.cloud_sync.samples import ANYWHERE, PLAIN_SECRET, batch, notification, sent


def webhook(url: str, **settings: Any) -> Webhook:
    raw = {"type": "webhook", "name": "test", "url": url, "secret": PLAIN_SECRET, "timeout_s": 5}
    return Webhook(Webhook.Config.model_validate(raw | settings), SystemClock(), ANYWHERE)


async def test_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(takes, authority.server("127.0.0.1")) as url:
        async with webhook(url, ca=authority.file.read_text()) as it:
            assert await sent(it, batch()) == Ok()
            assert [one.level for one in await it.check()] == ["ok", "ok", "ok"]
        async with webhook(url) as it:
            assert isinstance(await sent(it, batch()), NotConnected)
            found = (await it.check())[-1]
            assert (found.level, "set `ca`" in found.hint) == ("broken", True)


async def test_slack_takes_that_way_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(takes, authority.server("127.0.0.1")) as url:
        raw = {"type": "slack", "name": "test", "webhook_url": url, "ca": authority.file.read_text()}
        async with Slack(Slack.Config.model_validate(raw), SystemClock(), ANYWHERE) as it:
            assert await it.notify(notification()) == Ok()


async def test_by_a_proxy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = authority.file.read_text()
    async with (
        serving(takes, authority.server("nobody.invalid")) as url,
        proxy(url) as (seen, address),
        webhook("https://nobody.invalid/hook", ca=ca, proxy=address) as it,
    ):
        assert await sent(it, batch()) == Ok()
        found = await it.check()
    assert [one.level for one in found] == ["ok", "ok", "ok"]
    assert found[1].words == "Requests go by this proxy."
    assert set(seen.asked) == {b"CONNECT nobody.invalid:443 HTTP/1.1"}


async def test_by_a_proxy_that_is_away() -> None:
    async with serving(takes) as url:
        gone = url
    async with made(None, proxy=gone) as it:
        [found] = await it.check()
    assert (found.level, "127.0.0.1" in found.words) == ("broken", True)


async def test_a_server_that_gives_no_answer_is_said() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server, fake_aws() as fake:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with made(fake, endpoint=endpoint) as it:
            found = (await it.check())[-1]
    assert (found.level, "no answer" in found.words) == ("broken", True)
