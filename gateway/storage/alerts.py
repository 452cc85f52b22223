"""Alerts in `state.db`: what somebody should look at, one for each cause, however often it happens.

- of one cause (organisation, kind, subject) no more than one is unresolved: open, or acknowledged by somebody
- bounded: of an organisation, and of the site, the newest 1,000; a resolved one for 90 days
- who acknowledges or resolves one is in the activity log
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import aiosqlite

from gateway.model.errors import Conflict, NotFound
from gateway.storage.activity_log import note
from gateway.storage.state import State

Severity = Literal["low", "medium", "high", "critical"]
AlertState = Literal["open", "acknowledged", "resolved"]

ALERTS_AT_MOST = 1_000
_KEPT_MS = 90 * 86_400_000
_LONGEST_MESSAGE = 500

_COLUMNS = (
    "id, organization_id, kind, severity, subject, message, first_at, last_at, count, state, acknowledged_by,"
    " resolved_at"
)
_ALL = f"SELECT {_COLUMNS} FROM alerts"  # noqa: S608 - constants
_SEEN = "(?1 OR organization_id = ?2 OR (?3 AND organization_id IS NULL))"


@dataclass(slots=True, frozen=True)
class Cause:
    """What is wrong, as it is now."""

    organization_id: str | None
    """None for what is the site's."""
    kind: str
    subject: str
    """The id of what it is about: an integration, a device, a certificate."""
    severity: Severity
    message: str
    """Whole sentences without secrets."""
    count: int = 1
    """How often it has happened by now."""

    @property
    def key(self) -> "Key":
        """What there is one alert of."""
        return self.organization_id, self.kind, self.subject


Key = tuple[str | None, str, str]


@dataclass(slots=True, frozen=True)
class AlertRow:
    """An alert."""

    id: int
    organization_id: str | None
    kind: str
    severity: Severity
    subject: str
    message: str
    first_at_ms: int
    last_at_ms: int
    count: int
    state: AlertState
    acknowledged_by: str | None
    """As the activity log names them."""
    resolved_at_ms: int | None

    @property
    def key(self) -> Key:
        """What it is of."""
        return self.organization_id, self.kind, self.subject


@dataclass(slots=True, frozen=True)
class Scope:
    """Whose alerts somebody sees."""

    organization_id: str | None = None
    with_site: bool = False
    """Those of the site as well."""
    everybodys: bool = False

    @property
    def values(self) -> tuple[bool, str | None, bool]:
        """As the queries have them."""
        return self.everybodys, self.organization_id, self.with_site


class Alerts:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def page(
        self,
        scope: Scope,
        *,
        state: AlertState | None = None,
        kind: str | None = None,
        severity: Severity | None = None,
        before_id: int | None = None,
        limit: int,
    ) -> list[AlertRow]:
        """Return the newest below an id."""
        rows = await self._state.fetch(
            f"""{_ALL} WHERE {_SEEN} AND (?4 IS NULL OR state = ?4) AND (?5 IS NULL OR kind = ?5)
            AND (?6 IS NULL OR severity = ?6) AND (?7 IS NULL OR id < ?7) ORDER BY id DESC LIMIT ?8""",
            (*scope.values, state, kind, severity, before_id, limit),
        )
        return [AlertRow(*row) for row in rows]

    async def get(self, scope: Scope, alert_id: int) -> AlertRow:
        """Return one alert. Raises NotFound."""
        for row in await self._state.fetch(f"{_ALL} WHERE {_SEEN} AND id = ?4", (*scope.values, alert_id)):
            return AlertRow(*row)
        raise _no_alert(alert_id)

    async def unresolved(self) -> dict[Key, AlertRow]:
        """Return every alert that is not resolved."""
        rows = [AlertRow(*row) for row in await self._state.fetch(f"{_ALL} WHERE state <> 'resolved'")]
        return {row.key: row for row in rows}

    async def open(self, cause: Cause, *, reopen_ms: int) -> tuple[AlertRow, bool]:
        """Open an alert; returns it, and whether it is new.

        One that is not resolved only goes on; one that was resolved for less than `reopen_ms` is open again.
        """
        now_ms = self._state.now_ms()

        async def write(db: aiosqlite.Connection) -> tuple[AlertRow, bool]:
            lately = await db.execute_fetchall(
                """SELECT max(id) FROM alerts WHERE organization_id IS ? AND kind = ? AND subject = ?
                AND (state <> 'resolved' OR resolved_at > ?)""",
                (*cause.key, now_ms - reopen_ms),
            )
            ((known,),) = lately
            if known is not None:
                await db.execute(
                    """UPDATE alerts SET severity = ?, message = ?, last_at = ?, count = count + ?, resolved_at = NULL,
                    acknowledged_by = CASE state WHEN 'resolved' THEN NULL ELSE acknowledged_by END,
                    state = CASE state WHEN 'resolved' THEN 'open' ELSE state END WHERE id = ?""",
                    (cause.severity, cause.message[:_LONGEST_MESSAGE], now_ms, cause.count, known),
                )
                return await _read(db, known), False
            added = await db.execute(
                """INSERT INTO alerts
                (organization_id, kind, severity, subject, message, first_at, last_at, count, state)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open')""",
                (
                    cause.organization_id,
                    cause.kind,
                    cause.severity,
                    cause.subject,
                    cause.message[:_LONGEST_MESSAGE],
                    now_ms,
                    now_ms,
                    cause.count,
                ),
            )
            await _make_room(db, cause.organization_id, now_ms)
            assert added.lastrowid is not None
            return await _read(db, added.lastrowid), True

        return await self._state.change(write, copied=False)

    async def untold(self) -> list[AlertRow]:
        """Return every alert that is not resolved and of which nobody was told, the oldest first."""
        rows = await self._state.fetch(f"{_ALL} WHERE NOT told AND state <> 'resolved' ORDER BY id")
        return [AlertRow(*row) for row in rows]

    async def was_told(self, alert: AlertRow) -> None:
        """Note that whoever is to be told of it was."""

        async def write(db: aiosqlite.Connection) -> None:
            await db.execute("UPDATE alerts SET told = 1 WHERE id = ?", (alert.id,))

        await self._state.change(write, copied=False)

    async def update(self, alert: AlertRow, cause: Cause, more: int) -> None:
        """Note that it goes on."""

        async def write(db: aiosqlite.Connection) -> None:
            await db.execute(
                """UPDATE alerts SET severity = ?, message = ?, last_at = ?, count = count + ?
                WHERE id = ? AND state <> 'resolved'""",
                (cause.severity, cause.message[:_LONGEST_MESSAGE], self._state.now_ms(), more, alert.id),
            )

        await self._state.change(write, copied=False)

    async def settle(self, alerts: Iterable[AlertRow]) -> None:
        """Resolve alerts whose cause is no more."""
        ids = [(self._state.now_ms(), alert.id) for alert in alerts]

        async def write(db: aiosqlite.Connection) -> None:
            await db.executemany(
                "UPDATE alerts SET state = 'resolved', resolved_at = ? WHERE id = ? AND state <> 'resolved'", ids
            )

        if ids:
            await self._state.change(write, copied=False)

    async def acknowledge(self, scope: Scope, alert_id: int, *, by: str) -> AlertRow:
        """Note that somebody knows of it; who did first stays. Raises NotFound, and Conflict for a resolved one."""

        async def write(db: aiosqlite.Connection) -> AlertRow:
            alert = await _visible(db, scope, alert_id)
            if alert.state == "resolved":
                raise Conflict(f"The alert {alert_id} is resolved already.", hint="There is nothing left to be done.")
            if alert.state == "open":
                await db.execute(
                    "UPDATE alerts SET state = 'acknowledged', acknowledged_by = ? WHERE id = ?", (by, alert_id)
                )
                await _note(db, self._state.now_ms(), by, alert, "acknowledge", "acknowledged")
            return await _read(db, alert_id)

        return await self._state.change(write)

    async def resolve(self, scope: Scope, alert_id: int, *, by: str) -> AlertRow:
        """Note that somebody has done what was to be done. Raises NotFound."""

        async def write(db: aiosqlite.Connection) -> AlertRow:
            alert = await _visible(db, scope, alert_id)
            if alert.state != "resolved":
                now_ms = self._state.now_ms()
                await db.execute(
                    "UPDATE alerts SET state = 'resolved', resolved_at = ? WHERE id = ?", (now_ms, alert_id)
                )
                await _note(db, now_ms, by, alert, "resolve", "resolved")
            return await _read(db, alert_id)

        return await self._state.change(write)


async def _visible(db: aiosqlite.Connection, scope: Scope, alert_id: int) -> AlertRow:
    for row in await db.execute_fetchall(f"{_ALL} WHERE {_SEEN} AND id = ?4", (*scope.values, alert_id)):
        return AlertRow(*row)
    raise _no_alert(alert_id)


async def _read(db: aiosqlite.Connection, alert_id: int) -> AlertRow:
    ((*row,),) = await db.execute_fetchall(f"{_ALL} WHERE id = ?", (alert_id,))
    return AlertRow(*row)


async def _note(
    db: aiosqlite.Connection, now_ms: int, by: str, alert: AlertRow, action: str, becomes: AlertState
) -> None:
    before: dict[str, Any] = {"state": alert.state}
    await note(db, now_ms, by, alert.organization_id, f"alert.{action}", str(alert.id), before, {"state": becomes})


async def _make_room(db: aiosqlite.Connection, organization_id: str | None, now_ms: int) -> None:
    """Let go of the oldest; what is not resolved stays as long as there is room."""
    await db.execute(
        """DELETE FROM alerts WHERE organization_id IS ?1 AND id NOT IN (
            SELECT id FROM alerts WHERE organization_id IS ?1 ORDER BY state = 'resolved', id DESC LIMIT ?2)""",
        (organization_id, ALERTS_AT_MOST),
    )
    await db.execute("DELETE FROM alerts WHERE state = 'resolved' AND resolved_at < ?", (now_ms - _KEPT_MS,))


def _no_alert(alert_id: int) -> NotFound:
    return NotFound(f"There is no alert {alert_id}.", hint="neurogate alert list shows what there is.")
