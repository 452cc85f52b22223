"""What time it is, who says so, and what a reading says of it: also run by MicroPython."""

from app import time_sources
from app.clock import Clock
from app.spill import Record
from app.telemetry import times
from app.timekeeper import Timekeeper
from time_by_hand import PERIOD, Ticks

NOW_S = 1_800_000_000


def ntp(seconds=NOW_S, fraction=0x80000000, cookie=b"12345678", first=0x24, stratum=2):
    head = bytes([first, stratum]) + bytes(22) + cookie + bytes(8)
    return head + ((seconds + 2_208_988_800) & 0xFFFFFFFF).to_bytes(4, "big") + fraction.to_bytes(4, "big")


def refused(call):
    try:
        call()
    except ValueError:
        return True
    return False


def test_the_question_is_one_of_a_client_with_a_cookie():
    question = time_sources.ntp_question(b"12345678")
    assert (len(question), question[0], question[40:]) == (48, 0x23, b"12345678")


def test_an_ntp_answer_is_read_to_the_millisecond_also_after_2036():
    assert time_sources.ntp_answer_ms(ntp(), b"12345678") == NOW_S * 1000 + 500
    later = 2_085_978_496 + 12_345  # NTP's seconds begin again on 2036-02-07
    assert time_sources.ntp_answer_ms(ntp(later, 0), b"12345678") == later * 1000


def test_what_is_no_good_answer_is_refused():
    for data in (
        b"",
        ntp()[:47],
        ntp(cookie=b"other__8"),
        ntp(first=0xE4),  # the server's own clock is not set
        ntp(first=0x23),  # a question
        ntp(stratum=0),
        ntp(stratum=16),
        ntp(seconds=1_000_000_000),
    ):
        assert refused(lambda data=data: time_sources.ntp_answer_ms(data, b"12345678"))


def test_the_gateways_answer_says_the_time_and_whether_it_is_right():
    read = time_sources.gateway_answer_ms
    assert read(b'{"status": "ok", "time_ms": 1795282810123, "time_is_right": true}') == (1_795_282_810_123, True)
    assert read(b'{"status": "ok", "time_ms": 1795282810123, "time_is_right": false}') == (1_795_282_810_123, False)
    assert read(b'{"status": "ok", "time_ms": 1795282810123}') == (1_795_282_810_123, False)
    for body in (b"", b"<html>", b"[]", b'{"status": "ok"}', b'{"time_ms": "now"}', b'{"time_ms": 1000}'):
        assert refused(lambda body=body: read(body)), body


class Wifi:
    is_connected = True


async def test_only_a_gateway_that_is_sure_of_it_sets_the_time_of_readings():
    for is_right, source, unix_ms in ((False, "", None), (True, "gateway", NOW_S * 1000)):
        told = []
        clock = Clock(Ticks(), told.append)
        from app import time_sources as asked  # anew each time: who has asked lets go of it

        async def nobody(host):
            raise OSError(host)

        async def gateway(address, port, is_right=is_right):
            return NOW_S * 1000, is_right

        asked.ask_ntp, asked.ask_gateway = nobody, gateway
        timekeeper = Timekeeper(clock, Wifi(), "ntp", 8080)
        timekeeper.gateway_address = lambda: "gateway"
        await timekeeper.ask()
        assert (clock.source, clock.unix_ms()) == (source, unix_ms)
        assert told == [NOW_S], "TLS needs one"


def test_the_uptime_goes_on_when_the_ticks_wrap_around():
    ticks = Ticks(PERIOD - 1_000)
    clock = Clock(ticks, lambda unix_s: None)
    for _ in range(400):
        ticks.advance(PERIOD // 300)
        clock.uptime_ms()
    assert clock.uptime_ms() == 400 * (PERIOD // 300)


def test_the_clock_knows_nothing_until_it_is_told_and_tells_the_chip():
    told, ticks = [], Ticks()
    clock = Clock(ticks, told.append)
    assert clock.unix_ms() is None
    ticks.advance(5_000)
    clock.set(NOW_S * 1000 + 7, "ntp")
    ticks.advance(250)
    assert clock.unix_ms() == NOW_S * 1000 + 257
    assert clock.unix_ms(5_000) == NOW_S * 1000 + 7
    assert told == [NOW_S]


def record(boot_id="now", unix_ms=None, uptime_ms=2_000):
    return Record(boot_id, 1, unix_ms, uptime_ms, b"{}")


def test_a_reading_says_its_time_or_its_age_or_that_it_is_uncertain():
    ticks = Ticks()
    clock = Clock(ticks, lambda unix_s: None)
    ticks.advance(10_000)
    assert times(record(), "now", clock) == '"age_ms":8000'
    assert times(record("before"), "now", clock) == '"age_ms":10000,"time_uncertain":true'
    assert times(record("before", NOW_S * 1000), "now", clock) == '"timestamp":1800000000000'
    clock.set(NOW_S * 1000, "gateway")
    ticks.advance(50_000)
    assert times(record(), "now", clock) == '"timestamp":1799999992000'
    assert times(record("before"), "now", clock) == '"age_ms":60000,"time_uncertain":true'
