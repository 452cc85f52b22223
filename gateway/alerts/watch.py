"""What is wrong now: with integrations, by their health, and with certificates. Pure but for what it remembers.

| kind | when |
|---|---|
| `connection_failed` | three attempts in a row, over two minutes or more, did not reach it; `high` after an hour |
| `authentication_failed` | three attempts in a row were not let in |
| `quota_exceeded` | it has asked for patience (429, 503) five times in the last ten to twenty minutes |
| `configuration_error` | it cannot be started, nobody there takes what is sent, or ten in a row were refused |
| `cannot_keep_up` | it works, and more has waited for ten minutes, and longer each time it is looked at |
| `certificate_expires` | a certificate of the site, or the one that a device came in by last, ends soon |

What was not tried since the start is neither well nor ill: an alert from before stays as it is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cloud_sync.health import ErrorKind, Health
from gateway.clock import Clock
from gateway.storage.alerts import Cause, Key, Severity

FAILURES = 3
UNREACHABLE_MS = 2 * 60_000
LONG_MS = 3_600_000
QUOTA_HITS = 5
WAITS_MS = 10 * 60_000
_DAY_S = 86_400
_URGENT_DAYS = 3
_OF_HEALTH: dict[ErrorKind, str] = {
    "connection": "connection_failed",
    "authentication": "authentication_failed",
    "configuration": "configuration_error",
    "refused": "configuration_error",
}
KINDS = frozenset({*_OF_HEALTH.values(), "quota_exceeded", "cannot_keep_up", "certificate_expires"})


@dataclass(slots=True, frozen=True)
class Watched:
    """One integration."""

    id: str
    name: str
    organization_id: str | None
    """None for one of the configuration file."""
    health: Health | None
    """None for one that does not run."""
    why: str = ""
    """It could not be started."""
    undelivered: int = 0
    """Readings that it still has to get."""
    oldest_s: float = 0.0
    """How long the oldest of them waits."""


@dataclass(slots=True, frozen=True)
class Ending:
    """When a certificate ends."""

    organization_id: str | None
    subject: str
    left_s: float
    is_soon: bool
    words: str
    """Whole sentences."""


@dataclass(slots=True)
class Looked:
    """What was found."""

    causes: dict[Key, Cause] = field(default_factory=dict)
    unknown: Callable[[Key], bool] = lambda _: False
    """Whether nobody knows of this how it is."""


class Watch:
    """See the module's own words."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waits: dict[str, tuple[int, int]] = {}
        """Of integrations for which much waits: since when it does not get less, and how much that was."""

    def look(
        self, integrations: Iterable[Watched], endings: Iterable[Ending], has_access: Callable[[str, str], bool]
    ) -> Looked:
        """Return what is wrong.

        `endings` are of every certificate that was seen since the start; `has_access` says of (organisation, device)
        whether another may still be shown.
        """
        looked = Looked()
        unknown: set[Key] = set()
        watched = list(integrations)
        known = list(endings)
        for one in watched:
            for cause in self._causes(one):
                looked.causes[cause.key] = cause
            unknown |= {(one.organization_id, kind, one.id) for kind in self._unknown(one)}
        for ending in known:
            if (certificate := _certificate_cause(ending)) is not None:
                looked.causes[certificate.key] = certificate
        seen = {(one.organization_id, one.subject) for one in known}
        looked.unknown = lambda key: (
            key in unknown
            or (
                key[1] == "certificate_expires"
                and key[0] is not None
                and (key[0], key[2]) not in seen
                and has_access(key[0], key[2])
            )
        )
        self._waits = {one.id: self._waits[one.id] for one in watched if one.id in self._waits}
        return looked

    def _causes(self, one: Watched) -> Iterator[Cause]:
        def cause(kind: str, severity: Severity, message: str, count: int = 1) -> Cause:
            return Cause(one.organization_id, kind, one.id, severity, message, count)

        health = one.health
        if health is None:
            if one.why:
                yield cause("configuration_error", "high", f"{one.name} is not started: {one.why}")
            return
        failures, said = health.failures, health.last_error
        match health.error_kind if not health.is_up else None:
            case "connection" if failures >= FAILURES and health.failing_ms >= UNREACHABLE_MS:
                severity: Severity = "high" if health.failing_ms >= LONG_MS else "medium"
                yield cause("connection_failed", severity, f"{one.name} cannot be reached: {said}", failures)
            case "authentication" if failures >= FAILURES:
                yield cause("authentication_failed", "high", f"{one.name} does not let us in: {said}", failures)
            case "configuration":
                yield cause("configuration_error", "high", f"{one.name} takes nothing at its address: {said}", failures)
            case "refused":
                yield cause("configuration_error", "high", f"{one.name} refuses everything: {said}", failures)
        if (hits := health.quota_hits) >= QUOTA_HITS:
            yield cause("quota_exceeded", "medium", f"{one.name} asks us to send less: {said}", hits)
        if (waits := self._grows(one, health)) is not None:
            yield cause("cannot_keep_up", "medium", waits)

    def _unknown(self, one: Watched) -> Iterator[str]:
        """Yield the kinds of which this says nothing."""
        if one.health is None:
            if not one.why:
                yield from KINDS
            return
        if one.health.failures or one.health.last_success_ms is None:
            yield from _OF_HEALTH.values()
            yield "cannot_keep_up"
        if 0 < one.health.quota_hits < QUOTA_HITS or one.health.last_success_ms is None:
            yield "quota_exceeded"

    def _grows(self, one: Watched, health: Health) -> str | None:
        """Return what to say of one that works, and gets further and further behind."""
        if not health.is_up or one.oldest_s * 1000 < WAITS_MS:
            self._waits.pop(one.id, None)
            return None
        now_ms = self._clock.monotonic_ms()
        since_ms, undelivered = self._waits.setdefault(one.id, (now_ms, one.undelivered))
        if one.undelivered < undelivered:
            self._waits[one.id] = (now_ms, one.undelivered)
            return None
        if now_ms - since_ms < WAITS_MS or one.undelivered == undelivered:
            return None
        return (
            f"{one.name} cannot keep up: {one.undelivered:,} readings wait for it, the oldest for"
            f" {one.oldest_s / 60:,.0f} minutes. Let it get less (filters, report) or more often (its rate limit)."
        )


def _certificate_cause(ending: Ending) -> Cause | None:
    if not ending.is_soon:
        return None
    severity: Severity = "medium"
    if ending.left_s < 0:
        severity = "critical"
    elif ending.left_s < _URGENT_DAYS * _DAY_S:
        severity = "high"
    return Cause(ending.organization_id, "certificate_expires", ending.subject, severity, ending.words)
