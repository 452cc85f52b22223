"""The outbox of notifications in `state.db`, and what became of them: `notification_log`.

- a notification is on disk when `add` returns; those that are handed in together share a commit
- what goes out is frozen first: its rows get a `message_id`, so a retry says the same under the same id, also after a
  restart. Rows of one `message_id` share their fate
- a `dedupe_key` that was handed in lately, and has not failed, is counted and not told again
- bounded by number, size and age, for each organisation by itself. What still waits never leaves: beyond the number
  nothing more is taken in
- the copy of the state is not brought up to date for it: one that comes back from an hour ago sends again, with the
  same ids

It does not: send, or decide what goes when (cloud_sync/notifier).
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from uuid import uuid4

import aiosqlite

from gateway.config import NotificationSettings
from gateway.model.errors import Conflict, NeurogateError, NotFound, StoreFailed, StoreFull
from gateway.model.priorities import rank_of
from gateway.storage.activity_log import note
from gateway.storage.notification_rows import COLUMNS, NewNotification, NotificationRow, Status
from gateway.storage.state import State

_WAITS = "status IN ('pending', 'retrying')"  # these as the indexes say it
_FRESH = f"{_WAITS} AND message_id IS NULL"
_FROZEN = f"{_WAITS} AND message_id IS NOT NULL"
_NOBODY: Mapping[str, str] = MappingProxyType({})
_TRIM_EVERY = 200
_DAY_MS = 86_400_000
_LONGEST_PATIENCE_MS = _DAY_MS
"""Nobody asks for more; a moment further off was written by a clock that has been set since."""
_SIZE = "length(message) + length(data) + length(recipients) + length(metadata) + length(error_message) + 300"


@dataclass(slots=True, frozen=True)
class Added:
    """What became of a notification that was handed in."""

    id: str
    status: Status
    is_repeated: bool
    """It was there already: this is the one from before."""


@dataclass(slots=True, frozen=True)
class Waiting:
    """The first of what waits at an integration."""

    seq: int
    urgency: int


@dataclass(slots=True, frozen=True)
class UnderWay:
    """A message that has been frozen."""

    message_id: str
    urgency: int
    """Of the most urgent in it."""


class NotificationLog:
    """See the module's own words."""

    def __init__(self, state: State, settings: NotificationSettings) -> None:
        self._state = state
        self._settings = settings
        self._new: list[tuple[NewNotification, asyncio.Future[Added | NeurogateError]]] = []
        self._turn = asyncio.Lock()
        self.changed = asyncio.Event()
        """Set when something has become of one that was to be sent; then there is another. Take it before you look."""
        self._untrimmed = _TRIM_EVERY

    async def add(self, new: NewNotification) -> Added:
        """Hand it in. Raises BadInput, StoreFull and StoreFailed."""
        new.check()
        told: asyncio.Future[Added | NeurogateError] = asyncio.get_running_loop().create_future()
        self._new.append((new, told))
        async with self._turn:
            if not told.done():
                await self._write()
        answer = told.result()
        if isinstance(answer, NeurogateError):
            raise answer
        return answer

    async def _write(self) -> None:
        """Write whatever has come while the commit before was under way."""
        waiting, self._new = self._new, []
        answers: Sequence[Added | NeurogateError] = [StoreFailed("It was broken off.")] * len(waiting)
        try:
            answers = await self._state.change(lambda db: self._insert(db, [new for new, _ in waiting]), copied=False)
            self._untrimmed += len(waiting)
            if self._untrimmed >= _TRIM_EVERY:
                self._untrimmed = 0
                await self.trim()
        except StoreFailed as error:
            answers = [error] * len(waiting)
        finally:
            for (_, told), answer in zip(waiting, answers, strict=True):
                if not told.done():
                    told.set_result(answer)

    async def _insert(self, db: aiosqlite.Connection, new: Sequence[NewNotification]) -> list[Added | NeurogateError]:
        now_ms = self._state.now_ms()
        room = {one: await self._room(db, one) for one in {each.organization_id for each in new}}
        answers: list[Added | NeurogateError] = []
        for one in new:
            if (known := await self._repeated(db, one, now_ms)) is not None:
                answers.append(known)
            elif room[one.organization_id] <= 0:
                answers.append(_full(one.organization_id))
            else:
                room[one.organization_id] -= 1
                answers.append(await _insert_one(db, one, now_ms))
        return answers

    async def _room(self, db: aiosqlite.Connection, organization_id: str) -> int:
        ((waiting,),) = await db.execute_fetchall(
            f"SELECT count(*) FROM notification_log WHERE organization_id = ? AND {_WAITS}",  # noqa: S608 - a constant
            (organization_id,),
        )
        return self._settings.log_max_count - int(waiting)

    async def _repeated(self, db: aiosqlite.Connection, new: NewNotification, now_ms: int) -> Added | None:
        """Count a repetition; None if it is none."""
        if new.dedupe_key is None:
            return None
        window_ms = round(self._settings.dedupe_key_window_s * 1000)
        found = await db.execute_fetchall(
            """UPDATE notification_log SET repeats = repeats + 1, updated_at = ?1 WHERE seq = (
                SELECT seq FROM notification_log WHERE organization_id = ?2 AND integration_id = ?3
                AND dedupe_key = ?4 AND status <> 'failed' AND created_at > ?1 - ?5 AND created_at < ?1 + ?5
                ORDER BY seq DESC LIMIT 1
            ) RETURNING id, status""",
            (now_ms, new.organization_id, new.integration_id, new.dedupe_key, window_ms),
        )
        for name, status in found:
            return Added(name, status, is_repeated=True)
        return None

    async def trim(self) -> None:
        """Let go of what is too old or too much, and waits no more."""
        settings, now_ms = self._settings, self._state.now_ms()

        async def delete(db: aiosqlite.Connection) -> None:
            await db.execute(
                f"DELETE FROM notification_log WHERE NOT {_WAITS} AND updated_at < ?",  # noqa: S608 - a constant
                (now_ms - round(settings.log_max_age_days * _DAY_MS),),
            )
            await db.execute(
                f"""DELETE FROM notification_log WHERE NOT {_WAITS} AND seq IN (
                    SELECT seq FROM (
                        SELECT seq, row_number() OVER newest AS rows, sum({_SIZE}) OVER newest AS bytes
                        FROM notification_log WINDOW newest AS (PARTITION BY organization_id ORDER BY seq DESC)
                    ) WHERE rows > ? OR bytes > ?)""",  # noqa: S608 - only constants
                (settings.log_max_count, settings.log_max_bytes),
            )

        await self._state.change(delete, copied=False)

    # What goes out

    async def waiting_integrations(self) -> list[str]:
        """Return the ids of integrations for which something waits."""
        rows = await self._state.fetch(f"SELECT DISTINCT integration_id FROM notification_log WHERE {_WAITS}")  # noqa: S608 - a constant
        return [name for (name,) in rows]

    async def first(self, integration_id: str, *, through: int | None = None) -> Waiting | None:
        """Return the most urgent of those that are in no message yet (up to a number), of equal ones the oldest."""
        rows = await self._state.fetch(
            f"""SELECT seq, urgency FROM notification_log WHERE integration_id = ? AND {_FRESH}
            AND (?2 IS NULL OR seq <= ?2) ORDER BY urgency DESC, seq LIMIT 1""",  # noqa: S608 - a constant
            (integration_id, through),
        )
        return next((Waiting(*row) for row in rows), None)

    async def due_message(self, integration_id: str) -> UnderWay | None:
        """Return the message under way that is to be sent next, if it is time for one."""
        now_ms = self._state.now_ms()
        rows = await self._state.fetch(
            f"""SELECT message_id, max(urgency) FROM notification_log WHERE integration_id = ? AND {_FROZEN}
            AND coalesce(next_attempt_at, 0) NOT BETWEEN ? AND ?
            GROUP BY message_id ORDER BY max(urgency) DESC, min(seq) LIMIT 1""",  # noqa: S608 - a constant
            (integration_id, now_ms + 1, now_ms + _LONGEST_PATIENCE_MS),
        )
        return next((UnderWay(*row) for row in rows), None)

    async def next_attempt_ms(self, integration_id: str) -> int | None:
        """Return when a message under way is to be tried again; None when there is none."""
        ((first,),) = await self._state.fetch(
            f"SELECT min(coalesce(next_attempt_at, 0)) FROM notification_log WHERE integration_id = ? AND {_FROZEN}",  # noqa: S608 - a constant
            (integration_id,),
        )
        return None if first is None else int(first)

    async def newest_seq(self) -> int:
        """Return the highest number given."""
        ((newest,),) = await self._state.fetch("SELECT coalesce(max(seq), 0) FROM notification_log")
        return int(newest)

    async def freeze(
        self, integration_id: str, *, through: int | None = None, max_count: int = 1, max_bytes: int = 0
    ) -> list[NotificationRow]:
        """Make a message of the first of what waits, and return its rows, the most urgent first.

        With `through`, of all up to that number which may go with it: of the same organisation, for the same
        recipients. Nothing is returned when nothing waits any more.
        """

        async def update(db: aiosqlite.Connection) -> list[NotificationRow]:
            fresh = f"integration_id = ? AND {_FRESH}"
            values: list[object] = [integration_id]
            if through is not None:
                fresh, values = f"{fresh} AND seq <= ?", [*values, through]
            order = "ORDER BY urgency DESC, seq"
            sql = f"SELECT {COLUMNS} FROM notification_log WHERE {fresh}"  # noqa: S608 - only constants
            found = [NotificationRow.of(row) for row in await db.execute_fetchall(f"{sql} {order} LIMIT 1", values)]
            if found and through is not None:
                values += [found[0].organization_id, json.dumps(found[0].recipients)]
                fitting = await db.execute_fetchall(
                    f"{sql} AND organization_id = ? AND recipients = ? {order} LIMIT ?", [*values, max_count]
                )
                found = _within([NotificationRow.of(row) for row in fitting], max_bytes)
            if not found:
                return []
            message_id = found[0].id if len(found) == 1 else str(uuid4())
            await db.execute(
                "UPDATE notification_log SET message_id = ? WHERE seq IN (SELECT value FROM json_each(?))",
                (message_id, json.dumps([one.seq for one in found])),
            )
            return [replace(one, message_id=message_id) for one in found]

        return await self._state.change(update, copied=False)

    async def hurry(self, integration_id: str) -> None:
        """Let what is to be tried again be tried at once."""
        sql = f"UPDATE notification_log SET next_attempt_at = NULL WHERE integration_id = ? AND {_FROZEN}"  # noqa: S608 - a constant
        await self._state.change(lambda db: db.execute(sql, (integration_id,)), copied=False)

    async def give_up(self, integration_id: str, reason: str) -> None:
        """Let everything that waits for an integration have failed."""
        now_ms = self._state.now_ms()
        sql = f"""UPDATE notification_log SET status = 'failed', failed_at = ?, updated_at = ?, next_attempt_at = NULL,
            error_message = ? WHERE integration_id = ? AND {_WAITS}"""  # noqa: S608 - a constant
        values = (now_ms, now_ms, reason, integration_id)
        await self._state.change(lambda db: db.execute(sql, values), copied=False)
        self.changed.set()
        self.changed = asyncio.Event()

    async def release(self, message_id: str) -> None:
        """Take a message apart that was refused as a whole: what was in it goes out in others."""
        await self._settle(message_id, "message_id = NULL, attempts = 0")

    async def message(self, message_id: str) -> list[NotificationRow]:
        """Return the rows of a message, the most urgent first."""
        rows = await self._state.fetch(
            f"SELECT {COLUMNS} FROM notification_log WHERE message_id = ? ORDER BY urgency DESC, seq",  # noqa: S608 - a constant
            (message_id,),
        )
        return [NotificationRow.of(row) for row in rows]

    async def sent(self, message_id: str) -> None:
        """Note that everybody has it."""
        await self._settle(message_id, "status = 'sent', sent_at = :now, error_message = ''")

    async def failed(
        self, message_id: str, reason: str, *, left: Sequence[str] | None = None, refused: Mapping[str, str] = _NOBODY
    ) -> None:
        """Note that it is given up: for everybody, or for those of its recipients who are `left`.

        `refused`: who will never take it, and why.
        """
        change = """status = 'failed', failed_at = :now, attempts = attempts + 1, error_message = :reason,
            recipients_left = :left, metadata = json_patch(metadata, :facts)"""
        await self._settle(message_id, change, reason=reason, left=_json(left), facts=_facts(refused))

    async def retrying(
        self,
        message_id: str,
        reason: str,
        wait_s: float,
        *,
        counts: bool,
        left: Sequence[str] | None = None,
        refused: Mapping[str, str] = _NOBODY,
    ) -> None:
        """Note that it is tried again after so long, and whether what has failed was an attempt that counts."""
        change = """status = 'retrying', retry_count = retry_count + 1, attempts = attempts + :counts,
            error_message = :reason, recipients_left = :left, metadata = json_patch(metadata, :facts)"""
        values = {"reason": reason, "counts": counts, "left": _json(left), "facts": _facts(refused)}
        await self._settle(message_id, change, wait_s, **values)

    async def _settle(self, message_id: str, change: str, wait_s: float | None = None, **values: object) -> None:
        now_ms = self._state.now_ms()
        due_ms = None if wait_s is None else now_ms + round(wait_s * 1000)
        sql = f"UPDATE notification_log SET updated_at = :now, next_attempt_at = :due, {change} WHERE message_id = :id"  # noqa: S608 - only constants
        named = {**values, "now": now_ms, "due": due_ms, "id": message_id}
        await self._state.change(lambda db: db.execute(sql, named), copied=False)
        self.changed.set()
        self.changed = asyncio.Event()

    # What is asked

    async def get(self, organization_id: str, notification_id: str) -> NotificationRow:
        """Return one of an organisation. Raises NotFound."""
        rows = await self._state.fetch(
            f"SELECT {COLUMNS} FROM notification_log WHERE id = ? AND organization_id = ?",  # noqa: S608 - a constant
            (notification_id, organization_id),
        )
        for row in rows:
            return NotificationRow.of(row)
        raise _unknown(notification_id)

    async def page(
        self,
        organization_id: str,
        *,
        status: str | None = None,
        integration_id: str | None = None,
        before: int | None = None,
        limit: int,
    ) -> list[NotificationRow]:
        """Return the newest of an organisation below a number."""
        rows = await self._state.fetch(
            f"""SELECT {COLUMNS} FROM notification_log WHERE organization_id = ?1 AND (?2 IS NULL OR status = ?2)
            AND (?3 IS NULL OR integration_id = ?3) AND (?4 IS NULL OR seq < ?4) ORDER BY seq DESC LIMIT ?5""",  # noqa: S608 - a constant
            (organization_id, status, integration_id, before, limit),
        )
        return [NotificationRow.of(row) for row in rows]

    async def resend(self, organization_id: str, notification_id: str, *, by: str) -> NotificationRow:
        """Let one that has failed be tried anew, with all that is in the same message and under the same id.

        Raises NotFound, and Conflict for one that has not failed: it would reach somebody twice.
        """

        async def update(db: aiosqlite.Connection) -> None:
            found = await db.execute_fetchall(
                "SELECT status, coalesce(message_id, id) FROM notification_log WHERE id = ? AND organization_id = ?",
                (notification_id, organization_id),
            )
            for status, message_id in found:
                if status != "failed":
                    raise Conflict(
                        f"The notification {notification_id} is {status}: only one that has failed is sent again.",
                        hint="Send a new one, if it is to be told once more.",
                    )
                now_ms = self._state.now_ms()
                await db.execute(
                    """UPDATE notification_log SET status = 'retrying', attempts = 0, next_attempt_at = NULL,
                    failed_at = NULL, updated_at = ?1, message_id = ?2, metadata = json_remove(metadata, '$.refused')
                    WHERE coalesce(message_id, id) = ?2""",
                    (now_ms, message_id),
                )
                await note(db, now_ms, by, organization_id, "notification.resend", notification_id)
                return
            raise _unknown(notification_id)

        await self._state.change(update, copied=False)
        return await self.get(organization_id, notification_id)

    async def erase(self, organization_id: str, device_id: str) -> int:
        """Remove what is about a device, also what waits, and return how many there were."""

        async def delete(db: aiosqlite.Connection) -> int:
            gone = await db.execute(
                "DELETE FROM notification_log WHERE organization_id = ? AND device_id = ?", (organization_id, device_id)
            )
            return gone.rowcount

        return await self._state.change(delete)


async def _insert_one(db: aiosqlite.Connection, new: NewNotification, now_ms: int) -> Added:
    name = str(uuid4())
    await db.execute(
        """INSERT INTO notification_log (id, organization_id, integration_id, integration_type, kind, subject, message,
        priority, urgency, data, recipients, device_id, dedupe_key, metadata, created_at, updated_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            *(name, new.organization_id, new.integration_id, new.integration_type, new.kind, new.subject, new.message),
            *(new.priority, rank_of(new.priority), new.data_json, json.dumps(list(new.recipients)), new.device_id),
            *(new.dedupe_key, json.dumps({"by": new.by}), now_ms, now_ms),
        ),
    )
    return Added(name, "pending", is_repeated=False)


def _within(rows: list[NotificationRow], max_bytes: int) -> list[NotificationRow]:
    """Return as many of them as are no more than so many bytes, the first in any case."""
    size = 0
    for index, row in enumerate(rows):
        size += len(row.message.encode()) + len(row.subject.encode()) + len(json.dumps(row.data)) + 300
        if index and size > max_bytes:
            return rows[:index]
    return rows


def _facts(refused: Mapping[str, str]) -> str | None:
    return _json({"refused": dict(refused)} if refused else {})


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _full(organization_id: str) -> StoreFull:
    return StoreFull(
        f"Too many notifications of {organization_id} wait to be sent.",
        hint="See why they do not go out: neurogate notify log. The bound is notifications.log_max_count.",
    )


def _unknown(notification_id: str) -> NotFound:
    return NotFound(
        f"There is no notification {notification_id[:50]!r}.", hint="See: neurogate notify log, GET notification-log."
    )
