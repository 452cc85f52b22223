"""Alerts: what somebody should look at. They are listed and dealt with whether a gateway runs or not."""

from gateway.operations.site import Site
from gateway.storage.alerts import AlertRow, Alerts, AlertState, Scope, Severity

EVERYBODYS = Scope(everybodys=True)


async def list_alerts(
    site: Site,
    *,
    scope: Scope = EVERYBODYS,
    state: AlertState | None = None,
    kind: str | None = None,
    severity: Severity | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[AlertRow]:
    """Return the newest alerts below an id."""
    alerts = Alerts(await site.state())
    return await alerts.page(scope, state=state, kind=kind, severity=severity, before_id=before_id, limit=limit)


async def show_alert(site: Site, *, alert_id: int, scope: Scope = EVERYBODYS) -> AlertRow:
    """Return one alert. Raises NotFound."""
    return await Alerts(await site.state()).get(scope, alert_id)


async def acknowledge_alert(site: Site, *, alert_id: int, scope: Scope = EVERYBODYS) -> AlertRow:
    """Note that somebody knows of it. Raises NotFound, and Conflict for a resolved one."""
    return await Alerts(await site.state()).acknowledge(scope, alert_id, by=site.actor)


async def resolve_alert(site: Site, *, alert_id: int, scope: Scope = EVERYBODYS) -> AlertRow:
    """Note that what was to be done is done. Raises NotFound."""
    return await Alerts(await site.state()).resolve(scope, alert_id, by=site.actor)
