"""What destinations refused: shown, sent again, given up.

- a replay is noted on disk and the forwarder is woken at once; without a gateway it goes out after the next start
- whoever waits hears of each batch as it is settled, and costs the forwarders nothing
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from typing_extensions import TypedDict

from gateway.model.errors import NotFound
from gateway.model.reading import rfc3339
from gateway.operations.activity import note_change
from gateway.operations.integrations import list_integrations
from gateway.operations.site import Site
from gateway.storage.dead_letters import DeadLetter, DeadLetterReader
from gateway.storage.newest_first import dead_letter_page

_PAGE = 200

Key = tuple[str, int]


@dataclass(slots=True, frozen=True)
class RefusedReading:
    """One dead letter, without what the reading says."""

    row: int
    id: str
    destination: str
    organization_id: str
    device_id: str
    time_ms: int
    reason: str
    """What the destination said last: words from outside."""
    attempts: int
    first_at_ms: int
    last_at_ms: int
    provisional: bool
    """The next success makes it a dead letter, or it is sent again."""
    replay_requested: bool


@dataclass(slots=True, frozen=True)
class DeadLetterPage:
    """One page, the newest first."""

    found: list[RefusedReading]
    before: int | None
    """What the next page is asked for with; None when there is none."""


class ToldDeadLetter(TypedDict):
    """One dead letter, for a program that asks."""

    row: int
    id: str
    destination: str
    organization_id: str
    device_id: str
    time: str
    reason: str
    attempts: int
    first_at: str
    last_at: str
    provisional: bool
    replay_requested: bool


@dataclass(slots=True, frozen=True)
class RequestedReplay:
    """What has been asked for."""

    keys: set[Key]
    absent: list[str]
    """Destinations among them that have no active integration: their dead letters wait for one."""


@dataclass(slots=True, frozen=True)
class ReplayProgress:
    """How far the readings are whose replay was asked for."""

    delivered: int
    refused: int
    """Refused again."""
    waiting: int
    gone: int
    """Dropped, erased, or left beyond the cap, before the destination had them."""
    absent: list[str]
    """As in RequestedReplay."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.delivered + self.refused + self.waiting + self.gone


async def list_dead_letters(site: Site, *, destination: str | None) -> AsyncGenerator[list[RefusedReading], None]:
    """Yield the dead letters of one destination, or of all, page by page."""
    log, gateway_id = await site.log(), site.settings.gateway.id
    uuid = await log.log_uuid()
    after = (0, "")
    while page := await log.dead_letters.letters(destination, after=after, limit=_PAGE):
        yield [_refused(letter, f"{gateway_id}:{uuid}:{letter.reading.row}") for letter in page]
        after = (page[-1].reading.row, page[-1].destination)


async def page_dead_letters(
    site: Site,
    *,
    organization_id: str | None = None,
    destination: str | None = None,
    device_id: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> DeadLetterPage:
    """Return dead letters of an organisation's readings (None: of all), the newest first.

    It may be less than `limit` and still not be the last page.
    """
    log, gateway_id = await site.log(), site.settings.gateway.id
    uuid = await log.log_uuid()
    page = await dead_letter_page(
        log, organization_id=organization_id, destination=destination, device_id=device_id, before=before, limit=limit
    )
    found = [_refused(letter, f"{gateway_id}:{uuid}:{letter.reading.row}") for letter in page.found]
    return DeadLetterPage(found, page.before)


async def request_replay(
    site: Site, *, rows: list[int], destination: str | None, organization_id: str | None = None
) -> RequestedReplay:
    """Ask that these be sent again. No rows means all; None as the organisation, everybody's readings.

    Raises NotFound for a row that is not there, or is provisional.
    """
    letters = (await site.writable_log()).dead_letters
    wanted = await _chosen(letters, rows, destination, organization_id)
    names = {name for name, _ in wanted}
    absent = sorted(names - await _active(site))
    if wanted:
        await note_change(site, organization_id, "dead_letters.replay", destination or "all", {"count": len(wanted)})
    await letters.request_replay(wanted)
    if site.live is not None:
        site.live.replay(names)
    return RequestedReplay(wanted, absent)


async def replay_dead_letters(
    site: Site, *, rows: list[int], destination: str | None
) -> AsyncGenerator[ReplayProgress, None]:
    """Ask that these be sent again, then yield how far they are until all are settled or the gateway stops.

    No rows means all. Without a gateway there is only the first item. Raises NotFound, as `request_replay` does.
    """
    letters, live = (await site.writable_log()).dead_letters, site.live
    with letters.witness() as acknowledged:
        asked = await request_replay(site, rows=rows, destination=destination)
        wanted = asked.keys
        while True:
            settled = letters.settled
            waiting = len(wanted & await letters.requested_keys())
            left = wanted - await letters.keys(destination)
            delivered, refused = len(left & acknowledged), len(wanted) - len(left) - waiting
            yield ReplayProgress(delivered, refused, waiting, len(left) - delivered, asked.absent)
            if not waiting or live is None or not await live.wait_settled(settled):
                return


async def drop_dead_letters(site: Site, *, rows: list[int], destination: str | None) -> int:
    """Give these up for good, and return how many they were. No rows means all. Raises NotFound."""
    letters = (await site.writable_log()).dead_letters
    chosen = await _chosen(letters, rows, destination)
    if chosen:
        await note_change(site, None, "dead_letters.drop", destination or "all", {"count": len(chosen)})
    await letters.drop(chosen)
    return len(chosen)


def told(letter: RefusedReading) -> ToldDeadLetter:
    """Say what there is to say of one."""
    return {
        "row": letter.row,
        "id": letter.id,
        "destination": letter.destination,
        "organization_id": letter.organization_id,
        "device_id": letter.device_id,
        "time": rfc3339(letter.time_ms),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "first_at": rfc3339(letter.first_at_ms),
        "last_at": rfc3339(letter.last_at_ms),
        "provisional": letter.provisional,
        "replay_requested": letter.replay_requested,
    }


async def _chosen(
    letters: DeadLetterReader, rows: list[int], destination: str | None, organization_id: str | None = None
) -> set[Key]:
    keys = await letters.keys(destination, organization_id=organization_id, rows=rows or None)
    if missing := sorted({*rows} - {row for _, row in keys}):
        raise NotFound(
            f"There is no dead letter with row {missing[0]}, or it is provisional.",
            hint="See: neurogate buffer dead-letters, GET dead-letters. What is provisional goes out again by itself, "
            "or becomes a dead letter soon.",
        )
    return keys


async def _active(site: Site) -> set[str]:
    return {one.id for one in await list_integrations(site) if one.status != "inactive"}


def _refused(letter: DeadLetter, reading_id: str) -> RefusedReading:
    reading = letter.reading
    return RefusedReading(
        row=reading.row,
        id=reading_id,
        destination=letter.destination,
        organization_id=reading.organization_id,
        device_id=reading.device_id,
        time_ms=reading.time_ms,
        reason=letter.reason,
        attempts=letter.attempts,
        first_at_ms=letter.first_at_ms,
        last_at_ms=letter.last_at_ms,
        provisional=letter.provisional,
        replay_requested=letter.replay_requested,
    )
