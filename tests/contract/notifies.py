"""What every integration promises that notifies: `NotifiesContract`, to be inherited with a `Receiver` of its own."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from cloud_sync.contract import (
    AuthFailed,
    Integration,
    NotConnected,
    Notification,
    Notifies,
    Ok,
    Rejected,
    RetryAfter,
    WrongAddress,
)
from cloud_sync.egress import Egress
from cloud_sync.payload.digest import digest
from gateway.config import EgressSettings
from tests.cloud_sync.samples import ANYWHERE, notification
from tests.contract.other_side import Contract

STRANGE = ("a\r\nb", "\N{BELL}" * 3, "<b>&amp;</b>", "{{title}}", "日本語 🚨", "x" * 8_000, "-" * 300 + "\n.\n.\r\n")


class Receiver(Protocol):
    """The other side of one integration: it takes everything unless it is told."""

    secrets: tuple[str, ...]
    """What nobody may be shown."""

    def integration(self, egress: Egress, **settings: Any) -> Integration:
        """Return the integration, not entered, that leads here."""
        ...

    def refuses(self, how: str) -> None:
        """Answer the next as one that is `busy`, `rejects` it, knows `nobody`, or `hangs`."""
        ...

    @property
    def came(self) -> list[tuple[str, str]]:
        """Ids and texts of what came."""
        ...

    async def goes(self) -> None:
        """Be gone: nothing listens there any more."""
        ...


class NotifiesContract(Contract):
    """To be inherited: `receiver` runs one."""

    @staticmethod
    def receiver() -> AbstractAsyncContextManager[Receiver]:
        raise NotImplementedError

    @staticmethod
    async def notify(receiver: Receiver, one: Notification, egress: Egress = ANYWHERE, **settings: Any) -> object:
        async with receiver.integration(egress, **settings) as integration:
            assert isinstance(integration, Notifies)
            outcome = await integration.notify(one)
        reason = getattr(outcome, "reason", "")
        assert not any(secret in reason for secret in receiver.secrets)
        return outcome

    async def test_what_is_told_arrives_with_its_id(self) -> None:
        async with self.receiver() as receiver:
            assert await self.notify(receiver, notification()) == Ok()
            ((name, text),) = receiver.came
            assert "6f1c" in name
            assert "The pump is off." in text

    async def test_a_retry_is_the_same_message(self) -> None:
        async with self.receiver() as receiver:
            for _ in range(2):
                assert await self.notify(receiver, notification()) == Ok()
            assert receiver.came[0] == receiver.came[1]

    @pytest.mark.parametrize(("how", "kind"), [("busy", RetryAfter), ("rejects", Rejected), ("nobody", AuthFailed)])
    async def test_what_it_answers_is_understood(self, how: str, kind: type) -> None:
        async with self.receiver() as receiver:
            receiver.refuses(how)
            assert type(await self.notify(receiver, notification())) is kind

    async def test_one_that_hangs_is_left_in_time_and_may_have_it(self) -> None:
        async with self.receiver() as receiver:
            receiver.refuses("hangs")
            async with asyncio.timeout(10):
                outcome = await self.notify(receiver, notification(), timeout_s=0.4)
            assert isinstance(outcome, NotConnected)
            assert outcome.sent

    async def test_one_that_is_not_there_has_certainly_got_nothing(self) -> None:
        async with self.receiver() as receiver:
            await receiver.goes()
            outcome = await self.notify(receiver, notification())
            assert isinstance(outcome, NotConnected)
            assert not outcome.sent

    async def test_egress_decides_where_it_goes(self) -> None:
        async with self.receiver() as receiver:
            outcome = await self.notify(receiver, notification(), Egress(EgressSettings(policy="public")))
            assert isinstance(outcome, WrongAddress)
            assert receiver.came == []

    async def test_whatever_is_told_can_be_told(self) -> None:
        async with self.receiver() as receiver:
            for strange in STRANGE:
                for fields in ({"message": strange}, {"subject": strange}, {"data": {strange: strange}}):
                    assert await self.notify(receiver, notification(**fields)) == Ok()
            assert len(receiver.came) == 3 * len(STRANGE)

    async def test_a_digest_says_how_many_and_what(self) -> None:
        async with self.receiver() as receiver:
            parts = [notification(id=str(n), subject=f"Pump {n % 2}") for n in range(9)]
            assert await self.notify(receiver, digest("5a5a", parts)) == Ok()
            ((name, text),) = receiver.came
            assert "5a5a" in name
            assert "9 more" in text
            assert "5 x [high] Pump 0" in text

    async def test_a_preview_shows_it_and_no_secret(self) -> None:
        async with self.receiver() as receiver:
            integration = receiver.integration(ANYWHERE, notify={"templates": {"mess*": {"text": "= {{message}} ="}}})
            assert isinstance(integration, Notifies)
            shown = integration.preview(notification())
            assert "= The pump is off. =" in shown
            assert not any(secret in shown + repr(integration.config) for secret in receiver.secrets)
            assert receiver.came == []

    async def test_it_wants_what_its_settings_say(self) -> None:
        async with self.receiver() as receiver:
            one = receiver.integration(ANYWHERE, notify={"kinds": ["alert.*"], "min_priority": "high"})
            assert isinstance(one, Notifies)
            assert one.wants("alert.raised", "high")
            assert not one.wants("alert.raised", "medium")
            assert not one.wants("message", "critical")
