"""What MQTT 3.1.1 demands of a server, where no other file shows it; mqtt311.md tells what is proved where."""

import asyncio

import pytest

from gateway.broker.packets import encode_packet, encode_text
from gateway.storage.state import DeviceCredential
from tests.broker.raw import (
    ACCEPTED,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    RawClient,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    subscribe,
)
from tests.site import Site, reading, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
SESSION_PRESENT = b"\x20\x02\x01\x00"
REFUSED = b"\x20\x02\x00\x05"
BOM = "\ufeff"
NOT_TEXT = {
    "not-utf-8": b"\xff",
    "cut-off": b"\xc3",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "null": b"a\x00b",
}
"""Bytes that are no string of the standard (1.5.3)."""
NO_FILTERS = ["a#", "#/b", "a/#/b", "a+", "+a/b", "devices/kitchen/#/x", "devices/kitchen/a+"]


def field(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes = b"") -> bytes:
    return encode_packet(first, body)


def unsubscribe(*filters: str, packet_id: int = 1) -> bytes:
    return packet(0xA2, packet_id.to_bytes(2, "big") + b"".join(map(encode_text, filters)))


def raw_connect(*fields: bytes, flags: int, first: int = 0x10, name: bytes = b"MQTT", level: int = 4) -> bytes:
    return packet(first, field(name) + bytes([level, flags, 0, 60]) + b"".join(map(field, fields)))


def suback(packet_id: int, *codes: int) -> bytes:
    return packet(0x90, packet_id.to_bytes(2, "big") + bytes(codes))


def unsuback(packet_id: int) -> bytes:
    return packet(0xB0, packet_id.to_bytes(2, "big"))


async def malformed(site: Site) -> float:
    return await site.metric('neurogate_front_door_refused_total{reason="malformed"}')


def wrong_connects(who: DeviceCredential) -> dict[str, bytes]:
    """CONNECT packets of which each breaks one rule; but for it, each would be let in."""
    name, password = who.username.encode(), who.password.encode()
    login = (name, password)
    whole = raw_connect(b"c", *login, flags=0xC2)
    wrong = {
        "reserved-flag": raw_connect(b"c", *login, flags=0xC3),
        "will-qos-3": raw_connect(b"c", STATUS.encode(), b"x", *login, flags=0xC2 | 0x04 | 0x18),
        "will-qos-without-will": raw_connect(b"c", *login, flags=0xC2 | 0x08),
        "will-retain-without-will": raw_connect(b"c", *login, flags=0xC2 | 0x20),
        "will-fields-missing": raw_connect(b"c", *login, flags=0xC2 | 0x04),
        "will-fields-without-flag": raw_connect(b"c", STATUS.encode(), b"x", *login, flags=0xC2),
        "will-topic-empty": raw_connect(b"c", b"", b"x", *login, flags=0xC2 | 0x04),
        "will-topic-wildcard": raw_connect(b"c", b"devices/kitchen/#", b"x", *login, flags=0xC2 | 0x04),
        "username-missing": raw_connect(b"c", flags=0x82),
        "username-without-flag": raw_connect(b"c", *login, flags=0x02),
        "password-missing": raw_connect(b"c", name, flags=0xC2),
        "password-without-flag": raw_connect(b"c", *login, flags=0x82),
        "password-without-username": raw_connect(b"c", password, flags=0x42),
        "no-payload": raw_connect(flags=0xC2),
        "nothing-at-all": packet(0x10),
        "one-byte-more": packet(0x10, whole[2:] + b"\0"),
        "one-byte-less": packet(0x10, whole[2:-1]),
    }
    for what, text in NOT_TEXT.items():
        wrong[f"client-id-{what}"] = raw_connect(text, *login, flags=0xC2)
        wrong[f"will-topic-{what}"] = raw_connect(b"c", STATUS.encode() + text, b"x", *login, flags=0xC2 | 0x04)
        wrong[f"username-{what}"] = raw_connect(b"c", name + text, password, flags=0xC2)
    for flags in range(1, 16):
        wrong[f"fixed-header-flags-{flags}"] = bytes([0x10 | flags]) + whole[1:]
    return wrong


# CONNECT


async def test_a_connect_that_breaks_a_rule_is_closed_without_an_answer(site: Site) -> None:
    wrong = wrong_connects(site.kitchen)
    async with RawClient.open(site, raw_connect(b"c", flags=0x02)) as client:
        assert await client.rest() == REFUSED  # so it is the rule that makes the difference
    answers = {}
    for what, hello in wrong.items():
        async with RawClient.open(site, hello + PINGREQ) as client:
            answers[what] = await client.rest()
    assert {what: answer for what, answer in answers.items() if answer} == {}
    assert await malformed(site) == len(wrong)


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"MQTT", 3, b"\x20\x02\x00\x01"),
        (b"MQTT", 0, b"\x20\x02\x00\x01"),
        (b"MQTT", 6, b"\x20\x02\x00\x01"),
        (b"MQTT", 0x84, b"\x20\x02\x00\x01"),
        (b"MQIsdp", 3, b"\x20\x02\x00\x01"),
        (b"MQIsdp", 4, b"\x20\x02\x00\x01"),
        (b"MQTT", 5, b"\x20\x03\x00\x84\x00"),
        (b"mqtt", 4, b""),
        (b"AMQP", 4, b""),
        (b"MQTT\0", 4, b""),
        (b"", 4, b""),
    ],
)
async def test_another_protocol_or_version_is_told_so_in_its_own_words_or_closed(
    site: Site, name: bytes, level: int, answer: bytes
) -> None:
    login = (site.kitchen.username.encode(), site.kitchen.password.encode())
    async with RawClient.open(site, raw_connect(b"c", *login, flags=0xC2, name=name, level=level) + PINGREQ) as client:
        assert await client.rest() == answer
    assert await site.metric('neurogate_front_door_refused_total{reason="unsupported_protocol"}') == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_second_connect_ends_the_connection_and_leaves_the_will(site: Site, at_once: bool) -> None:
    who = site.kitchen
    hello = connect("twice", who.username, who.password, will=(STATUS, b"gone"))
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        async with RawClient.open(site, hello * 2 if at_once else hello) as client:
            await client.expect(ACCEPTED)
            if not at_once:
                client.send(hello)
            assert await client.rest() == b""
        await watcher.expect(publish(STATUS, b"gone"))
        assert await malformed(site) == 1


async def test_nothing_that_stands_behind_a_refused_connect_is_looked_at(site: Site) -> None:
    behind = publish(TOPIC, reading(), qos=1) + subscribe("#") + b"\xff\xff\xff\xff\xff\xff" + DISCONNECT
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe("devices/kitchen/#"))
        await watcher.packet()
        evil = connect("evil", site.kitchen.username, "wrong", will=(STATUS, b"x"))
        async with RawClient.open(site, evil + behind) as client:
            assert await client.rest() == REFUSED
        assert await watcher.is_alive()
    assert site.log.last_row == 0
    assert await site.quarantined() == []
    assert await malformed(site) == 0


@pytest.mark.parametrize(
    "client_id", ["0", "9azAZ", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVW", "nopqrstuvwxyzXYZ"]
)
async def test_every_client_id_of_letters_and_digits_is_allowed(site: Site, client_id: str) -> None:
    async with RawClient.login(site, client_id=client_id) as client:
        assert await client.is_alive()


async def test_clients_without_an_id_are_each_one_of_their_own(site: Site) -> None:
    async with RawClient.login(site, client_id="") as one, RawClient.login(site, client_id="") as other:
        for client in (one, other):
            client.send(subscribe(STATUS))
            await client.packet()
        assert await one.is_alive()
        assert await other.is_alive()


async def test_a_client_without_an_id_that_wants_to_be_remembered_is_refused(site: Site) -> None:
    who = site.kitchen
    async with RawClient.open(site, connect("", who.username, who.password, clean=False) + PINGREQ) as client:
        assert await client.rest() == b"\x20\x02\x00\x02"


async def test_a_refusal_never_says_that_there_is_a_session(site: Site) -> None:
    who = site.kitchen
    async with RawClient.login(site, client_id="kept", clean=False) as client:
        client.send(DISCONNECT)
        await client.rest()
    async with RawClient.open(site, connect("kept", who.username, "wrong", clean=False)) as client:
        assert await client.rest() == REFUSED
    async with RawClient.open(site, connect("kept", who.username, who.password, clean=False)) as client:
        await client.expect(SESSION_PRESENT)


# Every packet: flags, lengths, identifiers, text


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x40, b"\0\1"),
        (0x50, b"\0\1"),
        (0x62, b"\0\1"),
        (0x70, b"\0\1"),
        (0x82, b"\0\1" + encode_text(STATUS) + b"\0"),
        (0xA2, b"\0\1" + encode_text(STATUS)),
        (0xC0, b""),
        (0xE0, b""),
    ],
    ids=["puback", "pubrec", "pubrel", "pubcomp", "subscribe", "unsubscribe", "pingreq", "disconnect"],
)
async def test_reserved_flags_end_the_connection(site: Site, first: int, body: bytes) -> None:
    wrong = [first & 0xF0 | flags for flags in range(16) if flags != first & 0x0F]
    for byte in wrong:
        async with RawClient.login(site) as client:
            client.send(packet(byte, body), PINGREQ)
            assert await client.rest() == b""
    assert await malformed(site) == len(wrong)


@pytest.mark.parametrize("kind", [0, 2, 9, 11, 13, 15])
async def test_what_only_a_server_sends_and_what_nobody_does_end_the_connection(site: Site, kind: int) -> None:
    for body in (b"", b"\0\1", b"\0\1\0"):
        async with RawClient.login(site) as client:
            client.send(packet(kind << 4, body), PINGREQ)
            assert await client.rest() == b""
    assert await malformed(site) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        *(packet(first, body) for first in (0x40, 0x50, 0x62, 0x70) for body in (b"", b"\1", b"\0\0", b"\0\1\0")),
        packet(0xC0, b"x"),
        packet(0xE0, b"x"),
        packet(0x30),
        packet(0x30, b"\0"),
        packet(0x30, b"\0\0"),
        packet(0x32, field(STATUS.encode())),
        packet(0x32, field(STATUS.encode()) + b"\1"),
        *(packet(0x82, (b"\0\1" + encode_text("a/b") + b"\1")[:cut]) for cut in range(8)),
        *(packet(0xA2, (b"\0\1" + encode_text("a/b"))[:cut]) for cut in range(7)),
        packet(0x82, b"\0\0" + encode_text(STATUS) + b"\0"),
        packet(0xA2, b"\0\0" + encode_text(STATUS)),
        *(packet(0x82, b"\0\1" + encode_text(STATUS) + bytes([qos])) for qos in (3, 4, 0x80, 0xFE)),
        publish(STATUS, qos=1, packet_id=0),
        publish(STATUS, qos=2, packet_id=0),
        publish(STATUS, qos=3),
        publish(STATUS, qos=3, dup=True),
        publish(STATUS, qos=0, dup=True),
        *(publish(STATUS.encode() + text, qos=1) for text in NOT_TEXT.values()),
        *(packet(0x82, b"\0\1" + field(STATUS.encode() + text) + b"\0") for text in NOT_TEXT.values()),
        *(packet(0xA2, b"\0\1" + field(STATUS.encode() + text)) for text in NOT_TEXT.values()),
        *(subscribe(STATUS, name) for name in [*NO_FILTERS, ""]),
        *(unsubscribe(STATUS, name) for name in [*NO_FILTERS, ""]),
        b"\xc0\x80\x80\x80\x80\x00",
        b"\x30\xff\xff\xff\xff",
    ],
    ids=bytes.hex,
)  # fmt: skip
async def test_a_packet_that_breaks_a_rule_ends_its_connection(site: Site, wrong: bytes) -> None:
    async with RawClient.login(site) as client:
        client.send(wrong, PINGREQ)
        assert await client.rest() == b""
    assert await malformed(site) == 1


async def test_a_protocol_error_leaves_the_will_and_its_neighbour_alone(site: Site) -> None:
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        async with RawClient.login(site, will=(STATUS, b"gone")) as client:
            client.send(publish("devices/kitchen/+"))
            assert await client.rest() == b""
        await watcher.expect(publish(STATUS, b"gone"))


# PUBLISH and its acknowledgements


@pytest.mark.parametrize("packet_id", [1, 0x1234, 0xFFFF])
async def test_every_acknowledgement_carries_the_id_of_what_it_answers(site: Site, packet_id: int) -> None:
    async with RawClient.login(site) as client:
        client.send(publish(STATUS, qos=1, packet_id=packet_id))
        await client.expect(puback(packet_id))
        client.send(publish(STATUS, qos=2, packet_id=packet_id))
        await client.expect(pubrec(packet_id))
        client.send(pubrel(packet_id))
        await client.expect(pubcomp(packet_id))
        client.send(subscribe(STATUS, packet_id=packet_id))
        await client.expect(suback(packet_id, 0))
        client.send(unsubscribe(STATUS, packet_id=packet_id))
        await client.expect(unsuback(packet_id))


async def test_after_its_puback_an_id_is_free_again(site: Site) -> None:
    """4.3.2: whatever its DUP flag says, it is a new message then."""
    async with RawClient.login(site, client_id="watcher") as watcher, RawClient.login(site) as client:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        for payload, dup in ((b"1", False), (b"2", True), (b"3", False)):
            client.send(publish(STATUS, payload, qos=1, packet_id=5, dup=dup))
            await client.expect(puback(5))
        await watcher.expect(*(publish(STATUS, payload) for payload in (b"1", b"2", b"3")))


async def test_a_message_of_qos_2_is_heard_once_until_its_release(site: Site) -> None:
    async with RawClient.login(site, client_id="watcher") as watcher, RawClient.login(site) as client:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        for dup in (False, True, True):
            client.send(publish(STATUS, b"one", qos=2, packet_id=5, dup=dup))
            await client.expect(pubrec(5))
        for _ in range(2):  # its PUBCOMP may have been lost
            client.send(pubrel(5))
            await client.expect(pubcomp(5))
        client.send(publish(STATUS, b"two", qos=2, packet_id=5))
        await client.expect(pubrec(5))
        await watcher.expect(publish(STATUS, b"one"), publish(STATUS, b"two"))
        assert await watcher.is_alive()


async def test_a_topic_keeps_every_character_it_came_with(site: Site) -> None:
    """Nothing is stripped or taken for the same: a byte order mark, composed letters, spaces, case, slashes."""
    names = [BOM, BOM + "a", "é", "e\u0301", " ", "A", "a", "/", "//a", "a/", "\u2028", "\U0001f600"]
    topics = [f"devices/kitchen/{name}" for name in names]
    async with RawClient.login(site, client_id="all") as everything, RawClient.login(site, client_id="one") as one:
        everything.send(subscribe("devices/kitchen/#"))
        one.send(subscribe(topics[2], BOM + topics[2]))
        await everything.packet()
        assert await one.packet() == suback(1, 0, 0x80)
        packets = [publish(topic, str(number).encode()) for number, topic in enumerate(topics)]
        everything.send(*packets)
        await everything.expect(*packets)
        await one.expect(packets[2])
        assert await one.is_alive()


async def test_dup_and_retain_of_a_message_are_not_passed_on(site: Site) -> None:
    async with RawClient.login(site, client_id="watcher") as watcher, RawClient.login(site) as client:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        client.send(publish(STATUS, b"x", qos=1, dup=True, retain=True))
        await watcher.expect(publish(STATUS, b"x"))


# What is kept


async def late(site: Site, topic_filter: str = "devices/kitchen/#") -> list[bytes]:
    """Return the PUBLISH packets that a new subscriber of QoS 0 gets at once."""
    async with RawClient.login(site, client_id="late") as client:
        client.send(subscribe(topic_filter))
        answers = [await client.packet()]
        await asyncio.sleep(0.05)
        client.send(PINGREQ)
        while (answer := await client.packet()) != PINGRESP:
            answers.append(answer)
        answers.remove(suback(1, 0))
        return answers


async def test_what_is_retained_is_the_last_message_that_asked_for_it(site: Site) -> None:
    async with RawClient.login(site) as client:

        async def say(payload: bytes, *, qos: int = 1, retain: bool = True) -> list[bytes]:
            client.send(publish(STATUS, payload, qos=qos, retain=retain))
            await client.expect(*([puback(1)] * qos))  # when it is on disk, which a PINGRESP does not wait for
            client.send(PINGREQ)
            await client.expect(PINGRESP)
            return await late(site)

        assert await say(b"plain", retain=False) == []
        assert await say(b"first") == [publish(STATUS, b"first", retain=True)]
        assert await say(b"plain", retain=False) == [publish(STATUS, b"first", retain=True)]
        assert await say(b"second", qos=0) == [publish(STATUS, b"second", retain=True)]
        assert await say(b"", retain=False) == [publish(STATUS, b"second", retain=True)]
        assert await say(b"third") == [publish(STATUS, b"third", retain=True)]
        async with RawClient.login(site, client_id="watcher") as watcher:
            watcher.send(subscribe(STATUS))
            assert {await watcher.packet(), await watcher.packet()} == {
                suback(1, 0),
                publish(STATUS, b"third", retain=True),
            }
            assert await say(b"") == []
            await watcher.expect(publish(STATUS, b""))
        assert await say(b"fourth") == [publish(STATUS, b"fourth", retain=True)]
    assert await late(site) == [publish(STATUS, b"fourth", retain=True)]  # it belongs to no session


@pytest.mark.parametrize("retain", [False, True])
async def test_a_will_is_retained_if_it_asks_for_it(site: Site, retain: bool) -> None:
    who = site.kitchen
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        hello = connect("dying", who.username, who.password, will=(STATUS, b"gone"), will_retain=retain)
        async with RawClient.open(site, hello) as client:
            await client.expect(ACCEPTED)
        await watcher.expect(publish(STATUS, b"gone"))
    assert await late(site) == [publish(STATUS, b"gone", retain=True)] * retain


async def test_session_present_says_whether_there_is_one_to_go_on_with(site: Site) -> None:
    async def come(*, clean: bool, packets: bytes = b"", answers: int = 0) -> bytes:
        hello = connect("c", site.kitchen.username, site.kitchen.password, clean=clean)
        async with RawClient.open(site, hello + packets) as client:
            connack = await client.packet()
            for _ in range(answers):
                await client.packet()
            client.send(publish(STATUS, b"x"), PINGREQ)
            heard = await client.packet() == publish(STATUS, b"x")
            client.send(DISCONNECT)
            await client.rest()
        await until(lambda: not site.gateway._running.door.connections, "the connection forgotten")
        return connack + bytes([heard])

    asks = subscribe(STATUS)
    assert await come(clean=False) == ACCEPTED + b"\0"
    assert await come(clean=False, packets=asks, answers=1) == SESSION_PRESENT + b"\1"
    assert await come(clean=False) == SESSION_PRESENT + b"\1"
    assert await come(clean=True) == ACCEPTED + b"\0"


# SUBSCRIBE and UNSUBSCRIBE


async def test_a_subscription_made_again_takes_the_place_of_the_first(site: Site) -> None:
    async with RawClient.login(site) as client:
        client.send(publish(STATUS, b"kept", qos=1, retain=True))
        await client.expect(puback(1))
        for number, qos in ((1, 0), (2, 1), (3, 0)):
            client.send(subscribe(STATUS, qos=qos, packet_id=number))
            answers = [await client.packet() for _ in range(2)]
            assert suback(number, qos) in answers
            assert any(answer[0] == 0x31 | qos << 1 and answer.endswith(b"kept") for answer in answers)
            if qos:
                (again,) = (answer for answer in answers if answer[0] >> 4 == 3)
                client.send(puback(int.from_bytes(again[-6:-4], "big")))
        client.send(publish(STATUS, b"x"))
        await client.expect(publish(STATUS, b"x"))
        assert await client.is_alive()


async def test_an_unsubscribe_is_always_answered_and_ends_exactly_what_it_names(site: Site) -> None:
    first, second, third = (f"{STATUS}/{number}" for number in range(3))
    async with RawClient.login(site) as client:
        client.send(unsubscribe(first, packet_id=3))  # before there is anything
        await client.expect(unsuback(3))
        client.send(subscribe(first, second, third, f"{STATUS}/+/x", packet_id=4))
        await client.expect(suback(4, 0, 0, 0, 0))
        others = (f"{STATUS}/#", f"{STATUS}/+", second.upper())
        client.send(unsubscribe(first, *others, f"{STATUS}/+/x", first, packet_id=5))  # one of them twice
        await client.expect(unsuback(5))
        client.send(*(publish(topic, b"x") for topic in (first, second, f"{STATUS}/1/x", third)))
        await client.expect(publish(second, b"x"), publish(third, b"x"))
        assert await client.is_alive()


# Coming to an end


async def test_what_follows_a_disconnect_is_not_looked_at(site: Site) -> None:
    async with RawClient.login(site) as client:
        client.send(DISCONNECT, publish(TOPIC, reading(), qos=1), b"\xf0\xff")
        assert await client.rest() == b""
    await until(lambda: not site.gateway._running.door.connections, "the connection forgotten")
    assert site.log.last_row == 0
    assert await malformed(site) == 0


async def test_a_ping_is_answered_whatever_else_is_under_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawClient.login(site) as client:
        with monkeypatch.context() as slow:
            slow.setattr(site.log, "_commit", lambda: None)
            client.send(publish(TOPIC, reading(), qos=1), PINGREQ, PINGREQ)
            await client.expect(PINGRESP, PINGRESP)
            await asyncio.sleep(0.05)
            assert site.log.last_row == 0
        site.log._commit()
        await client.expect(puback(1))
