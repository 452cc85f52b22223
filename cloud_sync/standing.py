"""How a destination does: what its forwarder does now, since when it fails, and when the next attempt is.

Plain words stand for what is called a circuit breaker: closed is `ok`, open is `waiting after failures`, half-open is
`trying`. The waiting itself is the backoff's; nothing here decides anything.
"""

import logging
from functools import partial

from cloud_sync.contract import NotConnected, Ok, Outcome, RetryAfter
from cloud_sync.sender import OUTCOME_LABELS
from gateway.clock import Clock
from gateway.metrics import Metrics

DELIVERY_STATES = ("ok", "waiting after failures", "trying", "stopped")
"""What `DestinationStatus.delivery` may say."""


class Standing:
    """See the module's own words; for the forwarder's task."""

    def __init__(self, name: str, clock: Clock, metrics: Metrics, logger: logging.Logger) -> None:
        self._clock = clock
        self._logger = logger
        self.state = "idle"
        """As in DestinationStatus."""
        self.failures = 0
        """Since the last success."""
        self.last_error = ""
        self._failing_since_ms: int | None = None
        self._is_trying = False
        self._has_ended = False
        self._waits_until_ms: int | None = None
        for state in DELIVERY_STATES:
            metrics.delivery_state.labels(name, state).set_function(partial(self._is, state))
        metrics.next_attempt.labels(name).set_function(lambda: self.next_attempt_s or 0.0)

    @property
    def delivery(self) -> str:
        """Say it in plain words."""
        if self._failing_since_ms is None:
            return "ok"
        if self._is_trying:
            return "trying"
        return "stopped" if self._has_ended else "waiting after failures"

    def _is(self, state: str) -> float:
        return float(self.delivery == state)

    @property
    def next_attempt_s(self) -> float | None:
        """How long until the next attempt; None unless it waits after failures."""
        if self._waits_until_ms is None or self.delivery != "waiting after failures":
            return None
        return max(0.0, (self._waits_until_ms - self._clock.monotonic_ms()) / 1000)

    @property
    def down_s(self) -> float | None:
        """How long it has been failing; None when it is not."""
        since_ms = self._failing_since_ms
        return None if since_ms is None else (self._clock.monotonic_ms() - since_ms) / 1000

    def err(self, state: str, reason: str) -> None:
        """Note what is wrong."""
        self.state, self.last_error = state, reason

    def tries(self) -> None:
        """Hear that an attempt begins."""
        if not self.failures:
            self.state = "sending"
        self._is_trying, self._waits_until_ms = True, None

    def tried(self) -> None:
        """Hear that it is over."""
        self._is_trying = False

    def failed(self, outcome: Outcome, *, next_attempt_s: float | None) -> None:
        """Remember a failure, and log it unless it only goes on; without a next attempt it is for good."""
        assert not isinstance(outcome, Ok)
        goes_on = self._failing_since_ms is not None
        before = self.state
        self.err("retrying" if isinstance(outcome, NotConnected | RetryAfter) else "error", outcome.reason)
        now_ms = self._clock.monotonic_ms()
        if not goes_on:
            self._failing_since_ms = now_ms
        self.failures += 1
        self._has_ended = next_attempt_s is None
        self._waits_until_ms = None if next_attempt_s is None else now_ms + round(next_attempt_s * 1000)
        self._logger.log(
            logging.DEBUG if goes_on and self.state == before else logging.WARNING,
            "delivery failed: %s",
            outcome.reason,
            extra={"outcome": OUTCOME_LABELS[type(outcome)], "next_attempt_s": next_attempt_s},
        )

    def succeeded(self) -> None:
        """Leave the error behind."""
        self.failures = 0
        self._failing_since_ms = None
        self.last_error = ""
