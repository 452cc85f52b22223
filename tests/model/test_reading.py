from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.reading import TimeSource, rfc3339, rfc3339_or_null, wire_reading
from tests.cloud_sync.samples import stored


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_are_rfc_3339_in_utc_with_milliseconds(time: datetime) -> None:
    unix_ms = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert rfc3339(unix_ms) == time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_time_that_there_is_not_is_null_and_the_first_one_is_none_of_these() -> None:
    assert (rfc3339_or_null(None), rfc3339_or_null(0)) == (None, "1970-01-01T00:00:00.000Z")


def test_every_time_source_has_its_lower_case_name() -> None:
    for source, shown in {0: "device", 1: "gateway", 2: "corrected"}.items():
        reading = stored()
        reading.time_source = TimeSource(source)
        assert wire_reading(reading, gateway_id="g", log_uuid="l")["time_source"] == shown


def test_what_a_device_sent_is_kept_unless_the_gateway_says_it_better() -> None:
    body = {
        "sensors": {},
        "firmware": "1.4.0",
        "timestamp": 1,
        "age_ms": 5,
        "id": "mine",
        "device_id": "other",
    }
    wire = wire_reading(stored(7, body), gateway_id="site-1", log_uuid="log-1")
    assert (wire["id"], wire["device_id"], wire["firmware"]) == ("site-1:log-1:7", "esp32-kitchen", "1.4.0")
    assert not {"timestamp", "age_ms"} & wire.keys()


def test_a_device_that_says_nothing_of_its_health_has_an_empty_one() -> None:
    said: list[dict[str, Any]] = [{}, {"health": None}, {"health": {}}]
    for fields in said:
        assert wire_reading(stored(7, {"sensors": {}, **fields}), gateway_id="site-1", log_uuid="log-1")["health"] == {}
