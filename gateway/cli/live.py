"""The live view: what one `GatewayStatus` after the other says, on a terminal or as plain lines.

On a terminal one calm screen, redrawn in place; elsewhere one line every five seconds. It only looks, and it
ends when `stop` is set.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.table import one_line
from gateway.clock import Clock, SystemClock
from gateway.model.status import DestinationStatus, DeviceActivity, GatewayStatus, ReceivingStatus

_PLAIN_INTERVAL_S = 5.0
_RATE_WINDOW_MS = 10_000
_DEVICE_ROWS = 15
_DEVICE_ROWS_MIN = 3
_OTHER_LINES = 13  # everything but device and destination rows
_HEAD_LINES = 4  # of one more table
_STATE_STYLE = {
    "idle": "green",
    "sending": "green",
    "receiving": "green",
    "connecting": "yellow",
    "retrying": "yellow",
    "full": "red",
    "error": "red",
    "inactive": "dim",
}

_Device = tuple[str, str]


async def show_live(
    status: Callable[[], Awaitable[GatewayStatus]],
    *,
    console: Console,
    stop: asyncio.Event,
    interval_s: float = 1.0,
    clock: Clock | None = None,
) -> None:
    """Show what `status` returns until `stop` is set; `interval_s` is the time between two screens."""
    clock = clock or SystemClock()
    rates = Rates()
    if not console.is_terminal:
        while not stop.is_set():
            now = await status()
            rates.add(now, clock.monotonic_ms())
            console.print(plain_line(now, rates), soft_wrap=True, markup=False, highlight=False)
            await _pause(stop, _PLAIN_INTERVAL_S)
        return
    with Live(console=console, auto_refresh=False) as live:
        while not stop.is_set():
            now = await status()
            rates.add(now, clock.monotonic_ms())
            live.update(screen(now, rates, now_ms=clock.now_ms(), height=console.height), refresh=True)
            await _pause(stop, interval_s)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


class Rates:
    """Readings per second, averaged over the last ten seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, dict[_Device, int]]] = deque()

    def add(self, status: GatewayStatus, monotonic_ms: int) -> None:
        """Take one more snapshot."""
        self._seen.append((monotonic_ms, {_key(device): device.readings for device in status.devices}))
        while monotonic_ms - self._seen[0][0] > _RATE_WINDOW_MS:
            self._seen.popleft()

    def of(self, device: DeviceActivity) -> float:
        """Return the device's rate; 0 until there are two snapshots."""
        if not self._seen:
            return 0.0
        (start_ms, first), (end_ms, last) = self._seen[0], self._seen[-1]
        if end_ms == start_ms:
            return 0.0
        key = _key(device)
        return (last.get(key, 0) - first.get(key, 0)) * 1000 / (end_ms - start_ms)


def _key(device: DeviceActivity) -> _Device:
    return device.organization_id, device.device_id


def plain_line(status: GatewayStatus, rates: Rates) -> str:
    """Return the status as one line for logs and pipes."""
    parts = [
        "ready" if not status.problems else f"not ready: {' '.join(status.problems)}",
        f"{len(status.devices)} devices, {sum(map(rates.of, status.devices)):.1f}/s",
        _buffer_words(status),
    ]
    for destination in status.destinations:
        words = f"{destination.title} {destination.state}: {destination.delivered:,} delivered"
        words += f", {destination.undelivered:,} undelivered"
        if destination.dead_letters:
            words += f", {destination.dead_letters:,} dead letters"
        parts.append(f"{words}, {one_line(destination.last_error)}" if destination.last_error else words)
    for source in status.receiving:
        words = f"{source.title} {source.state}: {source.received:,} received"
        parts.append(f"{words}, {one_line(source.last_error)}" if source.last_error else words)
    return "; ".join(parts)


def screen(status: GatewayStatus, rates: Rates, *, now_ms: int, height: int) -> RenderableType:
    """Return the whole view, made to fit `height` lines."""
    room = height - _OTHER_LINES - len(status.problems) - len(status.notices) - len(status.destinations)
    room -= len(status.receiving) + _HEAD_LINES if status.receiving else 0
    rows = min(max(room, _DEVICE_ROWS_MIN), _DEVICE_ROWS)
    return Group(
        _header(status),
        _devices(status.devices, rates, now_ms=now_ms, rows=rows),
        Padding(Text.assemble(("buffer  ", "dim"), _buffer_words(status)), (0, 1)),
        _destinations(status.destinations),
        *([_sources(status.receiving)] if status.receiving else []),
    )


def _header(status: GatewayStatus) -> RenderableType:
    facts = f"  {status.version}  mqtt {status.mqtt_port}  http {status.http_port}  "
    facts += f"{status.connections} connections  up {_duration(status.uptime_seconds)}  "
    ready = ("ready", "green") if not status.problems else ("not ready", "yellow")
    line = Text.assemble((status.gateway_id, "bold"), (facts, "dim"), ready)
    said = [Text(problem, style="yellow") for problem in status.problems] + [Text(notice) for notice in status.notices]
    return Padding(Group(line, *said), (1, 1, 0, 1))


def _table(*words: str, numbers: Iterable[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for column in words:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, no_wrap=True, justify="right")
    return table


def _devices(devices: list[DeviceActivity], rates: Rates, *, now_ms: int, rows: int) -> Table:
    table = _table("device", numbers=("last seen", "readings", "per second"))
    several = len({device.organization_id for device in devices}) > 1
    for device in sorted(devices, key=_key)[:rows]:
        name = f"{device.organization_id}/{device.device_id}" if several else device.device_id
        seen = _duration((now_ms - device.last_seen_ms) / 1000)
        table.add_row(Text(name), f"{seen} ago", f"{device.readings:,}", f"{rates.of(device):.1f}")
    if len(devices) > rows:
        table.add_row(Text(f"and {len(devices) - rows} more", style="dim"))
    if not devices:
        table.add_row(Text("no reading yet", style="dim"))
    return table


def _destinations(destinations: list[DestinationStatus]) -> Table:
    refused = any(one.dead_letters for one in destinations)  # a column that is nearly always empty costs room
    numbers = ("delivered", "undelivered", "oldest", *(["dead letters"] if refused else []))
    table = _table("destination", "state", numbers=numbers)
    table.add_column("last error", overflow="ellipsis", no_wrap=True)
    for one in destinations:
        table.add_row(
            Text(one.title),
            Text(one.state, style=_STATE_STYLE.get(one.state, "")),
            f"{one.delivered:,}",
            f"{one.undelivered:,}",
            _duration(one.oldest_seconds) if one.undelivered else "",
            *([f"{one.dead_letters:,}"] if refused else []),
            Text(one_line(one.last_error), style="dim"),
        )
    if not destinations:
        table.add_row(Text("none configured", style="dim"))
    return table


def _sources(receiving: list[ReceivingStatus]) -> Table:
    table = _table("received from", "state", numbers=("messages",))
    table.add_column("last error", overflow="ellipsis", no_wrap=True)
    for one in receiving:
        state = Text(one.state, style=_STATE_STYLE.get(one.state, ""))
        error = Text(one_line(one.last_error), style="dim")
        table.add_row(Text(one.title), state, f"{one.received:,}", error)
    return table


def _buffer_words(status: GatewayStatus) -> str:
    buffer = status.buffer
    return (
        f"{buffer.readings:,} readings, {_size(buffer.bytes)}, "
        f"{buffer.quarantined:,} quarantined, {status.duplicates:,} duplicates"
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004  SI units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _duration(seconds: float) -> str:
    whole = max(int(seconds), 0)
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // smaller_s} {smaller}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"  # noqa: PLR2004
