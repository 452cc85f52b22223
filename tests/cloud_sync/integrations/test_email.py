"""E-mail, against a real mail server: encryption, login, what it refuses, and what nobody can slip in."""

from typing import Any

import pytest
from pydantic import ValidationError

from cloud_sync.contract import (
    AuthFailed,
    NotConnected,
    Notification,
    Ok,
    Outcome,
    PartlyDelivered,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.integrations.email import Email
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from tests.cloud_sync.integrations.certificates import Authority, serving
from tests.cloud_sync.integrations.mail_server import PASSWORD, Mailbox, mail_server
from tests.cloud_sync.samples import ANYWHERE, NOW_MS, notification
from tests.ports import free_port

LOGIN: dict[str, Any] = {"username": "gateway", "password": PASSWORD}


def config(port: int, **settings: Any) -> Email.Config:
    base = {"type": "email", "name": "mail", "smtp_host": "127.0.0.1", "smtp_port": port, "use_tls": False}
    base |= {"from_email": "gateway@example.org", "recipients": ["anna@example.org"], "timeout_s": 5.0}
    return Email.Config.model_validate(base | settings)


async def notify(
    mailbox: Mailbox, told: Notification | None = None, *, egress: Egress = ANYWHERE, **settings: Any
) -> Outcome | PartlyDelivered:
    async with Email(config(mailbox.port, **settings), ManualClock(NOW_MS), egress) as email:
        return await email.notify(told or notification())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def test_a_mail_says_what_it_is_to_say() -> None:
    async with mail_server() as mailbox:
        told = notification(message="Die Pumpe läuft nicht.\nBitte prüfen.", data={"pump": 3})
        assert await notify(mailbox, told, recipients="anna@example.org, ben@example.org") == Ok()
    ((recipients, mail),) = mailbox.came
    assert recipients == ["anna@example.org", "ben@example.org"]
    assert mail["To"] == "anna@example.org, ben@example.org"
    assert mail["From"] == "neurogate <gateway@example.org>"
    assert mail["Subject"] == "[high] Pump"
    assert mail["Message-ID"] == "<6f1c@example.org>"
    assert (mail["Auto-Submitted"], mail["Importance"]) == ("auto-generated", "high")
    assert mail["Date"].datetime.timestamp() == NOW_MS // 1000
    text = mail.get_content()
    assert text.startswith("Die Pumpe läuft nicht.\r\nBitte prüfen.\r\n\r\npump: 3\r\n")
    assert "notification 6f1c" in text


async def test_a_notification_may_name_its_recipients() -> None:
    async with mail_server() as mailbox:
        assert await notify(mailbox, notification(recipients=("eva@example.org",))) == Ok()
    assert mailbox.came[0][0] == ["eva@example.org"]


async def test_starttls_and_a_login(authority: Authority) -> None:
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    ca = authority.file.read_text()
    async with mail_server(starttls=context, login=True) as mailbox:
        assert await notify(mailbox, use_tls=True, ca=ca, **LOGIN) == Ok()
        assert set(mailbox.logins) == {"gateway"}
        wrong = await notify(mailbox, use_tls=True, ca=ca, username="gateway", password="nonsense")
        assert isinstance(wrong, AuthFailed)
        assert "535" in wrong.reason
        nobody = await notify(mailbox, use_tls=True, ca=ca)
        assert isinstance(nobody, AuthFailed)  # 530: it wants a login
    assert len(mailbox.came) == 1


async def test_tls_from_the_first_byte(authority: Authority) -> None:
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    ca = authority.file.read_text()
    async with mail_server(tls=context, login=True) as mailbox:
        assert await notify(mailbox, use_tls=True, implicit_tls=True, ca=ca, **LOGIN) == Ok()
    assert len(mailbox.came) == 1
    assert config(465, use_tls=True).begins_with_tls
    assert not config(587, use_tls=True).begins_with_tls


@pytest.mark.parametrize("implicit", [True, False])
async def test_a_certificate_that_nobody_vouches_for_gets_no_password(authority: Authority, implicit: bool) -> None:
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    name = "tls" if implicit else "starttls"
    async with mail_server(**{name: context}, login=True) as mailbox:
        outcome = await notify(mailbox, use_tls=True, implicit_tls=implicit, **LOGIN)
    assert isinstance(outcome, WrongAddress)
    assert "certificate" in outcome.reason
    assert mailbox.logins == []


async def test_a_certificate_for_another_name_is_none(authority: Authority) -> None:
    context = authority.server("mail.example.org", begins_days=-1, ends_days=30)
    async with mail_server(starttls=context) as mailbox:
        outcome = await notify(mailbox, use_tls=True, ca=authority.file.read_text())
    assert isinstance(outcome, WrongAddress)


async def test_without_starttls_nothing_goes_out() -> None:
    async with mail_server() as mailbox:
        outcome = await notify(mailbox, use_tls=True)
    assert outcome == WrongAddress("it offers no STARTTLS: see smtp_port, or use_tls if it is your own network")
    assert mailbox.came == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("451 try later", RetryAfter),
        ("452 no room", RetryAfter),
        ("550 spam", Rejected),
        ("554 no", Rejected),
        ("552 too large", TooLarge),
    ],
)
async def test_what_is_said_of_the_mail(answer: str, kind: type[Outcome]) -> None:
    async with mail_server() as mailbox:
        mailbox.to_data = [answer]
        outcome = await notify(mailbox)
        assert type(outcome) is kind
        assert not isinstance(outcome, Ok)
        assert outcome.reason == answer
        assert await notify(mailbox) == Ok()


@pytest.mark.parametrize(("answer", "kind"), [("451 busy", RetryAfter), ("553 not yours", AuthFailed)])
async def test_what_is_said_of_the_sender(answer: str, kind: type[Outcome]) -> None:
    async with mail_server() as mailbox:
        mailbox.to_sender = answer
        assert type(await notify(mailbox)) is kind


async def test_a_login_that_is_put_off_is_no_wrong_one(authority: Authority) -> None:
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    async with mail_server(starttls=context, login=True) as mailbox:
        mailbox.to_login = "454 4.7.0 Temporary authentication failure"
        outcome = await notify(mailbox, use_tls=True, ca=authority.file.read_text(), **LOGIN)
    assert isinstance(outcome, RetryAfter)


async def test_some_recipients_may_be_refused_and_the_others_have_it() -> None:
    everybody = ["anna@example.org", "ben@example.org", "cora@example.org"]
    async with mail_server() as mailbox:
        mailbox.refuses = {"ben@example.org": "550 no such user", "cora@example.org": "450 greylisted"}
        outcome = await notify(mailbox, recipients=everybody)
    assert isinstance(outcome, PartlyDelivered)
    assert outcome.again == ("cora@example.org",)
    assert outcome.refused == {"ben@example.org": "550 no such user"}
    assert mailbox.came[0][0] == ["anna@example.org"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("550 no", "550 no"), Rejected("a@x.org: 550 no; b@x.org: 550 no")),
        (("450 later", "450 later"), RetryAfter(None, "a@x.org: 450 later; b@x.org: 450 later")),
        (
            ("550 no", "450 later"),
            PartlyDelivered("a@x.org: 550 no; b@x.org: 450 later", ("b@x.org",), {"a@x.org": "550 no"}),
        ),
    ],
)
async def test_everybody_may_be_refused(answers: tuple[str, str], expected: Outcome) -> None:
    async with mail_server() as mailbox:
        mailbox.refuses = dict(zip(("a@x.org", "b@x.org"), answers, strict=True))
        assert await notify(mailbox, recipients=["a@x.org", "b@x.org"]) == expected


async def test_what_is_no_address_is_told_and_the_others_get_it() -> None:
    async with mail_server() as mailbox:
        outcome = await notify(mailbox, notification(recipients=("anna@example.org", "ben")))
        assert isinstance(outcome, PartlyDelivered)
        assert outcome.refused == {"ben": "it is no e-mail address"}
        assert isinstance(await notify(mailbox, notification(recipients=("ben",))), Rejected)
        assert isinstance(await notify(mailbox, recipients=[]), Rejected)
    assert len(mailbox.came) == 1


async def test_nobody_there_is_certain_to_have_got_nothing() -> None:
    outcome = await notify(Mailbox(free_port()))
    assert isinstance(outcome, NotConnected)
    assert not outcome.sent


async def test_a_server_that_hangs_is_left_and_may_have_taken_it() -> None:
    async with mail_server() as mailbox:
        mailbox.hangs = True
        outcome = await notify(mailbox, timeout_s=0.5)
    assert isinstance(outcome, NotConnected)
    assert outcome.sent
    assert outcome.reason == "no answer within 0.5 s"


async def test_a_server_that_says_nothing_is_left() -> None:
    async with serving(None) as port:
        outcome = await notify(Mailbox(port), timeout_s=0.3)
    assert isinstance(outcome, NotConnected)
    assert not outcome.sent


async def test_egress_forbids_addresses() -> None:
    async with mail_server() as mailbox:
        outcome = await notify(mailbox, egress=Egress(EgressSettings(policy="public")))
    assert isinstance(outcome, WrongAddress)
    assert "egress.policy" in outcome.reason


@pytest.mark.parametrize(
    "evil", ["x\r\nBcc: eve@x.org", "x\nBcc: eve@x.org", "x\rBcc: eve@x.org", "x\u2028Bcc: eve@x.org"]
)
async def test_nothing_that_is_told_can_add_a_header_or_a_recipient(evil: str) -> None:
    async with mail_server() as mailbox:
        for fields in ({"subject": evil}, {"subject": "", "message": evil}, {"subject": "a", "message": evil}):
            assert await notify(mailbox, notification(**fields)) == Ok()
        outcome = await notify(mailbox, notification(recipients=("anna@example.org", f"ben@example.org{evil}")))
        assert isinstance(outcome, PartlyDelivered)
    assert [recipients for recipients, _ in mailbox.came] == [["anna@example.org"]] * 4
    assert all(mail["Bcc"] is None for _, mail in mailbox.came)


@pytest.mark.parametrize(
    "wrong",
    [
        {"from_email": "gateway"},
        {"from_email": "gateway@example.org\r\nBcc: eve@x.org"},
        {"from_email": "Gate Way <gateway@example.org>"},
        {"from_name": "neuro\r\ngate"},
        {"recipients": ["anna@example.org", "ben@"]},
        {"smtp_host": "mail.example.org\r\nX"},
        {"username": "gateway"},
        {"password": PASSWORD},
        {"use_tls": False, **LOGIN},
        {"use_tls": False, "implicit_tls": True},
        {"ca": "-----BEGIN CERTIFICATE-----\nnonsense"},
        {"notify": {"templates": {"*": {"text": "{{nonsense}}"}}}},
    ],
)
def test_settings_that_cannot_be_are_refused_and_no_secret_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(25, **wrong)
    assert PASSWORD not in str(caught.value)


def test_the_name_of_the_sender_may_be_any() -> None:
    email = Email(config(25, from_name='Büro "Nord", <x@y.org>'), ManualClock(NOW_MS), ANYWHERE)
    head = email._mail(notification(), ["anna@example.org"]).split(b"\r\n\r\n")[0].decode("ascii")
    assert head.count("From:") == 1
    assert "<gateway@example.org>" in head


async def test_a_check_goes_up_to_the_sender_and_sends_nothing(authority: Authority) -> None:
    context = authority.server("127.0.0.1", begins_days=-1, ends_days=30)
    ca = authority.file.read_text()

    async def levels(mailbox: Mailbox, **settings: Any) -> list[str]:
        async with Email(config(mailbox.port, **settings), ManualClock(NOW_MS), ANYWHERE) as email:
            return [one.level for one in await email.check()]

    async with mail_server(starttls=context, login=True) as mailbox:
        assert await levels(mailbox, use_tls=True, ca=ca, **LOGIN) == ["ok", "ok"]
        assert mailbox.senders == ["gateway@example.org"]
        assert await levels(mailbox, use_tls=True, **LOGIN) == ["ok", "broken"]
        assert await levels(mailbox, use_tls=True, ca=ca, username="gateway", password="wrong") == ["ok", "broken"]
        mailbox.to_sender = "553 not yours"
        assert await levels(mailbox, use_tls=True, ca=ca, **LOGIN) == ["ok", "broken"]
    assert mailbox.came == []
    assert await levels(mailbox) == ["broken"]


async def test_what_repeats_the_password_is_not_shown() -> None:
    async with mail_server() as mailbox:
        email = Email(config(mailbox.port, use_tls=True, **LOGIN), ManualClock(NOW_MS), ANYWHERE)
        assert PASSWORD not in email._shown(f"535 wrong: {PASSWORD}")
