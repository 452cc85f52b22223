"""Every metric the gateway exposes, with its name, in one place.

The first five names are documented ones that dashboards already use; the rest start with `neurogate_` and are in base
units. A registry belongs to one gateway, so that tests can run several side by side.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class BatchHistogram(Collector):
    """A histogram that takes many equal observations at once.

    The client library's own takes one at a time, under a lock: too slow for tens of thousands of readings a second.
    """

    def __init__(self, name: str, documentation: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`."""
        self._sum += value * times
        for index, bound in enumerate(self._bounds):
            if value <= bound:
                self._counts[index] += times
                return
        self._counts[-1] += times

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield the histogram with cumulative buckets."""
        cumulative = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            cumulative += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(cumulative)))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class DiskWrites(Collector):
    """What this process has caused to be written to disk, as Linux counts it (/proc/self/io); absent elsewhere."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Yield the counter."""
        with suppress(OSError, ValueError):
            for line in Path("/proc/self/io").read_text().splitlines():
                name, _, value = line.partition(": ")
                if name == "write_bytes":
                    yield CounterMetricFamily(self._name, self._documentation, value=int(value))


class Metrics:
    """The gateway's metrics; each attribute is one family."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.ingested = Counter("sensor_data_ingested_total", "Readings stored.", registry=registry)
        self.errors = Counter(
            "sensor_data_errors_total", "Messages that could not be used.", ["reason"], registry=registry
        )
        self.latency = BatchHistogram(
            "sensor_data_processing_latency_seconds", "From receipt to commit.", _LATENCY_BUCKETS_S, registry
        )
        self.connections = Gauge("active_connections", "Open MQTT connections.", registry=registry)
        self.queue_size = Gauge("queue_size", "Readings waiting for their commit.", ["queue_name"], registry=registry)
        self.duplicates = Counter("neurogate_duplicates_total", "Readings that were stored already.", registry=registry)
        self.buffer_bytes = Gauge("neurogate_buffer_bytes", "Size of the log on disk.", registry=registry)
        self.store_damaged = Gauge(
            "neurogate_store_damaged",
            "1 from when damage was found until the gateway starts again after a clean stop.",
            ["database"],
            registry=registry,
        )
        self.buffer_oldest = Gauge(
            "neurogate_buffer_oldest_seconds",
            "Age of the oldest reading a destination still has to get.",
            ["destination"],
            registry=registry,
        )
        self.events_dropped = Counter(
            "neurogate_events_dropped_total",
            "Messages a destination or subscriber did not get.",
            ["destination", "reason"],
            registry=registry,
        )
        self.dead_letters = Gauge(
            "neurogate_dead_letters", "Readings a destination has refused.", ["destination"], registry=registry
        )
        self.delivery = Counter(
            "neurogate_delivery_total",
            "Attempts to deliver a batch.",
            ["destination", "outcome"],
            registry=registry,
        )
        self.delivery_state = Gauge(
            "neurogate_delivery_state",
            "1 for what a destination's delivery does now: ok, waiting after failures, trying, stopped.",
            ["destination", "state"],
            registry=registry,
        )
        self.next_attempt = Gauge(
            "neurogate_next_attempt_seconds",
            "Time until the next attempt of a destination that waits after failures, else 0.",
            ["destination"],
            registry=registry,
        )
        self.integration_info = Gauge(
            "neurogate_integration_info",
            "1 for each integration: its id, which other metrics call `destination`, and what it is called.",
            ["integration", "name", "organization", "type"],
            registry=registry,
        )
        self.delivery_latency = Histogram(
            "neurogate_delivery_latency_seconds", "Length of one attempt.", ["destination"], registry=registry
        )
        self.integration_up = Gauge(
            "neurogate_integration_up",
            "1 when the last attempt has shown that it is there.",
            ["integration"],
            registry=registry,
        )
        self.integration_last_success = Gauge(
            "neurogate_integration_last_success_timestamp_seconds",
            "When it last took something (unix time).",
            ["integration"],
            registry=registry,
        )
        self.integration_errors = Counter(
            "neurogate_integration_errors_total", "Attempts that failed.", ["integration", "kind"], registry=registry
        )
        self.integration_request = Summary(
            "neurogate_integration_request_seconds", "Length of its requests.", ["integration"], registry=registry
        )
        self.integration_uptime = Gauge(
            "neurogate_integration_uptime_ratio",
            "Share of the last 24 hours, or since it began, that it was up.",
            ["integration"],
            registry=registry,
        )
        self.receiving = Gauge(
            "neurogate_receiving",
            "1 while messages can come through an integration that receives.",
            ["integration"],
            registry=registry,
        )
        self.received = Counter(
            "neurogate_received_messages_total",
            "Messages that came through an integration and are on disk.",
            ["integration"],
            registry=registry,
        )
        self.received_unasked = Counter(
            "neurogate_received_unasked_messages_total",
            "Messages that came through an integration on a topic that none of its filters matches; they are left out.",
            ["integration"],
            registry=registry,
        )
        self.notification_attempts = Counter(
            "neurogate_notification_attempts_total",
            "Attempts to send a notification, or several in one message.",
            ["integration", "outcome"],
            registry=registry,
        )
        self.notification_latency = Histogram(
            "neurogate_notification_latency_seconds",
            "Length of one attempt.",
            ["integration"],
            registry=registry,
        )
        DiskWrites("neurogate_disk_written_bytes_total", "Bytes this process caused to be written.", registry)
        self.clock_synced = Gauge("neurogate_clock_synced", "1 while the clock is synchronised.", registry=registry)
        self.refused = Counter(
            "neurogate_front_door_refused_total",
            "Connections refused or closed.",
            ["reason"],
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "neurogate_certificate_expiry_seconds",
            "Time until a certificate of the site ends, negative when it has.",
            ["certificate"],
            registry=registry,
        )
        self.commands = Counter(
            "neurogate_commands_total",
            "Commands to devices that are over, by what became of them: successful, failed, expired.",
            ["state"],
            registry=registry,
        )
        self.paused = Counter(
            "neurogate_front_door_paused_total",
            "How often a client was not read for a while.",
            ["reason"],
            registry=registry,
        )
        self.subscriptions_refused = Counter(
            "neurogate_subscriptions_refused_total",
            "Topic filters that were not granted.",
            ["reason"],
            registry=registry,
        )
        self.logins_delayed = Counter(
            "neurogate_failed_logins_delay_seconds_total",
            "How long answers to failed logins were made to wait.",
            registry=registry,
        )
        self.restarts = Counter(
            "neurogate_part_restarts_total", "Parts restarted after a crash.", ["part"], registry=registry
        )
        self.serial_open = Gauge("neurogate_serial_open", "1 while a serial port is open.", ["port"], registry=registry)
        self.serial_lost = Counter(
            "neurogate_serial_lost_total",
            "How often a serial port that was open went away.",
            ["port"],
            registry=registry,
        )
        self.serial_skipped = Counter(
            "neurogate_serial_skipped_bytes_total",
            "Bytes from a serial port that were no part of a line or frame.",
            ["port"],
            registry=registry,
        )

    def forget_destination(self, destination: str) -> None:
        """Let go of what was measured of a destination that is no more: labels must not pile up."""
        by_destination: tuple[MetricWrapperBase, ...] = (
            self.buffer_oldest,
            self.events_dropped,
            self.dead_letters,
            self.delivery,
            self.delivery_state,
            self.next_attempt,
            self.delivery_latency,
        )
        for family in by_destination:
            family.remove_by_labels({"destination": destination})
        by_integration: tuple[MetricWrapperBase, ...] = (
            self.integration_info,
            self.integration_up,
            self.integration_last_success,
            self.integration_errors,
            self.integration_request,
            self.integration_uptime,
            self.receiving,
            self.received,
            self.received_unasked,
            self.notification_attempts,
            self.notification_latency,
        )
        for family in by_integration:
            family.remove_by_labels({"integration": destination})

    def forget_part(self, part: str) -> None:
        """Let go of what was counted of a part that is no more."""
        self.restarts.remove_by_labels({"part": part})
