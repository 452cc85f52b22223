"""The live view, on a terminal and in a pipe."""

import asyncio
import io
from dataclasses import replace

from rich.console import Console

from gateway.cli.live import Rates, plain_line, screen, show_live
from gateway.clock import ManualClock
from gateway.model.status import BufferStatus, DestinationStatus, DeviceActivity, GatewayStatus, ReceivingStatus

NOW_MS = ManualClock().now_ms()
DESTINATION = DestinationStatus(
    name="building-api",
    type="webhook",
    state="retrying",
    position=40,
    undelivered=1_234,
    oldest_seconds=75,
    delivered=9_876,
    failures=2,
    last_error="503 Service Unavailable",
)


def status(devices: int = 2, readings: int = 100) -> GatewayStatus:
    return GatewayStatus(
        gateway_id="site-1",
        version="0.1.0",
        uptime_seconds=3_725,
        mqtt_port=1883,
        http_port=8080,
        problems=[],
        connections=devices,
        ingested=devices * readings,
        duplicates=7,
        quarantined=3,
        buffer=BufferStatus(readings=11_110, oldest_row=1, newest_row=11_110, quarantined=3, bytes=2_500_000),
        devices=[
            DeviceActivity("default", f"sim-{number:02}", readings, NOW_MS - 2_000) for number in range(1, devices + 1)
        ],
        destinations=[DESTINATION],
    )


def drawn(what: GatewayStatus, *, height: int = 60) -> str:
    console = Console(record=True, force_terminal=True, width=100, height=height, file=io.StringIO())
    rates = Rates()
    rates.add(what, 0)
    console.print(screen(what, rates, now_ms=NOW_MS, height=height))
    return console.export_text()


def test_screen_shows_gateway_devices_buffer_and_destinations() -> None:
    text = drawn(status())
    for fact in ("site-1", "0.1.0", "mqtt 1883", "http 8080", "up 1 h 2 min", "ready"):
        assert fact in text
    assert "sim-01" in text
    assert "2 s ago" in text
    assert "11,110 readings, 2.5 MB, 3 quarantined, 7 duplicates" in text
    for fact in ("building-api", "retrying", "9,876", "1,234", "1 min 15 s", "503 Service Unavailable"):
        assert fact in text


def test_dead_letters_are_shown_where_there_are_any() -> None:
    refused = replace(status(), destinations=[replace(DESTINATION, name="a", dead_letters=4_321), DESTINATION])
    assert "dead letters" not in drawn(status())
    assert "dead letters" in drawn(refused)
    assert "4,321" in drawn(refused)
    assert "1,234 undelivered, 4,321 dead letters, 503" in plain_line(refused, Rates())


def test_screen_shows_problems_as_sentences() -> None:
    text = drawn(replace(status(), problems=["The disk is nearly full."], notices=["log.db is being checked."]))
    assert "log.db is being checked." in text
    assert "not ready" in text
    assert "The disk is nearly full." in text


def test_screen_names_fifteen_devices_and_counts_the_rest() -> None:
    text = drawn(status(devices=40))
    assert text.count("sim-") == 15
    assert "and 25 more" in text


def test_screen_fits_a_small_terminal() -> None:
    text = drawn(status(devices=40), height=24)
    assert len(text.splitlines()) <= 24
    assert "building-api" in text


def test_screen_names_the_organisation_when_there_are_several() -> None:
    two = status()
    two.devices[0] = replace(two.devices[0], organization_id="other")
    assert "other/sim-01" in drawn(two)


def test_screen_is_calm_before_the_first_reading() -> None:
    text = drawn(replace(status(devices=0), destinations=[]))
    assert "no reading yet" in text
    assert "none configured" in text


def test_a_remote_server_cannot_write_to_the_terminal() -> None:
    hostile = replace(DESTINATION, last_error="500 \x1b]0;pwned\x07\n[red]oops")
    said = replace(status(), destinations=[hostile])
    assert "\x1b]0" not in drawn(said)
    assert "[red]oops" in drawn(said)
    assert "\n" not in plain_line(said, Rates())


def test_rate_is_an_average_of_the_last_ten_seconds() -> None:
    rates = Rates()
    for second in range(31):
        rates.add(status(readings=second if second < 20 else 20 + 5 * (second - 20)), second * 1_000)
    assert rates.of(status().devices[0]) == 5.0


def test_plain_line_is_one_line_with_all_that_counts() -> None:
    rates = Rates()
    rates.add(status(readings=90), 0)
    rates.add(status(readings=100), 5_000)
    assert plain_line(status(), rates) == (
        "ready; 2 devices, 4.0/s; 11,110 readings, 2.5 MB, 3 quarantined, 7 duplicates; "
        "building-api retrying: 9,876 delivered, 1,234 undelivered, 503 Service Unavailable"
    )


async def shown(console: Console, times: int) -> None:
    stop = asyncio.Event()
    asked = 0

    async def ask() -> GatewayStatus:
        nonlocal asked
        asked += 1
        if asked == times:
            stop.set()
        return status()

    await asyncio.wait_for(show_live(ask, console=console, stop=stop, interval_s=0.001, clock=ManualClock()), 5)
    assert asked == times


async def test_a_pipe_gets_plain_lines() -> None:
    file = io.StringIO()
    await shown(Console(file=file, width=40), times=1)
    assert file.getvalue().startswith("ready; 2 devices")
    assert file.getvalue().count("\n") == 1
    assert "\x1b" not in file.getvalue()


async def test_a_terminal_gets_the_screen_until_stopped() -> None:
    console = Console(record=True, force_terminal=True, width=100, height=60, file=io.StringIO())
    await shown(console, times=3)
    assert console.export_text().count("building-api") >= 3


def test_what_is_received_from_elsewhere_is_shown_where_there_is_some() -> None:
    plant = ReceivingStatus("row-7", "mqtt_external", "retrying", 12_345, 2, 3.0, "it is\x1b busy", label="Plant")
    text, line = drawn(replace(status(), receiving=[plant])), plain_line(replace(status(), receiving=[plant]), Rates())
    for fact in ("received from", "Plant", "retrying", "12,345", "it is  busy"):
        assert fact in text
    assert "Plant retrying: 12,345 received, it is  busy" in line
    assert "received" not in drawn(status()) + plain_line(status(), Rates())
    for height in (24, 40):
        shown = drawn(replace(status(devices=50), receiving=[plant] * 2), height=height)
        assert len(shown.splitlines()) <= height
