"""What arrives is stored or quarantined, with an honest time, and always acknowledged."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from gateway.access import Device
from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.ingest import Ingest, TooManyReadings
from gateway.metrics import Metrics
from gateway.model.errors import BadInput, StoreFailed
from gateway.model.reading import NewQuarantine, StoredReading, TimeSource
from gateway.parsers.contract import MAX_READINGS
from gateway.storage.log import Log
from tests.site import reading, until

NOW = ManualClock().now
SKEW_MS = 300_000
WINDOW_MS = 60_000


class Owner:
    """Counts what it may acknowledge."""

    def __init__(self) -> None:
        self.stored = 0

    def committed(self, count: int) -> None:
        self.stored += count

    def failed(self, error: StoreFailed) -> None:
        raise AssertionError(error)


class Bench:
    """An ingest with a log of its own, and a device."""

    def __init__(self, log: Log, clock: ManualClock, metrics: Metrics) -> None:
        self.log = log
        self.clock = clock
        self.metrics = metrics
        self.ingest = Ingest(log, clock, metrics, max_skew_ms=SKEW_MS)
        self.device = Device("default", "kitchen")
        self.owner = Owner()
        self.taken = 0

    async def take(self, data: bytes, *, dup: bool = False) -> None:
        """Hand in one message; returns when it may be acknowledged."""
        self.taken += 1
        self.ingest.take(self.device, data, self.owner, source="devices/kitchen/telemetry", maybe_repeated=dup)
        await until(lambda: self.owner.stored == self.taken, "the acknowledgement")

    async def stored(self) -> list[StoredReading]:
        return await self.log.read(0, limit=1000)

    async def quarantined(self) -> list[NewQuarantine]:
        return [entry for _, entry in await self.log.quarantined()]

    def errors(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("sensor_data_errors_total", {"reason": reason}) or 0.0


@asynccontextmanager
async def working_bench(folder: Path) -> AsyncIterator[Bench]:
    clock, metrics = ManualClock(), Metrics()
    create = Log.create(folder / "log.db", StorageSettings(), dedupe_window_ms=WINDOW_MS, clock=clock, metrics=metrics)
    async with create as log:
        yield Bench(log, clock, metrics)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with working_bench(tmp_path) as made:
        yield made


async def test_a_foreign_device_id_is_quarantined_and_acknowledged(bench: Bench) -> None:
    await bench.take(reading("hall"))
    assert await bench.stored() == []
    (bad,) = await bench.quarantined()
    assert (bad.device_id, bad.code, bad.payload) == ("kitchen", "foreign_device", reading("hall"))
    assert (bad.source, bad.received_at_ms) == ("devices/kitchen/telemetry", NOW)
    assert bench.errors("foreign_device") == 1
    assert bench.device.readings == 0


async def test_one_bad_sensor_of_three_is_left_out_and_the_original_kept(bench: Bench) -> None:
    sensors = {"pir": {"motion_detected": True}, "ld2410": {"presence": "perhaps"}, "co2": {"ppm": 400}}
    data = reading(sensors=sensors)
    await bench.take(data)
    (stored,), (bad,) = await bench.stored(), await bench.quarantined()
    assert list(stored.body["sensors"]) == ["pir", "co2"]
    assert (bad.code, bad.payload) == ("invalid_sensor", data)
    assert "ld2410" in bad.reason


@pytest.mark.parametrize(
    "data",
    [
        b'{"device_id":"kitchen","sensors":{"pir":{"motion_detected":true}}}',
        b' {"sensors" : {"co2":{"ppm":4.00e2}},\n"device_id":"kitchen", "x":[1.0,null,{"y":"\\u00e9"}]}\r\n',
        '{"device_id":"kitchen","sensors":{"pir":{"motion_detected":true}},"note":"Küche 🌡"}'.encode(),
    ],
)
async def test_what_is_valid_is_stored_byte_for_byte(bench: Bench, data: bytes) -> None:
    await bench.take(data)
    query = "SELECT payload, raw FROM device_telemetry_history"
    assert list(await bench.log.fetch(query)) == [(data, None)]


def ago(ms: int) -> float:
    """A device's timestamp."""
    return NOW - ms


@pytest.mark.parametrize(
    ("fields", "time_ms", "source"),
    [
        ({"timestamp": ago(0)}, NOW, TimeSource.DEVICE),
        ({"timestamp": ago(86_400_000)}, NOW - 86_400_000, TimeSource.DEVICE),
        ({"timestamp": ago(1000), "age_ms": 5}, NOW - 1000, TimeSource.DEVICE),
        ({"timestamp": ago(-SKEW_MS)}, NOW + SKEW_MS, TimeSource.DEVICE),
        ({"timestamp": ago(-SKEW_MS - 1)}, NOW, TimeSource.GATEWAY),
        ({"timestamp": ago(-SKEW_MS - 1), "age_ms": 5}, NOW - 5, TimeSource.CORRECTED),
        ({"timestamp": "2000-01-01T00:00:05Z"}, NOW, TimeSource.GATEWAY),
        ({"timestamp": 12}, NOW, TimeSource.GATEWAY),
        ({"timestamp": "yesterday"}, NOW, TimeSource.GATEWAY),
        ({"timestamp": "yesterday", "age_ms": 2000}, NOW - 2000, TimeSource.CORRECTED),
        ({"timestamp": None, "age_ms": None}, NOW, TimeSource.GATEWAY),
        ({}, NOW, TimeSource.GATEWAY),
        ({"age_ms": 0}, NOW, TimeSource.CORRECTED),
        ({"age_ms": 0.4}, NOW, TimeSource.CORRECTED),
        ({"age_ms": 86_400_000}, NOW - 86_400_000, TimeSource.CORRECTED),
        ({"age_ms": -1}, NOW, TimeSource.GATEWAY),
        ({"age_ms": 1e300}, NOW, TimeSource.GATEWAY),
        ({"age_ms": 10**400}, NOW, TimeSource.GATEWAY),
    ],
)
async def test_a_time_is_the_devices_unless_it_cannot_be(
    bench: Bench, fields: dict[str, Any], time_ms: int, source: TimeSource
) -> None:
    await bench.take(reading(**fields))
    (stored,) = await bench.stored()
    assert (stored.time_ms, stored.time_source, stored.received_at_ms) == (time_ms, source, NOW)


async def test_while_our_own_clock_is_not_to_be_trusted_a_future_time_is_the_devices(bench: Bench) -> None:
    bench.clock.synced = False
    await bench.take(reading(timestamp=ago(-86_400_000)))
    (stored,) = await bench.stored()
    assert (stored.time_ms, stored.time_source) == (NOW + 86_400_000, TimeSource.DEVICE)


@pytest.mark.parametrize(("age_ms", "late"), [(0, False), (60_000, False), (60_001, True), (-1000, False)])
async def test_what_was_taken_more_than_a_minute_ago_is_late(bench: Bench, age_ms: int, late: bool) -> None:
    await bench.take(reading(timestamp=ago(age_ms)))
    (stored,) = await bench.stored()
    assert stored.late is late


async def test_a_reading_keeps_the_metadata_of_its_receipt(bench: Bench) -> None:
    for metadata in ('{"room":"kitchen"}', None, '{"room":"attic"}', '{"room":"kitchen"}'):
        bench.device.metadata = metadata
        await bench.take(reading())
    rooms = [stored.device_metadata.get("room") for stored in await bench.stored()]
    assert rooms == ["kitchen", None, "attic", "kitchen"]


async def test_boot_id_and_seq_together_are_a_key(bench: Bench) -> None:
    for boot_id, seq in (("a", 0), ("a", 1), ("b", 0)):
        for _ in range(2):
            await bench.take(reading(boot_id=boot_id, seq=seq))
    assert [(stored.boot_id, stored.seq) for stored in await bench.stored()] == [("a", 0), ("a", 1), ("b", 0)]
    assert bench.log.duplicates == 3


@pytest.mark.parametrize(
    "fields", [{"seq": 7}, {"seq": 7, "boot_id": ""}, {"seq": 7, "boot_id": None}, {"boot_id": "a"}]
)
async def test_half_a_key_is_none(bench: Bench, fields: dict[str, Any]) -> None:
    """`seq` alone counts from 0 after every restart of the board."""
    await bench.take(reading(**fields, x=1))
    await bench.take(reading(**fields, x=2))
    stored = await bench.stored()
    assert [one.body["x"] for one in stored] == [1, 2]
    assert [one.seq for one in stored] == [fields.get("seq")] * 2


@pytest.mark.parametrize(
    ("dup", "after_ms", "count"),
    [(True, 0, 1), (True, WINDOW_MS, 1), (True, WINDOW_MS + 1, 2), (False, 0, 2)],
    ids=["marked", "marked at the end of the window", "marked too late", "unmarked"],
)
async def test_equal_bytes_are_one_reading_only_if_marked_as_sent_again_and_soon(
    bench: Bench, dup: bool, after_ms: int, count: int
) -> None:
    await bench.take(reading())
    bench.clock.advance(after_ms)
    await bench.take(reading(), dup=dup)
    assert len(await bench.stored()) == count


async def test_marked_as_sent_again_but_with_other_bytes_or_of_another_device_is_another_reading(bench: Bench) -> None:
    await bench.take(reading(x=1))
    await bench.take(reading(x=2), dup=True)
    bench.device = Device("other", "kitchen")
    await bench.take(reading(x=1), dup=True)
    assert len(await bench.stored()) == 3


async def test_sent_again_with_a_bad_sensor_is_recognised_by_what_arrived(bench: Bench) -> None:
    data = reading(sensors={"pir": {"motion_detected": True}, "ld2410": {"presence": 3}})
    await bench.take(data)
    await bench.take(data, dup=True)
    assert len(await bench.stored()) == 1


async def test_p4_a_defect_of_ours_costs_one_message_and_keeps_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr("gateway.ingest.parse_standard", defect)
        await bench.take(reading())
    (bad,) = await bench.quarantined()
    assert (bad.code, bad.payload) == ("internal_error", reading())
    await bench.take(reading())
    assert len(await bench.stored()) == 1


async def test_p4_a_defect_of_ours_costs_one_reading_of_a_document(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the client would send the whole document for ever."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.ingest.parse_object", defect)
    (verdict,) = await bench.ingest.take_document(bench.device, reading(), source="http")
    assert (verdict.stored, verdict.code) == (False, "internal_error")
    assert [bad.payload for bad in await bench.quarantined()] == [reading()]


async def test_a_document_gets_one_verdict_for_each_reading_when_all_are_on_disk(bench: Bench) -> None:
    values = [json.loads(reading(x=1)), 5, json.loads(reading("hall")), json.loads(reading(x=2))]
    verdicts = await bench.ingest.take_document(bench.device, json.dumps({"readings": values}).encode(), source="http")
    assert [verdict.code for verdict in verdicts] == ["", "not_an_object", "foreign_device", ""]
    assert [stored.body["x"] for stored in await bench.stored()] == [1, 2]
    assert [from_json(bad.payload) for bad in await bench.quarantined()] == values[1:3]


async def test_a_document_that_is_not_json_is_kept_and_refused(bench: Bench) -> None:
    with pytest.raises(BadInput, match="JSON"):
        await bench.ingest.take_document(bench.device, b"{", source="http")
    assert [bad.payload for bad in await bench.quarantined()] == [b"{"]


async def test_of_a_document_with_too_many_readings_nothing_is_taken(bench: Bench) -> None:
    with pytest.raises(TooManyReadings):
        await bench.ingest.take_document(
            bench.device, json.dumps({"readings": [0] * (MAX_READINGS + 1)}).encode(), source="http"
        )
    assert bench.log.last_row == 0
    assert await bench.quarantined() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["timestamp", "age_ms", "boot_id", "seq", "firmware", "health", "sensors", "device_id", "x"])


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary() | st.dictionaries(NAMES, JSON).map(lambda fields: json.dumps(json.loads(reading()) | fields).encode())
)
async def test_p4_whatever_a_device_sends_is_kept_and_acknowledged(tmp_path: Path, data: bytes) -> None:
    async with working_bench(tmp_path) as bench:
        before = await bench.log.buffer()
        await bench.take(data)
        after = await bench.log.buffer()
        kept = after.readings + after.quarantined - before.readings - before.quarantined
        assert kept in (1, 2) or bench.log.duplicates == 1
