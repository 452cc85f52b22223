"""What /metrics shows can be read by Prometheus, and says what was observed."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.metrics import BatchHistogram, DiskWrites, Metrics

BUCKETS = (0.001, 0.0025, 0.5, 1.0, 5.0)
OBSERVATIONS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=10)


def families(registry: CollectorRegistry) -> list[Metric]:
    """Everything of a registry, as both of Prometheus' formats say it."""
    text: Iterable[Metric] = parse_text(generate_latest(registry).decode())
    strict: Iterable[Metric] = parse_openmetrics(openmetrics.generate_latest(registry).decode())  # type: ignore[no-untyped-call]
    found = [family for family in text if not family.name.endswith("_created")]
    assert {family.name for family in found} == {family.name for family in strict}
    return found


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in families(registry)
        for sample in family.samples
    }


@given(OBSERVATIONS)
def test_a_batch_histogram_says_the_same_as_the_librarys_own(observations: list[tuple[float, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = BatchHistogram("latency_seconds", "Words.", BUCKETS, ours)
    oracle = Histogram("latency_seconds", "Words.", buckets=BUCKETS, registry=theirs)
    for value, times in observations:
        histogram.observe(value, times)
        for _ in range(times):
            oracle.observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def test_a_value_on_a_bound_belongs_below_it_and_one_beyond_all_is_counted() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("latency_seconds", "Words.", BUCKETS, registry)
    histogram.observe(0.001)
    histogram.observe(0.0011, 2)
    histogram.observe(99.0, 4)
    got = samples(registry)
    assert [got["latency_seconds_bucket", str(bound)] for bound in BUCKETS] == [1, 3, 3, 3, 3]
    assert got["latency_seconds_bucket", "+Inf"] == got["latency_seconds_count", ""] == 7
    assert got["latency_seconds_sum", ""] == pytest.approx(0.001 + 2 * 0.0011 + 4 * 99)


def test_everything_the_gateway_exposes_can_be_read() -> None:
    metrics = Metrics()
    metrics.errors.labels('a "reason"\\ with\nwords').inc()
    metrics.latency.observe(0.02, 5)
    metrics.delivery_latency.labels("cloud").observe(0.1)
    found = {family.name: family for family in families(metrics.registry)}
    assert found["sensor_data_errors"].samples[0].labels == {"reason": 'a "reason"\\ with\nwords'}
    for name, family in found.items():
        assert re.fullmatch(r"(neurogate_|sensor_data_)\w+|active_connections|queue_size", name)
        assert family.documentation


def test_gateways_side_by_side_do_not_count_each_others_readings() -> None:
    one, other = Metrics(), Metrics()
    one.ingested.inc()
    assert other.registry.get_sample_value("sensor_data_ingested_total") == 0


def test_what_was_written_to_disk_only_grows() -> None:
    registry = CollectorRegistry()
    DiskWrites("disk_written_bytes_total", "Words.", registry)
    before, after = (samples(registry)["disk_written_bytes_total", ""] for _ in range(2))
    assert 0 <= before <= after


def test_where_the_system_does_not_count_writes_there_is_no_such_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> str:
        raise PermissionError

    registry = CollectorRegistry()
    DiskWrites("disk_written_bytes_total", "Words.", registry)
    monkeypatch.setattr("gateway.metrics.Path.read_text", denied)
    assert samples(registry) == {}
