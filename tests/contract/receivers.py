"""The other sides of what notifies."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from cloud_sync.contract import Integration, Outcome
from cloud_sync.egress import Egress
from cloud_sync.integrations.email import Email
from cloud_sync.integrations.slack import Slack
from cloud_sync.integrations.webhook import Webhook
from gateway.clock import ManualClock
from tests.cloud_sync.integrations.certificates import Authority
from tests.cloud_sync.integrations.fake_slack import TOKEN, FakeSlack
from tests.cloud_sync.integrations.mail_server import Mailbox, mail_server
from tests.cloud_sync.samples import NOW_MS, STANDARD_SECRET
from tests.contract.notifies import Receiver
from tests.contract.other_side import SECRET, OtherSide, http_receiver


class ByMail:
    secrets: tuple[str, ...] = ()

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    def integration(self, egress: Egress, **settings: Any) -> Integration:
        base = {"type": "email", "name": "mail", "smtp_host": "127.0.0.1", "smtp_port": self.mailbox.port}
        base |= {"use_tls": False, "from_email": "gateway@example.org", "recipients": ["anna@example.org"]}
        return Email(Email.Config.model_validate(base | settings), ManualClock(NOW_MS), egress)

    def refuses(self, how: str) -> None:
        self.mailbox.to_data = {"busy": ["451 later"], "rejects": ["554 no"]}.get(how, [])
        self.mailbox.to_sender = "553 who?" if how == "nobody" else ""
        self.mailbox.hangs = how == "hangs"

    @property
    def came(self) -> list[tuple[str, str]]:
        return [(mail["Message-ID"], f"{mail['Subject']}\n{mail.get_content()}") for _, mail in self.mailbox.came]

    async def goes(self) -> None:
        await self.mailbox.goes()


class BySlack:
    secrets: tuple[str, ...] = (TOKEN,)
    path = f"/services/T00000000/B00000000/{TOKEN}"

    def __init__(self, server: BaseTestServer, slack: FakeSlack) -> None:
        self.server = server
        self.slack = slack
        self.url = str(server.make_url(self.path))

    def integration(self, egress: Egress, **settings: Any) -> Integration:
        base = {"type": "slack", "name": "chat", "webhook_url": self.url}
        return Slack(Slack.Config.model_validate(base | settings), ManualClock(NOW_MS), egress)

    def refuses(self, how: str) -> None:
        self.slack.hangs = how == "hangs"
        answers = {"busy": (429, "rate_limited"), "rejects": (400, "invalid_payload"), "nobody": (403, "invalid_token")}
        self.slack.answers = [(*answers[how], {"Retry-After": "5"})] if how in answers else []

    @property
    def came(self) -> list[tuple[str, str]]:
        texts = [_unescaped(message["text"]) for message in self.slack.posted]
        return list(zip(self.slack.ids, texts, strict=True))

    async def goes(self) -> None:
        await self.server.close()


class ByWebhook(BySlack):
    """The same server takes it, as it is JSON with an id."""

    secrets = (STANDARD_SECRET, "a-token-of-mine")

    def integration(self, egress: Egress, **settings: Any) -> Integration:
        base: dict[str, Any] = {"type": "webhook", "name": "hook", "url": self.url}
        base |= {"secret": STANDARD_SECRET, "auth_token": "a-token-of-mine"}
        base |= {"notification_template": {"text": "{{subject}}\n{{message}}"}}
        return Webhook(Webhook.Config.model_validate(base | settings), ManualClock(NOW_MS), egress)


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@asynccontextmanager
async def _http(kind: type[BySlack]) -> AsyncIterator[Receiver]:
    slack = FakeSlack()
    app = web.Application()
    app.router.add_post("/{path:.*}", slack.handle)
    async with TestServer(app) as server:
        yield kind(server, slack)


def slack_receiver() -> AbstractAsyncContextManager[Receiver]:
    return _http(BySlack)


def webhook_receiver() -> AbstractAsyncContextManager[Receiver]:
    return _http(ByWebhook)


@asynccontextmanager
async def mail_receiver() -> AsyncIterator[Receiver]:
    async with mail_server() as mailbox:
        yield ByMail(mailbox)


class MailSide:
    """A mail server, as the suites of every integration want it: encrypted, with a login."""

    answers: frozenset[type[Outcome]] = frozenset()
    said = b""
    received: list[bytes]

    def __init__(self, mailbox: Mailbox, ca: str) -> None:
        self._mailbox = mailbox
        self.received = []
        self.settings: dict[str, Any] = {"smtp_host": "127.0.0.1", "smtp_port": mailbox.port, "ca": ca}
        self.settings |= {"username": "gateway", "password": SECRET, "from_email": "gateway@example.org"}

    def answer(self, outcome: type[Outcome]) -> None:
        raise AssertionError(outcome)

    async def go_away(self) -> None:
        await self._mailbox.goes()


@asynccontextmanager
async def mail_side(path: Path) -> AsyncIterator[OtherSide]:
    authority = Authority(path)
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    async with mail_server(starttls=context, login=True) as mailbox:
        mailbox.password = SECRET
        side = MailSide(mailbox, authority.file.read_text())
        yield side
        assert mailbox.came == []


@asynccontextmanager
async def slack_side(path: Path) -> AsyncIterator[OtherSide]:
    async with http_receiver(path) as side:
        side.settings = {"webhook_url": side.settings["url"] + f"/{SECRET}"}
        yield side
