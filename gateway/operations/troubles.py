"""What the stores tell of boards and destinations that somebody should look at."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from gateway.model.errors import NotFound
from gateway.model.reading import StoredReading
from gateway.operations.devices import up_to_date_state
from gateway.operations.site import Site
from gateway.parsers.timestamp import FIRST_CREDIBLE_MS, number_ms, text_ms
from gateway.storage.credentials import Credentials
from gateway.storage.log_reader import LogReader
from gateway.storage.state import DeviceRow
from gateway.storage.troubles import QuarantineKind, RefusedKind, quarantine_kinds, refused_kinds

_LOOKED_AT = 12
"""Readings of each device: enough to know how often it usually sends."""
_DEVICES_AT_MOST = 2_000
_PATIENCE_MS = 4_000
_STEADY_MS = 60_000

BoardClock = Literal["right", "none", "unset", "ahead", "behind"]


@dataclass(slots=True, frozen=True)
class DeviceHealth:
    """When a device was heard, and what its clock is like."""

    organization_id: str
    device_id: str
    status: str
    last_heard_ms: int | None
    """When its newest stored reading was received; None when there is none."""
    usual_gap_ms: int | None
    """Between two readings; None when too few are known."""
    last_login_ms: int | None
    connections: int
    """Open now; 0 while no gateway runs."""
    clock: BoardClock = "right"
    """`none`: it sends no time; `unset`: a time before 2020."""
    clock_off_ms: int = 0


@dataclass(slots=True, frozen=True)
class Troubles:
    """All of it."""

    now_ms: int
    devices: list[DeviceHealth]
    quarantine: list[QuarantineKind]
    refused: list[RefusedKind]


async def list_troubles(site: Site) -> Troubles:
    """Return what there is. Devices beyond a bound of number and time are left out."""
    state = await up_to_date_state(site)
    logins = {(one.organization_id, one.device_id): one.last_connected_at_ms for one in await Credentials(state).all()}
    log: LogReader | None = None
    with suppress(NotFound):
        log = await site.log()
    until_ms = site.clock.monotonic_ms() + _PATIENCE_MS
    devices: list[DeviceHealth] = []
    for row in (await state.devices())[:_DEVICES_AT_MOST]:
        if row.status == "revoked":
            continue
        if site.clock.monotonic_ms() > until_ms:
            break
        key = (row.organization_id, row.device_id)
        latest = [] if log is None else await log.latest_of(*key, _LOOKED_AT)
        devices.append(_health(site, row, latest, logins.get(key)))
    return Troubles(
        site.clock.now_ms(),
        devices,
        [] if log is None else await quarantine_kinds(log),
        [] if log is None else await refused_kinds(log),
    )


def _health(site: Site, row: DeviceRow, latest: Sequence[StoredReading], login_ms: int | None) -> DeviceHealth:
    key = (row.organization_id, row.device_id)
    activity = None if site.live is None else site.live.activity(*key)
    heard = [reading.received_at_ms for reading in latest]
    last_ms = [*heard, activity.last_seen_ms] if activity is not None and activity.readings else heard
    clock, off_ms = board_clock(latest, site.settings.clock.max_skew_s * 1000)
    return DeviceHealth(
        *key,
        status=row.status,
        last_heard_ms=max(last_ms, default=None),
        usual_gap_ms=(max(heard) - min(heard)) // (len(heard) - 1) if len(heard) > 1 else None,
        last_login_ms=login_ms,
        connections=0 if activity is None else activity.connections,
        clock=clock,
        clock_off_ms=off_ms,
    )


def board_clock(latest: Sequence[StoredReading], max_skew_ms: int) -> tuple[BoardClock, int]:
    """Return what a device's clock is like, and how far it is off, by what its newest readings (the first) claim.

    Ahead it is by the newest. Behind it is only if all of the last three are by the same: a board that sends what it
    kept during an outage is behind as well, but less and less.
    """
    offsets = []
    for reading in latest[:3]:
        claimed_ms = _claimed_ms(reading.body.get("timestamp"))
        if claimed_ms is None:
            return "none", 0
        if claimed_ms < FIRST_CREDIBLE_MS:
            return "unset", 0
        offsets.append(claimed_ms - reading.received_at_ms)
    if offsets and offsets[0] > max_skew_ms:
        return "ahead", offsets[0]
    if len(offsets) == 3 and max(offsets) < -max_skew_ms and max(offsets) - min(offsets) < _STEADY_MS:  # noqa: PLR2004 - see above
        return "behind", offsets[0]
    return "right", 0


def _claimed_ms(timestamp: object) -> int | None:
    if isinstance(timestamp, str):
        return text_ms(timestamp)
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        with suppress(OverflowError, ValueError):
            return number_ms(timestamp)
    return None
