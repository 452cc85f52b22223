"""What the log holds, and how far each destination is."""

from dataclasses import dataclass

from gateway.model.status import BufferStatus, Loss
from gateway.operations.integrations import list_integrations
from gateway.operations.site import Site
from gateway.storage.cursors import destination_of


@dataclass(slots=True, frozen=True)
class Place:
    """How far one reader of the log is."""

    name: str
    position: int
    """Up to this row it has dealt with everything, as it is on disk."""
    undelivered: int
    """Of a destination that does not run, also what its filters leave out."""
    oldest_seconds: int | None
    """Age of the oldest reading it still has to get; None when there is none."""
    dead_letters: int
    lost: Loss | None
    dead_letters_lost: Loss | None
    """What had to leave before it was replayed."""
    state: str | None
    """Of a destination that runs: what it does, see DestinationStatus."""
    delivery: str | None
    next_attempt_s: float | None
    label: str = ""
    """What its owner calls one whose name is only an id."""

    @property
    def title(self) -> str:
        """What people know it as."""
        return self.label or self.name


@dataclass(slots=True, frozen=True)
class BufferReport:
    """The log, and everyone's place in it."""

    buffer: BufferStatus
    destinations: list[Place]


async def buffer_status(site: Site) -> BufferReport:
    """Return what the log holds, and for each destination what it still has to get."""
    log = await site.log()
    live = None if site.live is None else await site.live.status()
    running = {} if live is None else {one.name: one for one in live.destinations}
    dead = await log.dead_letters.counts()
    labels = {one.id: one.name for one in await list_integrations(site) if one.origin == "api"}
    places = []
    cursors = await log.cursors()
    backlogs = {destination_of(one.name): one for one in cursors if one.until is not None}
    for cursor in cursors:
        if cursor.until is not None:
            continue
        now = running.get(cursor.name)
        position = cursor.position
        undelivered, oldest_ms = await log.count_after(position)
        if (backlog := backlogs.get(cursor.name)) is not None:
            position, until = backlog.position, backlog.until or 0
            beyond, _ = await log.count_after(until)  # first: it grows meanwhile
            left, oldest_ms = await log.count_after(position)
            undelivered += min(left - beyond, until - position)
        age_s = None if oldest_ms is None else round((site.clock.now_ms() - oldest_ms) / 1000)
        lost = await log.loss(cursor.name)
        places.append(
            Place(
                cursor.name,
                position,
                now.undelivered if now else undelivered,
                age_s,
                dead.get(cursor.name, 0),
                lost,
                await log.dead_letters.loss(cursor.name),
                now.state if now else None,
                now.delivery if now else None,
                now.next_attempt_s if now else None,
                labels.get(cursor.name, ""),
            )
        )
    return BufferReport(await log.buffer() if live is None else live.buffer, places)
