"""A real mail server (aiosmtpd) on this machine, that refuses what it is told to."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "geheim-geheim"


@dataclass
class Mailbox:
    """What came, and what it answers: by recipient, to the sender, to the mail itself."""

    port: int = 0
    password: str = PASSWORD
    refuses: dict[str, str] = field(default_factory=dict)
    to_sender: str = ""
    to_data: list[str] = field(default_factory=list)
    to_login: str = ""
    hangs: bool = False
    came: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def goes(self) -> None:
        """Listen no more."""
        assert self.server is not None
        self.server.close()
        await asyncio.sleep(0)

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.to_sender:
            return self.to_sender
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        self.senders.append(address)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.to_data and (answer := self.to_data.pop(0)):
            return answer
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, EmailMessage, policy=POLICY)
        self.came.append((list(envelope.rcpt_tos), mail))
        return "250 OK"

    def login(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        if self.to_login:
            return AuthResult(success=False, handled=False, message=self.to_login)
        return AuthResult(success=data.password == self.password.encode(), handled=False)


@asynccontextmanager
async def mail_server(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, login: bool = False
) -> AsyncIterator[Mailbox]:
    """Run one; with `starttls` it takes mail only after that."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it does not know that TLS is there from the first byte
            return SMTP(
                mailbox,
                hostname="mail.test",
                tls_context=starttls,
                require_starttls=starttls is not None,
                authenticator=mailbox.login,
                auth_required=login,
                auth_require_tls=tls is None,
                loop=loop,
            )

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
    mailbox.port, mailbox.server = server.sockets[0].getsockname()[1], server
    try:
        yield mailbox
    finally:
        server.close()
