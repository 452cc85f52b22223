"""The clouds, strict ones, as the suites need them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cloud_sync.contract import AuthFailed, NotConnected, Ok, Outcome, Rejected, RetryAfter, TooLarge, WrongAddress
from tests.cloud_sync.integrations.clouds import aws, azure, golioth, google
from tests.cloud_sync.integrations.clouds.http_cloud import HttpCloud
from tests.cloud_sync.integrations.mqtt_client.fake_broker import FakeBroker, fake_broker
from tests.contract.other_side import SECRET, Judge, port_of
from tests.faulty_link import Fault, FaultyLink


class Cloud:
    """Answers as it is told, in its own language, at the end of a line that may fail."""

    gets_them_singly = False

    def __init__(
        self,
        fake: HttpCloud,
        link: FaultyLink,
        settings: dict[str, Any],
        names: Mapping[type[Outcome], tuple[int, str]],
    ) -> None:
        self.settings = settings | {"endpoint": f"http://127.0.0.1:{link.port}/"}
        self.answers = frozenset({Ok, *names})
        self.received = fake.bodies
        self._fake = fake
        self._link = link
        self._names = names

    @property
    def said(self) -> bytes:
        return b"\n".join(map(self._fake.said, self.received))

    def answer(self, outcome: type[Outcome]) -> None:
        self._fake.refuses[:] = [] if outcome is Ok else [(*self._names[outcome], "no")] * 20

    def judge(self, judge: Judge) -> None:
        self._fake.judge = lambda said: None if judge(said) is Ok else (*self._names[judge(said)], "no")

    def fail(self, fault: Fault | None) -> None:
        self._link.fault = fault

    async def go_away(self) -> None:
        await self._fake.server.close()


@asynccontextmanager
async def aws_iot(_: Path) -> AsyncIterator[Cloud]:
    async with aws.fake_aws(secret_key=SECRET) as fake, FaultyLink(port_of(fake.server)) as link:
        settings = {"region": "eu-west-1", "access_key_id": aws.KEY_ID, "secret_access_key": SECRET}
        names: dict[type[Outcome], tuple[int, str]] = {
            AuthFailed: (403, "ForbiddenException"),
            RetryAfter: (400, "ThrottlingException"),
            NotConnected: (500, "InternalFailureException"),
            WrongAddress: (405, "MethodNotAllowedException"),
            TooLarge: (413, "RequestEntityTooLargeException"),
            Rejected: (400, "InvalidRequestException"),
        }
        yield Cloud(fake, link, settings, names)


@asynccontextmanager
async def azure_iot(_: Path) -> AsyncIterator[Cloud]:
    async with azure.fake_hub() as fake, FaultyLink(port_of(fake.server)) as link:
        fake.keys = {SECRET: azure.POLICY_KEY}
        settings = {"connection_string": azure.POLICY.replace("=device;", f"={SECRET};")}
        names: dict[type[Outcome], tuple[int, str]] = {
            AuthFailed: (401, "IotHubUnauthorizedAccess"),
            RetryAfter: (403, "IotHubQuotaExceeded"),
            NotConnected: (500, "ServerError"),
            WrongAddress: (405, "InvalidOperation"),
            TooLarge: (413, "MessageTooLarge"),
            Rejected: (404, "DeviceNotFound"),
        }
        yield Cloud(fake, link, settings, names)


@asynccontextmanager
async def google_iot(_: Path) -> AsyncIterator[Cloud]:
    account = google.made_account(SECRET)
    async with google.fake_pubsub(account) as fake, FaultyLink(port_of(fake.server)) as link:
        names: dict[type[Outcome], tuple[int, str]] = {
            AuthFailed: (403, "PERMISSION_DENIED"),
            RetryAfter: (429, "RESOURCE_EXHAUSTED"),
            NotConnected: (409, "ABORTED"),
            WrongAddress: (404, "NOT_FOUND"),
            Rejected: (400, "INVALID_ARGUMENT"),
        }
        settings = {"service_account_key": account.key_file}
        yield Cloud(fake, link, settings, names)


class Golioth:
    """Answers as it is told, in codes of CoAP."""

    answers: frozenset[type[Outcome]]
    gets_them_singly = False

    def __init__(self, fake: golioth.FakeGolioth) -> None:
        self.settings: dict[str, Any] = {"host": "127.0.0.1", "port": fake.port, "psk_id": golioth.PSK_ID}
        self.settings |= {"psk": SECRET, "webhook_secret": SECRET, "api_key": SECRET}
        self.received = fake.bodies
        self._fake = fake
        self._codes: dict[type[Outcome], str] = {
            AuthFailed: "4.03",
            RetryAfter: "4.29",
            NotConnected: "5.00",
            WrongAddress: "4.04",
            TooLarge: "4.13",
            Rejected: "4.00",
        }
        self.answers = frozenset({Ok, *self._codes})

    @property
    def said(self) -> bytes:
        return b"\n".join(self.received)

    def answer(self, outcome: type[Outcome]) -> None:
        self._fake.refuses.clear()
        if outcome is not Ok:
            self._fake.refuses.extend([(self._codes[outcome], None)] * 20)

    def judge(self, judge: Judge) -> None:
        self._fake.judge = lambda said: None if judge(said) is Ok else self._codes[judge(said)]

    def fail(self, fault: Fault | None) -> None:
        self._fake.hangs = fault == "hangs"
        self._fake.resets = 20 if fault == "is cut" else 0
        self._fake.slow_s = 5 if fault == "loses answers" else 0

    async def go_away(self) -> None:
        self._fake.transport.close()


@asynccontextmanager
async def golioth_side(_: Path) -> AsyncIterator[Golioth]:
    async with golioth.fake_golioth(devices={golioth.PSK_ID: SECRET}) as fake:
        yield Golioth(fake)


class MqttBroker:
    """A broker; what it has taken of a batch of three readings counts as one body."""

    answers = frozenset({Ok, AuthFailed, RetryAfter, NotConnected, WrongAddress, TooLarge, Rejected})
    gets_them_singly = True

    def __init__(self, fake: FakeBroker, link: FaultyLink) -> None:
        self.settings: dict[str, Any] = {"broker_url": "127.0.0.1", "port": link.port, "version": "5", "topic": "t"}
        self.settings |= {"username": "gateway", "password": SECRET}
        self._fake = fake
        self._link = link

    @property
    def received(self) -> list[bytes]:
        payloads = [one.payload for one in self._fake.came]
        return [b"\n".join(payloads[at : at + 3]) for at in range(0, len(payloads), 3)]

    @property
    def said(self) -> bytes:
        return b"\n".join(self.received)

    def answer(self, outcome: type[Outcome]) -> None:
        self._fake.refuses = {"*": _REASONS[outcome]} if outcome in _REASONS else {}
        self._fake.goes = {NotConnected: 0x98, TooLarge: 0x95}.get(outcome)

    def judge(self, judge: Judge) -> None:
        self._fake.judge = lambda said: _REASONS.get(judge(said), 0)

    def fail(self, fault: Fault | None) -> None:
        self._link.fault = fault

    async def go_away(self) -> None:
        self._fake.server.close()
        await self._fake.cut()


_REASONS: dict[type[Outcome], int] = {AuthFailed: 0x87, RetryAfter: 0x97, WrongAddress: 0x9A, Rejected: 0x99}


@asynccontextmanager
async def mqtt(_: Path) -> AsyncIterator[MqttBroker]:
    async with fake_broker(says="no") as fake, FaultyLink(fake.port) as link:
        yield MqttBroker(fake, link)


@asynccontextmanager
async def mqtt_external(_: Path) -> AsyncIterator[MqttBroker]:
    async with fake_broker() as fake, FaultyLink(fake.port) as link:
        side = MqttBroker(fake, link)
        del side.settings["topic"]
        side.settings["brokerUrl"] = side.settings.pop("broker_url")
        side.settings["topics"] = "plant/#"
        yield side
