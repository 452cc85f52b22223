"""P3, measured with one destination of each kind: four that work, and with them one that hangs, one that refuses our
login and one that throttles.

Lag is the age of the oldest reading that a destination has not acknowledged, as the gateway's metrics say it, looked at
all the time while boards send at their pace; in turns without and with the three. Then so many readings as fast as they
can be stored, through all seven, and the memory meanwhile. Golioth takes twenty requests a second, so it gets what ten
of the boards send, and in the end what one sends. The clouds are the strict ones of the tests, in this process; the
broker is mosquitto.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import aiohttp

from tests.bench import brokers, site
from tests.bench.answers import get
from tests.bench.backlog import never_answers
from tests.bench.measurements import Row
from tests.bench.watch import watch
from tests.cloud_sync.integrations.clouds import aws, azure, golioth, google

_BOARDS = 100
_PACE = 50
"""Readings a second, of all boards together."""
_WINDOW = 10
_ALONE, _BESIDE = "alone", "beside"
_LOOK_S = 0.1
_CONNECTED_S = 2.0
"""Until then all boards are."""
_DELIVERED_S = 1_200
_TENTHS = 10
_REFUSALS = 100_000
_WORK = ("aws", "golioth", "mqtt", "webhook")
_LAG = re.compile(r'^neurogate_buffer_oldest_seconds\{destination="([^"]+)"\} (\S+)$', re.MULTILINE)

Settings = dict[str, Any]


async def clouds(folder: Path, *, seconds: float, rounds: int, readings: int) -> list[Row]:
    """Measure lags, then memory. Raises NotInstalled."""
    prepared = folder / "prepared"
    await site.prepare(prepared, devices=_BOARDS, readings=0)
    lags: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for _, turn in product(range(rounds), (_ALONE, _BESIDE)):
        with site.copied(prepared) as running:
            await _lag(running, turn, seconds, lags)
    rows: list[Row] = [("lag at 50 readings/s, mean / p99 of what was seen", "alone; beside three that fail; ratio")]
    rows += [(f"  {name}", _compared(lags[name, _ALONE], lags[name, _BESIDE])) for name in _WORK]
    with site.copied(prepared) as running:
        return rows + await _memory(running, readings // _BOARDS)


def _compared(alone: Sequence[float], beside: Sequence[float]) -> str:
    def told(lags: Sequence[float]) -> str:
        return f"{mean(lags) * 1000:.1f} / {sorted(lags)[len(lags) * 99 // 100] * 1000:.0f} ms"

    ratio = f"x {mean(beside) / mean(alone):.2f}" if mean(alone) else "nothing waited alone"
    return f"{told(alone)}; {told(beside)}; {ratio}"


async def _lag(folder: Path, turn: str, seconds: float, lags: defaultdict[tuple[str, str], list[float]]) -> None:
    async with (
        _destinations(folder) as (work, fail),
        site.gateway(folder, integrations=work + (fail if turn == _BESIDE else [])) as gateway,
        aiohttp.ClientSession() as http,
    ):
        loading = asyncio.create_task(
            site.load(
                gateway.mqtt_port,
                folder / "logins.json",
                every_s=_BOARDS / _PACE,
                seconds=seconds + _CONNECTED_S,
                warm_up=0,
            )
        )
        await asyncio.sleep(_CONNECTED_S)
        while not loading.done():
            async with http.get(f"http://127.0.0.1:{gateway.http_port}/metrics") as answer:
                for name, lag in _LAG.findall(await answer.text()):
                    lags[name, turn].append(float(lag))
            await asyncio.sleep(_LOOK_S)
        await loading


async def _memory(folder: Path, readings: int) -> list[Row]:
    """Let each board send so many readings, and wait until those that work have them."""
    async with _destinations(folder) as (work, fail):
        few = [one | {"devices": ["bench-0000"]} if one["type"] == "golioth" else one for one in work]
        async with site.gateway(folder, integrations=few + fail) as gateway, watch(gateway) as seen:
            started = time.perf_counter()
            sent = await site.load(
                gateway.mqtt_port, folder / "logins.json", window=_WINDOW, seconds=0, warm_up=0, messages=readings
            )
            stored_s = time.perf_counter() - started
            waiting = sent["acked"]
            while waiting and time.perf_counter() - started < _DELIVERED_S:
                await asyncio.sleep(1)
                ready = await get(gateway.http_port, "/ready")
                destinations = {one["name"]: one for one in ready["destinations"]}
                waiting = sum(destinations[name]["undelivered"] for name in _WORK)
            took_s = time.perf_counter() - started
    states = ", ".join(f"{name} {one['state']}" for name, one in destinations.items() if name not in _WORK)
    memory = seen.memory_mb
    tenths = [median(memory[len(memory) * tenth // _TENTHS :][: len(memory) // _TENTHS]) for tenth in range(_TENTHS)]
    return [
        ("readings stored, beside seven destinations", f"{sent['acked']:,.0f} in {stored_s:.0f} s"),
        ("until the four that work had all of theirs", f"{took_s:.0f} s, {waiting:,.0f} left"),
        ("those that fail, at the end", states),
        ("memory, median of each tenth of the time", " ".join(f"{one:.0f}" for one in tenths) + " MB"),
    ]


@asynccontextmanager
async def _destinations(folder: Path) -> AsyncIterator[tuple[list[Settings], list[Settings]]]:
    """Yield the settings of those that work and of those that fail."""
    account, other = google.made_account("key-1"), google.made_account("key-2")
    async with (
        aws.fake_aws() as fake_aws,
        golioth.fake_golioth() as fake_golioth,
        brokers.broker(brokers.MOSQUITTO, folder) as mosquitto,
        site.receiver(folder) as receiver,
        azure.fake_hub() as fake_hub,
        google.fake_pubsub(account) as fake_pubsub,
        never_answers() as silent,
    ):
        fake_hub.refuses = [(429, "ThrottlingException", "slow down")] * _REFUSALS
        fakes = (fake_aws, fake_golioth, fake_hub, fake_pubsub)
        clock = asyncio.create_task(_keep(fakes))
        secret = {"secret": f"${{file:{folder}/webhook.secret}}", "rate_limit_per_minute": 0}
        work: list[Settings] = [
            aws.KEYS | {"type": "aws_iot", "name": "aws", "endpoint": fake_aws.endpoint, "rate_limit_per_minute": 0},
            {"type": "golioth", "name": "golioth", "host": "127.0.0.1", "port": fake_golioth.port}
            | {"psk_id": golioth.PSK_ID, "psk": golioth.PSK, "devices": ["bench-000?"]},
            {"type": "mqtt", "name": "mqtt", "broker_url": f"mqtt://127.0.0.1:{mosquitto.port}", "version": "5"}
            | {"topic": "neurogate/{organization_id}/{device_id}"},
            {"type": "webhook", "name": "webhook", "url": f"http://127.0.0.1:{receiver}/"} | secret,
        ]
        fail: list[Settings] = [
            {"type": "webhook", "name": "hangs", "url": f"http://127.0.0.1:{silent}/"} | secret,
            {"type": "google_iot", "name": "refuses", "endpoint": fake_pubsub.endpoint, "topic": "telemetry"}
            | {"service_account_key": other.key_file},
            {"type": "azure_iot", "name": "throttles", "endpoint": fake_hub.endpoint}
            | {"connection_string": azure.POLICY},
        ]
        try:
            yield work, fail
        finally:
            clock.cancel()


async def _keep(fakes: Sequence[Any]) -> None:
    """Let the clouds have the right time, and forget what they got."""
    while True:
        for fake in fakes:
            fake.now_s = time.time()
            for kept in ("received", "bodies", "tokens", "streamed"):
                if hasattr(fake, kept):
                    getattr(fake, kept).clear()
        await asyncio.sleep(_LOOK_S)
