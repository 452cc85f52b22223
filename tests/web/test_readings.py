"""GET readings: whose, which, page by page whatever happens meanwhile, and what they amount to in buckets."""

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.gateway_link import connect
from gateway.model.reading import NewReading, TimeSource
from gateway.operations import buckets, readings
from gateway.operations.erase import erase_device
from gateway.storage import history
from tests.site import Site
from tests.web.api import Asker, asker, running_api

API = "/api/v1/readings"
T0 = 1_763_640_000_000
"""What the test's clock says: 2025-11-20T12:00:00Z."""

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Asker]:
    async with running_api(tmp_path) as api:
        yield api


async def store(
    site: Site,
    time_ms: int,
    *,
    device: str = "kitchen",
    organization: str = "default",
    source: TimeSource = TimeSource.DEVICE,
    seq: int | None = None,
    **sensors: Any,
) -> None:
    """Store a reading as it would come in now."""
    payload = json.dumps({"device_id": device, "sensors": sensors or {"pir": {"motion_detected": True}}, "seq": seq})
    stream = site.log.stream(organization, device, "b")
    now, monotonic = site.clock.now_ms(), site.clock.monotonic_ms()
    await site.log.append([NewReading(stream, None, time_ms, source, now, monotonic, payload.encode())])


async def seqs(api: Asker, **query: str | int) -> tuple[list[int], str | None]:
    status, page = await api.get(API, **query)
    assert status == 200, page
    return [one["seq"] for one in page["readings"]], page["next_cursor"]


async def all_seqs(api: Asker, **query: str | int) -> list[int]:
    found, cursor = await seqs(api, **query)
    while cursor is not None:
        more, cursor = await seqs(api, **query, cursor=cursor)
        found += more
    return found


# Readings


@pytest.mark.parametrize("path", [API, "/functions/v1/readings"])
async def test_a_reading_is_shown_as_destinations_see_it(api: Asker, path: str) -> None:
    await store(api.site, T0 - 250, seq=7)
    status, page = await api.get(path)
    assert status == 200
    assert page["next_cursor"] is None
    (reading,) = page["readings"]
    assert reading["id"] == f"site-1:{api.site.log.uuid}:1"
    assert (reading["time"], reading["time_source"]) == ("2025-11-20T11:59:59.750Z", "device")
    assert (reading["seq"], reading["late"], reading["device_id"]) == (7, False, "kitchen")


async def test_p8_a_token_sees_its_own_organisation_only(api: Asker) -> None:
    await store(api.site, T0, seq=1)
    await store(api.site, T0, seq=2, organization="other")
    assert await all_seqs(api) == [1]
    assert await all_seqs(await asker(api.site, organization_id="other")) == [2]
    assert await all_seqs(api, device_id="kitchen") == [1]


@pytest.mark.parametrize("path", [f"{API}?bucket=1m&from=0", API])
async def test_who_may_not_look_gets_nothing(api: Asker, path: str) -> None:
    assert (await Asker(api.site, "wrong").get(path))[0] == 401
    assert (await (await asker(api.site, "device")).get(path))[0] == 403


async def test_device_sensor_and_time_choose(api: Asker) -> None:
    await store(api.site, T0 - 3 * HOUR, seq=1)
    await store(api.site, T0 - 2 * HOUR, seq=2, device="hall")
    await store(api.site, T0 - HOUR, seq=3, co2={"ppm": 400})
    await store(api.site, T0, seq=4)
    assert await all_seqs(api) == [4, 3, 2, 1]
    assert await all_seqs(api, device_id="hall") == [2]
    assert await all_seqs(api, device_id="nobody") == []
    assert await all_seqs(api, sensor="co2") == [3]
    assert await all_seqs(api, **{"from": "2025-11-20T10:00:00Z", "to": "2025-11-20T12:00:00Z"}) == [3, 2]
    assert await all_seqs(api, **{"from": (T0 - HOUR) // 1000}) == [4, 3]
    assert await all_seqs(api, to=T0 - HOUR) == [2, 1]


async def test_an_empty_log_has_one_empty_page(api: Asker) -> None:
    assert await seqs(api) == ([], None)
    assert await api.get(API, bucket="1m", **{"from": 0}) == (200, {"buckets": [], "next_cursor": None})


async def test_what_arrives_or_leaves_between_two_pages_is_not_shown_twice_and_hides_nothing(api: Asker) -> None:
    for seq in range(1, 11):
        await store(api.site, T0, seq=seq, device="hall" if seq in (3, 7, 8) else "kitchen")
    found, cursor = await seqs(api, limit=3)
    assert found == [10, 9, 8]
    await store(api.site, T0 - HOUR, seq=11)
    async with connect(api.site.settings) as link:
        async for _ in link.stream(erase_device, organization_id="default", device_id="hall"):
            pass
    while cursor is not None:
        more, cursor = await seqs(api, limit=3, cursor=cursor)
        found += more
    assert found == [10, 9, 8, 6, 5, 4, 2, 1]
    assert await all_seqs(api, limit=3) == [11, 10, 9, 6, 5, 4, 2, 1]


async def test_p10_a_clock_that_is_set_between_two_pages_moves_nothing(api: Asker) -> None:
    clock = api.site.clock
    clock.synced, clock.now = False, 0
    for seq in range(1, 7):
        clock.advance(SECOND)
        await store(api.site, clock.now_ms(), source=TimeSource.GATEWAY, seq=seq)
    found, cursor = await seqs(api, limit=4)
    clock.synced, clock.now = True, T0
    await api.site.log.learn_clock()
    more, end = await seqs(api, limit=4, cursor=cursor or "")
    assert (found + more, end) == ([6, 5, 4, 3, 2, 1], None)
    recent = {"from": T0 - 3 * SECOND, "to": T0 - SECOND}
    assert await all_seqs(api, **recent) == [4, 3], "they are found by the time that they show"
    _, page = await api.get(API, **recent)
    assert [one["time_source"] for one in page["readings"]] == ["corrected"] * 2
    assert await all_seqs(api, to=HOUR) == []


async def test_rows_are_looked_at_in_bounds_and_nothing_is_missed(api: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_ROWS_AT_MOST", 40)
    monkeypatch.setattr(readings, "_PAGE_BYTES", 500)
    monkeypatch.setattr(history, "_FIRST_RANGE", 5)
    monkeypatch.setattr(history, "_WIDEST_RANGE", 20)
    monkeypatch.setattr(history, "_AT_ONCE", 4)
    for seq in range(1, 301):
        rare = seq % 97 == 0
        await store(api.site, T0 - (300 - seq) * MINUTE, seq=seq, device="rare" if rare else "kitchen")
    assert await all_seqs(api) == [*range(300, 0, -1)]
    assert await all_seqs(api, device_id="rare") == [291, 194, 97]
    assert await all_seqs(api, limit=1, device_id="rare") == [291, 194, 97]
    assert await all_seqs(api, limit=7, to=T0 - 100 * MINUTE) == [*range(199, 0, -1)]
    # The clock of the test stands still: all have come in now, however old they say they are.
    assert await all_seqs(api, limit=50, **{"from": T0 - 2 * MINUTE}) == [300, 299, 298]
    status, page = await api.get(API, sensor="nothing")
    assert (status, page["readings"]) == (200, [])
    assert page["next_cursor"] is not None, "there is more to look at"


async def test_what_came_in_before_the_time_asked_for_is_not_read(api: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_FIRST_RANGE", 10)
    monkeypatch.setattr(history, "_WIDEST_RANGE", 10)
    await api.site.log.learn_clock()
    for seq in range(1, 101):
        await store(api.site, api.site.clock.now_ms(), seq=seq)
        api.site.clock.advance(MINUTE)
    wanted = history.Wanted("default", None, T0 + 97 * MINUTE, None)
    steps = [step async for step in history.look_back(api.site.log, wanted, 101, skew_ms=5 * MINUTE)]
    assert [one.body["seq"] for step in steps for one in step.readings] == [100, 99, 98]
    assert sum(step.looked_at for step in steps) <= 20


async def test_a_gap_in_the_rows_is_leapt_over(api: Asker) -> None:
    """A restored log goes on far beyond its last row."""
    await store(api.site, T0, seq=1)
    await api.site.log._execute(
        ("UPDATE sqlite_sequence SET seq = 1000000000000 WHERE name = 'device_telemetry_history'", [()])
    )
    await store(api.site, T0, seq=2)
    assert await seqs(api) == ([2, 1], None)
    assert await seqs(api, device_id="kitchen") == ([2, 1], None)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2025-11-20T12:00:00 01:00"}, "to"),
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"bucket": "5 minutes", "from": "0"}, "bucket"),
        ({"bucket": "0s", "from": "0"}, "bucket"),
        ({"bucket": "1m"}, "from"),
        ({"device": "kitchen"}, "device"),
        ({"limit": "9" * 400}, "limit"),
        ({"from": "9" * 400}, "from"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Asker, query: dict[str, str], named: str) -> None:
    status, answer = await api.get(API, **query)
    assert (status, answer["error"]["code"]) == (400, "invalid_parameter")
    assert answer["error"]["message"].startswith(f"{named} ")
    assert answer["error"]["hint"]


@pytest.mark.parametrize("times", ["-1", "٣", "1e3"])
async def test_other_digits_are_no_number(api: Asker, times: str) -> None:
    assert (await api.get(API, limit=times))[0] == 400


async def test_a_cursor_of_something_else_is_refused(api: Asker) -> None:
    await store(api.site, T0, seq=1)
    await store(api.site, T0, seq=2)
    _, cursor = await seqs(api, limit=1)
    assert cursor
    other = urlsafe_b64encode(b"row:another-log:5").decode()
    too_far = urlsafe_b64encode(f"row:{api.site.log.uuid}:{10**30}".encode()).decode()
    for wrong in ("x", "\u00e4", "====", other, too_far):
        status, answer = await api.get(API, cursor=wrong)
        assert (status, answer["error"]["code"]) == (400, "invalid_cursor")
    assert (await api.get(API, cursor=cursor, bucket="1m", **{"from": 0}))[0] == 400


async def test_a_page_is_no_longer_than_the_cap(api: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.readings.READINGS_AT_MOST", 2)
    for seq in range(3):
        await store(api.site, T0, seq=seq)
    assert (await seqs(api, limit=1000))[0] == [2, 1]


# Buckets


async def in_buckets(api: Asker, **query: str | int) -> list[dict[str, Any]]:
    """Return all pages."""
    found, cursor = [], None
    while True:
        status, page = await api.get(API, **query, **({} if cursor is None else {"cursor": cursor}))
        assert status == 200, page
        found += page["buckets"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_a_bucket_has_the_figures_of_each_number(api: Asker) -> None:
    for second, ppm in ((5, 10), (50, 40), (20, 25)):
        await store(
            api.site, T0 - MINUTE + second * SECOND, mq134={"gas_concentration": ppm, "unit": "ppm", "state": None}
        )
    await store(api.site, T0 - 5 * MINUTE, mq134={"gas_concentration": 1.5})
    newest, oldest = await in_buckets(api, bucket="1m", **{"from": T0 - HOUR})
    assert newest == {
        "device_id": "kitchen",
        "start": "2025-11-20T11:59:00.000Z",
        "end": "2025-11-20T12:00:00.000Z",
        "readings": 3,
        "sensors": {"mq134": {"gas_concentration": {"min": 10, "max": 40, "mean": 25.0, "last": 40, "count": 3}}},
    }
    assert oldest["sensors"]["mq134"]["gas_concentration"]["mean"] == 1.5


async def test_duty_is_weighted_by_the_time_until_the_next_reading(api: Asker) -> None:
    for second, present in ((0, True), (45, False), (50, True), (55, False)):
        await store(api.site, T0 - 2 * MINUTE + second * SECOND, ld2410={"presence": present})
    (bucket,) = await in_buckets(api, bucket="1m", **{"from": T0 - HOUR})
    assert bucket["sensors"]["ld2410"]["presence"] == {"duty": round(50 / 60, 6), "last": False, "count": 4}


async def test_a_reading_speaks_for_a_bounded_time_and_into_the_next_bucket(api: Asker) -> None:
    await store(api.site, T0 - 40 * MINUTE - 30 * SECOND, ld2410={"presence": True})  # then nothing for half an hour
    await store(api.site, T0 - 10 * MINUTE - 60 * SECOND, ld2410={"presence": True})
    await store(api.site, T0 - 10 * MINUTE + 60 * SECOND, ld2410={"presence": False})
    newest, *_ = await in_buckets(api, bucket="10m", **{"from": T0 - HOUR})
    # True from the bucket before for 60 s, then false for as long as that reading speaks: 300 s.
    assert newest["sensors"]["ld2410"]["presence"] == {"duty": round(60 / 360, 6), "last": False, "count": 1}
    first = (await in_buckets(api, bucket="10m", **{"from": T0 - 10 * MINUTE}))[0]
    assert first == newest, "also when what came before lies outside"


async def test_the_newest_reading_speaks_until_now(api: Asker) -> None:
    await store(api.site, T0 - 20 * SECOND, pir={"motion_detected": False})
    await store(api.site, T0 - 10 * SECOND, pir={"motion_detected": True})
    await store(api.site, T0, device="hall", pir={"motion_detected": True})
    kitchen = (await in_buckets(api, bucket="1h", device_id="kitchen", **{"from": 0}))[0]
    assert kitchen["sensors"]["pir"]["motion_detected"]["duty"] == 0.5
    hall = (await in_buckets(api, bucket="1h", device_id="hall", **{"from": 0}))[0]
    assert hall["sensors"]["pir"]["motion_detected"]["duty"] == 1.0, "of a moment, the share of the readings"


async def test_numbers_without_bounds_and_other_shapes_do_no_harm(api: Asker) -> None:
    await store(
        api.site, T0, wild={"huge": 10**400, "big": 1.7e308, "deep": {"x": 1}, "text": "x", "list": [1]}, flat=3
    )
    await store(api.site, T0, wild={"big": -1.7e308, "whole": 2**70})
    (bucket,) = await in_buckets(api, bucket="1d", **{"from": 0})
    assert bucket["sensors"].keys() == {"wild"}
    assert bucket["sensors"]["wild"].keys() == {"big", "whole"}
    assert bucket["sensors"]["wild"]["big"]["mean"] is None
    assert bucket["sensors"]["wild"]["whole"]["max"] == 2**70


async def test_what_does_not_fit_into_a_page_is_in_the_next_and_no_bucket_is_torn(
    api: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_READINGS", 20)
    chance = random.Random(7)
    for _ in range(300):
        board = chance.choice(("kitchen", "hall"))
        time_ms = T0 - chance.randrange(HOUR)
        await store(api.site, time_ms, device=board, x={"n": chance.randrange(9), "on": chance.random() < 0.5})
    question: dict[str, str | int] = {"bucket": "3m", "from": T0 - HOUR + 100_000, "to": T0 - 100_000}
    paged = await in_buckets(api, **question, limit=3)
    monkeypatch.setattr(buckets, "_READINGS", 20_000)
    status, page = await api.get(API, **question, limit=1000)
    assert (status, page["next_cursor"]) == (200, None)
    assert paged == page["buckets"]
    assert len(paged) > 30
    assert [one["start"] for one in paged] == sorted((one["start"] for one in paged), reverse=True)


async def test_too_much_in_one_bucket_is_said(api: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_FIGURES_AT_MOST", 5)
    await store(api.site, T0, x={str(number): number for number in range(6)})
    status, answer = await api.get(API, bucket="1m", **{"from": 0})
    assert (status, answer["error"]["code"]) == (400, "too_much")


async def test_only_the_sensor_that_is_named_has_figures(api: Asker) -> None:
    await store(api.site, T0, x={"n": 1}, y={"n": 2})
    await store(api.site, T0, y={"n": 3})
    (bucket,) = await in_buckets(api, bucket="1m", sensor="x", **{"from": 0})
    assert bucket["sensors"] == {"x": {"n": {"min": 1, "max": 1, "mean": 1.0, "last": 1, "count": 1}}}
    assert bucket["readings"] == 1


@pytest.mark.parametrize("question", [{}, {"bucket": "1m", "from": 0}])
async def test_while_readings_are_salvaged_nothing_is_told_that_would_miss_some(
    api: Asker, question: dict[str, str | int]
) -> None:
    await api.site.log._execute(
        (
            "INSERT INTO salvages (file, reason, found_at_ms, floor, frontier, finished) VALUES (?, '', 0, 0, 0, 0)",
            [("log.db.corrupt-x",)],
        )
    )
    status, answer = await api.get(API, **question)
    assert (status, answer["error"]["code"]) == (503, "store_failed")
