"""What alerts come from, and where they go: what runs and its certificates before the watch, its alerts to people."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from cloud_sync.notifier import Notifier
from gateway.access import Access
from gateway.alerts.engine import AlertEngine, OnOpen
from gateway.alerts.watch import Ending, Looked, Watch, Watched
from gateway.clock import Clock
from gateway.integrations import RunningIntegrations
from gateway.storage.alerts import AlertRow, Alerts
from gateway.storage.device_rows import device_username
from gateway.storage.log import Log
from gateway.storage.state import State
from gateway.tls.site_tls import SiteTls

_DAY_MS = 86_400_000
_CLIENTS_MS = 30 * _DAY_MS
"""So long before a device's certificate ends it is told: somebody has to go to the board."""

Integrations = Callable[[], Awaitable[Iterable[Watched]]]


def watched_integrations(integrations: RunningIntegrations, log: Log) -> Integrations:
    """Return what asks after the integrations, those that run and those that should."""

    async def ask() -> list[Watched]:
        found = [
            Watched(one.id, one.name, one.organization_id or None, None, one.why) for one in integrations.not_started()
        ]
        for running in integrations.running():
            one = Watched(running.id, running.name, running.organization_id or None, running.health)
            if running.forwarder is not None and not log.care.is_damaged:  # else the log cannot be asked
                status = await running.forwarder.status()
                one = replace(one, undelivered=status.undelivered, oldest_s=status.oldest_seconds)
            found.append(one)
        return found

    return ask


def alert_engine(
    integrations: Integrations,
    tls: SiteTls | None,
    access: Access,
    state: State,
    clock: Clock,
    *,
    on_open: OnOpen,
) -> AlertEngine:
    """Return the engine of alerts; `on_open` hears of each that opens."""
    watch = Watch(clock)

    async def look() -> Looked:
        endings = [*_of_site(tls), *_of_devices(access, clock)]
        return watch.look(
            await integrations(),
            endings,
            lambda organization_id, device_id: access.is_known(device_username(organization_id, device_id)),
        )

    return AlertEngine(Alerts(state), look, clock, on_open=on_open)


def told_by(notifier: Notifier, *, home: str) -> OnOpen:
    """Return what announces an alert to whoever wants to know of such; those of the site to the home organisation."""

    async def tell(alert: AlertRow) -> None:
        await notifier.announce(
            alert.organization_id or home,
            f"alert.{alert.kind}",
            alert.message,
            priority=alert.severity,
            data={"alert_id": alert.id, "subject": alert.subject},
            dedupe_key=f"alert-{alert.id}",  # it may be told once more, if the gateway was killed meanwhile
        )

    return tell


def _of_site(tls: SiteTls | None) -> list[Ending]:
    return [] if tls is None else [Ending(None, one.name, one.left_s, one.is_soon, one.words) for one in tls.expiries()]


def _of_devices(access: Access, clock: Clock) -> list[Ending]:
    found = []
    for device, ends_ms in access.certificates_seen():
        left_ms = ends_ms - clock.now_ms()
        when = f"ends in {left_ms / _DAY_MS:.0f} days" if left_ms > 0 else "has ended"
        words = (
            f"The certificate of {device.device_id} {when}. Issue another, and bring it to the board:"
            f" neurogate certs issue {device.device_id} --organization {device.organization_id}"
        )
        is_soon = left_ms < _CLIENTS_MS
        found.append(Ending(device.organization_id, device.device_id, left_ms / 1000, is_soon, words))
    return found
