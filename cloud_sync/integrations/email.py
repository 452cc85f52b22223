"""Send notifications as e-mail, by SMTP (RFC 5321), over STARTTLS (RFC 3207) or TLS from the first byte (RFC 8314).

- the `Message-ID` is made of the notification's id: a mail that is sent again, as an answer was lost, is the same mail
- some recipients may be refused and the others get it: both is told, and nobody gets it twice
- 4yz is to be tried again, 5yz is final (RFC 5321, 4.2.1)
- whatever the settings or a notification say, it can add no header and no recipient
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Annotated, ClassVar, Self

import aiosmtplib
from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cloud_sync.contract import (
    AuthFailed,
    Integration,
    IntegrationConfig,
    NotConnected,
    Notification,
    Notifies,
    Ok,
    Outcome,
    PartlyDelivered,
    Rejected,
    RetryAfter,
    Tests,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import NotAllowed
from cloud_sync.integrations.http.guarded_socket import open_socket
from cloud_sync.integrations.http.reach import reach
from cloud_sync.payload.notification_text import MessageTemplate, Notify, Writer
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine
from gateway.model.priorities import Priority
from gateway.model.secret import Secret
from gateway.model.text import is_clean_text

_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)  # as browsers check it: https://html.spec.whatwg.org/#valid-e-mail-address
_ADDRESS_CHARACTERS = 254
_TLS_PORT = 465
_TEMPORARY = 4
_TOO_LARGE = 552
_REASON_CHARACTERS = 200
_PATIENCE_S = 10.0

_USUAL = MessageTemplate(
    subject="[{{priority}}] {{title}}",
    text="{{message}}\n\n{{details}}\n\n-- \n{{priority}}, {{time}}\n"
    "gateway {{gateway_id}}, organisation {{organization_id}}, notification {{id}}",
)


def _listed(value: object) -> object:
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


class Email(Integration, Notifies, Tests):
    """Send notifications as e-mail."""

    type = "email"

    class Config(IntegrationConfig):
        """Settings of a mail server, and whom to write to."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("smtp_host", "use_tls", "ca")

        smtp_host: str = Field(min_length=1, max_length=253, description="The mail server.")
        smtp_port: int = Field(587, ge=1, le=65_535, description="Its port: usually 587, or 465 for TLS at once.")
        username: str | None = Field(None, description="Who logs in; nobody does when there is none.")
        password: Secret | None = Field(None, description="With what.")
        from_email: str = Field(description="The sender's address.")
        from_name: str = Field("neurogate", max_length=100, description="The sender's name.")
        use_tls: bool = Field(
            default=True, description="Encrypted: by STARTTLS, or on port 465 at once. Off only where nobody logs in."
        )
        implicit_tls: bool | None = Field(None, description="Whether TLS begins at once; by default on port 465 alone.")
        ca: str | None = Field(
            None, description="Certificates (PEM) that its own is checked against, instead of this machine's."
        )
        recipients: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
            (), max_length=50, description="Who gets it, unless a notification names others."
        )
        notify: Notify = Field(Notify(), description="What it is told, and how: see its own settings.")

        @field_validator("smtp_host")
        @classmethod
        def _is_a_host(cls, host: str) -> str:
            if not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]+", host):
                raise ValueError("it is no host name or address.")
            return host

        @field_validator("from_email")
        @classmethod
        def _is_an_address(cls, address: str) -> str:
            if not _is_address(address):
                raise ValueError("it is no e-mail address such as gateway@example.com.")
            return address

        @field_validator("recipients")
        @classmethod
        def _are_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
            for index, one in enumerate(addresses):
                if not _is_address(one):
                    raise ValueError(f"number {index + 1} is no e-mail address such as anna@example.com.")
            return addresses

        @field_validator("from_name")
        @classmethod
        def _is_a_name(cls, name: str) -> str:
            if not is_clean_text(name):
                raise ValueError("it holds a line break or another character that no name can have.")
            return name

        @field_validator("ca")
        @classmethod
        def _is_pem(cls, ca: str | None) -> str | None:
            if ca is not None:
                try:
                    ssl.create_default_context(cadata=ca)
                except (ssl.SSLError, ValueError):
                    raise ValueError("it is no certificate in PEM (-----BEGIN CERTIFICATE-----).") from None
            return ca

        @model_validator(mode="after")
        def _goes_together(self) -> Self:
            if (self.username is None) != (self.password is None):
                raise ValueError("username and password belong together: set both, or none.")
            if self.password is not None and not self.use_tls:
                raise ValueError("the password would go out unencrypted: set use_tls = true, or leave it out.")
            if self.implicit_tls and not self.use_tls:
                raise ValueError("implicit_tls needs use_tls = true.")
            return self

        @property
        def begins_with_tls(self) -> bool:
            """Whether TLS begins at once, and not by STARTTLS."""
            return self.use_tls and (self.smtp_port == _TLS_PORT if self.implicit_tls is None else self.implicit_tls)

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._writer = Writer(config.notify, _USUAL)

    def wants(self, kind: str, priority: Priority) -> bool:
        """Whether it is to be told by itself."""
        return self._config.notify.wants(kind, priority)

    def preview(self, notification: Notification) -> str:
        """Return the subject and the text."""
        written = self._writer.write(notification)
        return f"Subject: {written.subject}\n\n{written.text}"

    async def notify(self, notification: Notification) -> Outcome | PartlyDelivered:
        """Send it once, and say which recipients the server has refused."""
        named = dict.fromkeys(notification.recipients or self._config.recipients)
        recipients = [one for one in named if _is_address(one)]
        wrong = {one: "it is no e-mail address" for one in named if not _is_address(one)}
        if not recipients:
            return Rejected("none of its recipients is an e-mail address" if named else "nobody is named as recipient")
        mail = self._mail(notification, recipients)
        is_sending = False
        try:
            async with asyncio.timeout(self._config.timeout_s), self._connected() as smtp:
                is_sending = True
                refused, _ = await smtp.sendmail(self._config.from_email, recipients, mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            answers = {one.recipient: (one.code, one.message) for one in error.recipients}
            return self._some_refused(answers, wrong, everybody=True)
        except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
            return self._failure(error, is_sending=is_sending)
        answers = {one: (answer.code, answer.message) for one, answer in refused.items()}
        return self._some_refused(answers, wrong, everybody=False) if answers or wrong else Ok()

    def _mail(self, notification: Notification, recipients: Iterable[str]) -> bytes:
        written, config = self._writer.write(notification), self._config
        mail = EmailMessage(policy=SMTP_POLICY)
        mail["From"] = Address(config.from_name, addr_spec=config.from_email)
        mail["To"] = tuple(Address(addr_spec=one) for one in recipients)
        mail["Subject"] = written.subject
        mail["Date"] = format_datetime(datetime.fromtimestamp(notification.at_ms / 1000, UTC))
        mail["Message-ID"] = f"<{notification.id}@{config.from_email.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is answered to it
        if notification.priority in ("high", "critical"):
            mail["Importance"] = "high"
        mail.set_content(written.text)
        return mail.as_bytes()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Yield a connection that is encrypted and logged in as the settings say."""
        config = self._config
        context = await asyncio.to_thread(ssl.create_default_context, cadata=config.ca) if config.use_tls else None
        connection = await open_socket(config.smtp_host.strip("[]"), config.smtp_port, self.egress)
        here = connection.getsockname()[0]
        smtp = aiosmtplib.SMTP(
            hostname=config.smtp_host.strip("[]"),
            sock=connection,
            local_hostname=f"[IPv6:{here}]" if ":" in here else f"[{here}]",  # RFC 5321, 4.1.3
            timeout=config.timeout_s,
            use_tls=config.begins_with_tls,
            start_tls=config.use_tls and not config.begins_with_tls,
            tls_context=context,
            username=config.username,
            password=None if config.password is None else config.password.get_secret_value(),
        )
        try:
            await smtp.connect()
            yield smtp
            with suppress(aiosmtplib.SMTPException, OSError):  # it has answered; how it says goodbye is its own matter
                await smtp.quit(timeout=min(_PATIENCE_S, config.timeout_s))
        finally:
            smtp.close()  # the connection, too

    # What answers mean

    def _some_refused(
        self, answers: dict[str, tuple[int, str]], wrong: dict[str, str], *, everybody: bool
    ) -> Outcome | PartlyDelivered:
        words = {one: self._shown(f"{code} {text}") for one, (code, text) in answers.items()}
        again = tuple(one for one, (code, _) in answers.items() if code // 100 == _TEMPORARY)
        refused = wrong | {one: words[one] for one in answers if one not in again}
        reason = "; ".join(f"{one}: {why}" for one, why in (words | wrong).items())
        if everybody and not refused:
            return RetryAfter(None, reason)
        if everybody and not again:
            return Rejected(reason)
        return PartlyDelivered(reason, again, refused)

    def _failure(self, error: Exception, *, is_sending: bool) -> Outcome:
        cause = error.__cause__ or error
        match cause:
            case NotAllowed():
                return WrongAddress(f"{cause.strerror}; to allow it, see egress.policy and egress.allow")
            case ssl.SSLCertVerificationError():
                return WrongAddress(f"its certificate is not accepted: {cause.verify_message}")
        match error:
            case aiosmtplib.SMTPResponseException():
                return self._answered(error)
            case OSError() | UnicodeError():  # timeouts and broken connections, too
                return NotConnected(self._broken(error, cause), sent=is_sending)
            case _ if "STARTTLS" in str(error):
                return WrongAddress("it offers no STARTTLS: see smtp_port, or use_tls if it is your own network")
        words = self._shown(str(error))
        return Rejected(words) if is_sending else AuthFailed(f"nobody can log in there: {words}")

    def _broken(self, error: Exception, cause: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._config.timeout_s:g} s"
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return f"cannot talk to {self._config.smtp_host}: {self._shown(words)}"

    def _answered(self, error: aiosmtplib.SMTPResponseException) -> Outcome:
        reason = self._shown(f"{error.code} {error.message}")
        if error.code // 100 == _TEMPORARY:
            return RetryAfter(None, reason)
        match error:
            case aiosmtplib.SMTPAuthenticationError():
                return AuthFailed(reason)
            case aiosmtplib.SMTPSenderRefused():
                return AuthFailed(f"it lets nobody write as {self._config.from_email}: {reason}")
            case aiosmtplib.SMTPDataError() if error.code == _TOO_LARGE:
                return TooLarge(reason)
            case aiosmtplib.SMTPDataError():
                return Rejected(reason)
            case _:
                return NotConnected(reason, sent=False)

    def _shown(self, text: str) -> str:
        """Return what a server said: one line, nothing private."""
        password = self._config.password
        if password is not None and password.get_secret_value() in text:
            return "(its answer repeats the password and is withheld)"
        return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_REASON_CHARACTERS]

    async def check(self) -> list[Finding]:
        """Connect, encrypt, log in, and ask whether the sender may write; no mail is sent."""
        config = self._config
        reached = await reach(config.smtp_host.strip("[]"), config.smtp_port, self.egress, self.clock, uses_tls=False)
        if not reached.is_connected:
            return reached.findings
        try:
            async with asyncio.timeout(min(_PATIENCE_S, config.timeout_s)), self._connected() as smtp:
                await smtp.mail(config.from_email)
                await smtp.rset()
        except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
            outcome = self._failure(error, is_sending=False)
            assert not isinstance(outcome, Ok)
            return [*reached.findings, broken(f"It does not take mail: {outcome.reason}.", _hint(outcome))]
        login = "without a login" if config.username is None else f"as {config.username}"
        encrypted = "encrypted" if config.use_tls else "unencrypted"
        return [*reached.findings, fine(f"It takes mail of {config.from_email}, {encrypted} and {login}.")]


def _hint(outcome: Outcome) -> str:
    match outcome:
        case AuthFailed():
            return "Correct username, password or from_email; some servers want a password made for programs."
        case WrongAddress():
            return "Correct smtp_host, smtp_port or use_tls; a server's own CA goes into `ca`."
        case _:
            return "See the mail server's own log."


def _is_address(text: str) -> bool:
    return len(text) <= _ADDRESS_CHARACTERS and _ADDRESS.fullmatch(text) is not None
