"""Commands in `state.db`: what devices were told to do, by whom, and what became of it.

- one that is written is not told twice because the gateway was started again: it is marked before it leaves
- bounded: of a device 20 that wait and the newest 100, of an organisation the newest 5,000, none older than 30 days
- the copy beside the state is not brought up to date for them: there are many, and none is worth anything for long
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import aiosqlite

from gateway.model.command import Command, Late
from gateway.model.errors import Conflict, NotFound
from gateway.storage.state import State

PENDING_AT_MOST = 20
OF_DEVICE_AT_MOST = 100
OF_ORGANIZATION_AT_MOST = 5_000
_KEPT_MS = 30 * 86_400_000

_COLUMNS = (
    "number, organization_id, device_id, id, method, params, actor, created_at, deadline, state, result, sent_at,"
    " finished_at, late"
)
_ALL = f"SELECT {_COLUMNS} FROM commands"  # noqa: S608 - constants
_IS_PENDING = "state IN ('queued', 'sent', 'executing')"


class Commands:
    """See the module's own words."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, new: Command) -> tuple[Command, bool]:
        """Write a command down; returns it, and whether it is new: one that was sent before under this id is not.

        Raises Conflict when that one asked for something else, or too many wait.
        """

        async def insert(db: aiosqlite.Connection) -> tuple[Command, bool]:
            for row in await db.execute_fetchall(
                f"{_ALL} WHERE organization_id = ? AND device_id = ? AND id = ?", new.key
            ):
                known = _command(row)
                if not known.says_the_same(new):
                    raise Conflict(
                        f"There is a command {new.id} to {new.device_id} already, and it asks for something else.",
                        hint="Leave the id out, or use another.",
                    )
                return known, False
            await self._refuse_too_many(db, new)
            added = await db.execute(
                """INSERT INTO commands
                (organization_id, device_id, id, method, params, actor, created_at, deadline, state)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    *new.key,
                    new.method,
                    json.dumps(new.params),
                    new.actor,
                    new.created_at_ms,
                    new.deadline_ms,
                    new.state,
                ),
            )
            await self._make_room(db, new)
            assert added.lastrowid is not None
            return replace(new, number=added.lastrowid), True

        return await self._state.change(insert, copied=False)

    @staticmethod
    async def _refuse_too_many(db: aiosqlite.Connection, new: Command) -> None:
        ((waiting,),) = await db.execute_fetchall(
            f"SELECT count(*) FROM commands WHERE organization_id = ? AND device_id = ? AND {_IS_PENDING}",  # noqa: S608 - a constant
            (new.organization_id, new.device_id),
        )
        if waiting >= PENDING_AT_MOST:
            raise Conflict(
                f"{waiting} commands to {new.device_id} wait already.",
                hint="Wait until some are answered, or their deadlines have passed.",
            )

    @staticmethod
    async def _make_room(db: aiosqlite.Connection, new: Command) -> None:
        of_device = (new.organization_id, new.device_id)
        await db.execute(
            f"""DELETE FROM commands WHERE organization_id = ?1 AND device_id = ?2 AND NOT {_IS_PENDING} AND number <= (
                SELECT number FROM commands WHERE organization_id = ?1 AND device_id = ?2
                ORDER BY number DESC LIMIT 1 OFFSET ?3)""",  # noqa: S608 - a constant
            (*of_device, OF_DEVICE_AT_MOST),
        )
        await db.execute(
            f"""DELETE FROM commands WHERE organization_id = ?1 AND NOT {_IS_PENDING} AND number <= (
                SELECT number FROM commands WHERE organization_id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)""",  # noqa: S608 - a constant
            (new.organization_id, OF_ORGANIZATION_AT_MOST),
        )
        await db.execute(  # the first ones are the oldest
            f"""DELETE FROM commands WHERE NOT {_IS_PENDING} AND created_at < ?
                AND number IN (SELECT number FROM commands ORDER BY number LIMIT 100)""",  # noqa: S608 - a constant
            (new.created_at_ms - _KEPT_MS,),
        )

    async def get(self, organization_id: str, device_id: str, command_id: str) -> Command:
        """Return one command. Raises NotFound."""
        key = (organization_id, device_id, command_id)
        for row in await self._state.fetch(f"{_ALL} WHERE organization_id = ? AND device_id = ? AND id = ?", key):
            return _command(row)
        raise NotFound(
            f"There is no command {command_id[:100]!r} to {device_id[:100]}.", hint="They are listed per device."
        )

    async def page(
        self, organization_id: str, device_id: str, *, state: str | None, before: int | None, limit: int
    ) -> list[Command]:
        """Return a device's newest commands below a number."""
        rows = await self._state.fetch(
            f"""{_ALL} WHERE organization_id = ?1 AND device_id = ?2 AND (?3 IS NULL OR state = ?3)
            AND (?4 IS NULL OR number < ?4) ORDER BY number DESC LIMIT ?5""",
            (organization_id, device_id, state, before, limit),
        )
        return [_command(row) for row in rows]

    async def pending(self) -> list[Command]:
        """Return every command of which something may still become, the oldest first."""
        return [_command(row) for row in await self._state.fetch(f"{_ALL} WHERE {_IS_PENDING} ORDER BY number")]

    async def over(self) -> list[tuple[str, str, str]]:
        """Return the keys of the others."""
        keys = f"SELECT organization_id, device_id, id FROM commands WHERE NOT {_IS_PENDING}"  # noqa: S608 - a constant
        return [(organization, device, one) for organization, device, one in await self._state.fetch(keys)]

    async def record(self, commands: Sequence[Command]) -> None:
        """Write down what has become of these. One that was deleted meanwhile stays so. Raises StoreFailed."""

        async def update(db: aiosqlite.Connection) -> None:
            await db.executemany(
                "UPDATE commands SET state = ?, result = ?, sent_at = ?, finished_at = ?, late = ? WHERE number = ?",
                [
                    (
                        one.state,
                        _json(one.result),
                        one.sent_at_ms,
                        one.finished_at_ms,
                        None if one.late is None else _json(asdict(one.late)),
                        one.number,
                    )
                    for one in commands
                ],
            )

        if commands:
            await self._state.change(update, copied=False)

    async def forget(self, organization_id: str, device_id: str) -> None:
        """Delete what a device was told, but for what it is still to answer."""

        async def delete(db: aiosqlite.Connection) -> None:
            await db.execute(
                f"DELETE FROM commands WHERE organization_id = ? AND device_id = ? AND NOT {_IS_PENDING}",  # noqa: S608 - a constant
                (organization_id, device_id),
            )

        await self._state.change(delete)


def _json(value: Any) -> str | None:  # noqa: ANN401 - JSON
    return None if value is None else json.dumps(value)


def _command(row: Iterable[Any]) -> Command:
    number, organization, device, one, method, params, actor, created, deadline, state, result, sent, done, late = row
    return Command(
        number,
        organization,
        device,
        one,
        method,
        json.loads(params),
        actor,
        created,
        deadline,
        state,
        None if result is None else json.loads(result),
        sent,
        done,
        None if late is None else Late(**json.loads(late)),
    )
