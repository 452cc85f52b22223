"""The line to Golioth, DTLS and CoAP by UDP: keys that are refused without a word, silences, losses, addresses."""

import asyncio
import socket

import pytest

from cloud_sync.contract import AuthFailed, NotConnected, Ok, Rejected, RetryAfter, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.coap import session
from gateway.clock import ManualClock
from gateway.config import EgressSettings
from tests.cloud_sync.integrations.clouds.golioth import (
    MINE,
    PROJECT,
    PSK,
    PSK_ID,
    fake_golioth,
    known,
    made,
    per_device,
)
from tests.cloud_sync.samples import NOW_MS, batch, batch_of, sent
from tests.ports import free_port


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silences about a key be as good as a refusal however soon they follow each other."""
    monkeypatch.setattr(session, "_REFUSED_AFTER_S", 0.0)


@pytest.mark.usefixtures("hasty")
async def test_a_device_whose_key_is_wrong_holds_up_no_other_for_long_and_is_left_alone_for_a_while() -> None:
    clock = ManualClock(NOW_MS)
    keys = per_device("d1", "d2", d1="another key")
    async with fake_golioth(devices=known("d1", "d2")) as fake, made(fake, clock, **keys, timeout_s=0.4) as it:
        given = batch_of("d1", "d2", "d3")
        assert [type(await sent(it, given)) for _ in range(2)] == [NotConnected] * 2
        outcome = await sent(it, given)
        assert isinstance(outcome, Rejected)
        assert outcome.rows == [1, 3]
        assert "device d1" in outcome.reason
        assert [who for who, *_ in fake.streamed] == [f"d2@{PROJECT}"]
        before = fake.datagrams
        assert await sent(it, batch_of("d1", message_id="msg_2", first_row=4)) != Ok()
        assert fake.datagrams == before
        clock.advance(6 * 60_000)
        fake.devices[f"d1@{PROJECT}"] = "another key"
        assert await sent(it, batch_of("d1", message_id="msg_2", first_row=4)) == Ok()


@pytest.mark.usefixtures("hasty")
async def test_a_key_that_golioth_does_not_have_is_said_as_such_although_golioth_says_nothing() -> None:
    async with fake_golioth() as fake, made(fake, psk="another key", timeout_s=0.3) as it:
        outcomes = [await sent(it, batch()) for _ in range(4)]
        assert [type(one) for one in outcomes] == [NotConnected, NotConnected, AuthFailed, AuthFailed]
        assert all("psk_id or psk" in getattr(one, "reason", "") for one in outcomes)
        assert fake.handshakes == 0


async def test_where_golioth_says_that_it_knows_nobody_of_that_name_it_is_believed_at_once() -> None:
    async with fake_golioth() as fake, made(fake, psk_id=f"nobody@{PROJECT}", timeout_s=30) as it, asyncio.timeout(15):
        outcome = await sent(it, batch())
        assert isinstance(outcome, AuthFailed)
        assert "psk_id or psk" in outcome.reason


@pytest.mark.parametrize("mode", ["gateway", "per_device"])
async def test_p1_silences_that_are_few_or_soon_over_refuse_no_key(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started anew between its hello and its last word is silent, too."""
    monkeypatch.setattr(session, "_KEPT_S", -1.0)
    settings = MINE if mode == "gateway" else per_device("d1")
    async with fake_golioth(devices={PSK_ID: PSK} | known("d1")) as fake, made(fake, **settings, timeout_s=0.3) as it:
        fake.silences = 4
        soon = [await sent(it, batch_of("d1")) for _ in range(4)]
        assert [(type(one), getattr(one, "sent", None)) for one in soon] == [(NotConnected, False)] * 4
        assert await sent(it, batch_of("d1")) == Ok()
        monkeypatch.setattr(session, "_REFUSED_AFTER_S", 0.0)
        fake.silences = 2
        few = [await sent(it, batch_of("d1", message_id="msg_2", first_row=2)) for _ in range(3)]
        assert [type(one) for one in few] == [NotConnected, NotConnected, Ok]
    assert [one["seq"] for *_, readings in fake.streamed for one in readings] == [1, 2]


async def test_one_that_is_silent_or_gone_is_told_from_one_that_refuses() -> None:
    async with fake_golioth(is_deaf=True) as fake, made(fake, timeout_s=0.3) as it:
        outcome = await sent(it, batch())
        assert outcome == NotConnected(f"127.0.0.1, UDP port {fake.port}, does not answer")
        assert isinstance(outcome, NotConnected)
        assert not outcome.sent
    async with made(port=free_port(), timeout_s=30) as it, asyncio.timeout(15):
        outcome = await sent(it, batch())
        assert isinstance(outcome, NotConnected)
        assert "refused" in outcome.reason


async def test_an_address_to_which_no_way_leads_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """UDP connects to anything: only a silence tells."""
    monkeypatch.setattr(session, "_KEPT_S", -1.0)
    devices = per_device("d1", "d2")
    async with fake_golioth(is_deaf=True) as dead, fake_golioth(devices=known("d1", "d2")) as fake:
        found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", one.port)) for one in (dead, fake)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
        async with made(fake, **devices, timeout_s=0.4) as it:
            given = batch_of("d1", "d2")
            assert [await sent(it, given) == Ok() for _ in range(2)] == [False, True]
            heard = dead.datagrams
            assert await sent(it, batch_of("d1", "d2", message_id="msg_2", first_row=3)) == Ok()
            assert dead.datagrams == heard, "it goes on by the one that answers"
            fake.is_deaf, dead.is_deaf = True, False
            dead.devices = fake.devices
            again = batch_of("d1", message_id="msg_3", first_row=5)
            assert [await sent(it, again) == Ok() for _ in range(2)] == [False, True]


async def test_a_check_tries_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_golioth(is_deaf=True) as dead, fake_golioth(devices=known("d1", "d2")) as fake:
        hosts = (("127.0.0.2", dead.port), ("127.0.0.1", fake.port))
        found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", one) for one in hosts]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
        async with made(fake, **per_device("d1", "d2"), timeout_s=0.8) as it:
            assert [finding.level for finding in await it.check()] == ["ok", "ok"]


async def test_egress_holds_for_udp() -> None:
    async with fake_golioth() as fake, made(fake, egress=Egress(EgressSettings(policy="public"))) as it:
        outcome = await sent(it, batch())
        assert isinstance(outcome, WrongAddress)
        assert "egress" in outcome.reason
        assert [finding.level for finding in await it.check()] == ["broken"]
        assert fake.datagrams == 0


async def test_one_that_hangs_is_left_in_time_and_a_new_session_follows() -> None:
    async with fake_golioth() as fake, made(fake, timeout_s=0.4) as it:
        assert await sent(it, batch()) == Ok()
        fake.hangs = True
        async with asyncio.timeout(15):
            outcome = await sent(it, batch(message_id="msg_2"))
        assert isinstance(outcome, NotConnected)
        assert outcome.sent
        fake.hangs = False
        assert await sent(it, batch(message_id="msg_2")) == Ok()
        assert fake.handshakes == 2


async def test_a_server_that_has_forgotten_the_session_is_shaken_hands_with_again() -> None:
    async with fake_golioth() as fake, made(fake, timeout_s=0.4) as it:
        assert await sent(it, batch()) == Ok()
        fake.forget()
        assert await sent(it, batch(message_id="msg_2")) != Ok()
        assert await sent(it, batch(message_id="msg_2")) == Ok()


async def test_after_a_pause_that_a_nat_may_not_survive_there_is_a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_golioth() as fake, made(fake) as it:
        assert await sent(it, batch()) == Ok()
        fake.forget()
        monkeypatch.setattr(session, "_KEPT_S", 0.05)
        await asyncio.sleep(0.1)
        assert await sent(it, batch(message_id="msg_2")) == Ok()
        assert fake.handshakes == 2


async def test_what_is_lost_is_sent_again_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_ACK_TIMEOUT_S", 0.02)
    async with fake_golioth(loses=2) as fake, made(fake) as it:
        assert await sent(it, batch()) == Ok()
        assert fake.requests == 1


async def test_an_answer_may_come_after_its_acknowledgement_and_others_are_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_ACK_TIMEOUT_S", 0.3)
    async with fake_golioth(slow_s=0.8) as fake, made(fake) as it:
        assert await sent(it, batch()) == Ok()
        assert (fake.requests, fake.repeats) == (1, 0), "what is acknowledged is not sent again"
        fake.refuses.append(("4.29", 3))
        assert await sent(it, batch(message_id="msg_2")) == RetryAfter(
            3, "CoAP 4.29 (its answer repeats a secret and is withheld)"
        )


async def test_a_reset_is_a_failure_that_may_pass() -> None:
    async with fake_golioth(resets=1) as fake, made(fake) as it:
        assert isinstance(await sent(it, batch()), NotConnected)
        assert await sent(it, batch()) == Ok()
