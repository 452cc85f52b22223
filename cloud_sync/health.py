"""How one integration does: whether it is up, when it last worked, what went wrong, how fast and how much of a day.

Whoever sends through it says what came of each attempt; nothing here decides anything, and all of it is in memory.

- up is what the last attempt has shown: one that has not been tried yet is taken for up
- what the other side refuses for its content is an error, but it is there: only ten in a row make it down
- the share of a day that it was up is told in quarters of an hour, since the gateway started or the integration began
"""

from typing import Literal

from cloud_sync.contract import (
    AuthFailed,
    Gone,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
    WrongAddress,
)
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.status import IntegrationHealth
from gateway.recent_count import RecentCount

ErrorKind = Literal["authentication", "quota", "connection", "configuration", "refused"]

REFUSALS_AT_MOST = 10
"""So many in a row are the other side's error, and not those of what is sent."""

_KINDS: dict[type[Outcome], ErrorKind] = {
    RetryAfter: "quota",
    NotConnected: "connection",
    AuthFailed: "authentication",
    WrongAddress: "configuration",
    Gone: "configuration",
    TooLarge: "refused",
    Rejected: "refused",
}
_SLICE_MS = 15 * 60_000
_SLICES = 96
_PER_MINUTES = 5
_LATE = 0.2
"""What the newest attempt counts for in the mean."""


class Health:
    """See the module's own words."""

    def __init__(self, integration_id: str, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._id = integration_id
        self._errors = metrics.integration_errors
        self._seconds = metrics.integration_request.labels(integration_id)
        self._success_time = metrics.integration_last_success.labels(integration_id)
        metrics.integration_up.labels(integration_id).set_function(lambda: float(self.is_up))
        metrics.integration_uptime.labels(integration_id).set_function(lambda: self.uptime)
        self.last_success_ms: int | None = None
        self.last_error_ms: int | None = None
        self.last_error = ""
        self.error_kind: ErrorKind | None = None
        """Of the last error."""
        self.failures = 0
        """In a row, since the last success."""
        self.errors = 0
        """Since the start."""
        self.quota = RecentCount()
        """How often it asked for patience."""
        self.is_up = True
        self._latency_s: float | None = None
        self._minutes: dict[int, int] = {}
        """Items, by the minute in which they got there."""
        self._began_ms = self._settled_ms = clock.monotonic_ms()
        self._failing_since_ms: int | None = None
        self._down_ms: dict[int, int] = {}
        """By quarter of an hour."""

    def tried(self, outcome: Outcome, seconds: float, items: int = 1) -> None:
        """Hear what came of an attempt that took so long."""
        if isinstance(outcome, Ok):
            self.succeeded(seconds, items)
        else:
            self.failed(outcome, seconds)

    def succeeded(self, seconds: float, items: int = 1) -> None:
        """Hear that it has taken so much, in one request."""
        self._took(seconds)
        self._settle()
        self.is_up, self.failures, self._failing_since_ms = True, 0, None
        self.last_success_ms = self._clock.now_ms()
        self._success_time.set(self.last_success_ms / 1000)
        minute = self._clock.monotonic_ms() // 60_000
        self._minutes = {one: count for one, count in self._minutes.items() if one > minute - _PER_MINUTES}
        self._minutes[minute] = self._minutes.get(minute, 0) + items

    def failed(self, outcome: Outcome, seconds: float | None = None) -> None:
        """Hear that something went wrong, perhaps only after a while."""
        assert not isinstance(outcome, Ok)
        if seconds is not None:
            self._took(seconds)
        self._settle()
        self.error_kind = kind = _KINDS.get(type(outcome), "refused")
        self.failures += 1
        self.errors += 1
        self._errors.labels(self._id, kind).inc()
        if kind == "quota":
            self.quota.add(self._clock.monotonic_ms())
        self.last_error, self.last_error_ms = outcome.reason, self._clock.now_ms()
        if self._failing_since_ms is None:
            self._failing_since_ms = self._clock.monotonic_ms()
        if kind != "refused" or self.failures >= REFUSALS_AT_MOST:
            self.is_up = False

    def _took(self, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._latency_s = seconds if self._latency_s is None else (1 - _LATE) * self._latency_s + _LATE * seconds

    @property
    def failing_ms(self) -> int:
        """How long nothing has succeeded since the first failure; 0 while all is well."""
        return 0 if self._failing_since_ms is None else self._clock.monotonic_ms() - self._failing_since_ms

    @property
    def quota_hits(self) -> int:
        """How often it asked for patience in the last ten to twenty minutes."""
        return self.quota.count(self._clock.monotonic_ms())

    @property
    def per_minute(self) -> float:
        """What it has taken, in items a minute over the last five whole ones."""
        now = self._clock.monotonic_ms() // 60_000
        return (
            sum(count for minute, count in self._minutes.items() if now - _PER_MINUTES <= minute < now) / _PER_MINUTES
        )

    @property
    def uptime(self) -> float:
        """The share of the last day, or of the time since it began, that it was up: 0 to 1."""
        self._settle()
        now = self._clock.monotonic_ms()
        known_ms = now - max(self._began_ms, (now // _SLICE_MS - _SLICES + 1) * _SLICE_MS)
        return 1.0 if known_ms <= 0 else max(0.0, 1 - sum(self._down_ms.values()) / known_ms)

    def figures(self) -> IntegrationHealth:
        """Return all of it."""
        return IntegrationHealth(
            up=self.is_up,
            last_success_ms=self.last_success_ms,
            last_error_ms=self.last_error_ms,
            error_kind=self.error_kind,
            failures=self.failures,
            errors=self.errors,
            latency_s=None if self._latency_s is None else round(self._latency_s, 4),
            items_per_minute=round(self.per_minute, 2),
            uptime=round(self.uptime, 4),
        )

    def _settle(self) -> None:
        """Write down how it was until now."""
        now = self._clock.monotonic_ms()
        first = now // _SLICE_MS - _SLICES + 1
        at = max(self._settled_ms, first * _SLICE_MS)
        while not self.is_up and at < now:
            slice_ = at // _SLICE_MS
            until = min(now, (slice_ + 1) * _SLICE_MS)
            self._down_ms[slice_] = self._down_ms.get(slice_, 0) + until - at
            at = until
        self._down_ms = {one: down for one, down in self._down_ms.items() if one >= first}
        self._settled_ms = now
