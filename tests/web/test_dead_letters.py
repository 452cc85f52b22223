"""dead-letters: what destinations refused of one's own readings, and how it goes out again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.operations.activity import page_activity
from gateway.operations.dead_letters import list_dead_letters, told
from gateway.storage.dead_letters import CONFIRM
from gateway.web import dead_letters as web
from tests.operations.test_dead_letters import Receiver, poisoned
from tests.site import PATIENCE_S, Site, reading
from tests.web.api import asker

API = "/api/v1/dead-letters"

Poisoned = tuple[Site, Receiver]


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Poisoned]:
    """Of six readings of the default organisation, `cloud` has refused those with the rows 2, 3 and 5."""
    async with poisoned(tmp_path) as both:
        yield both


async def refuse_one_more(site: Site, destination: str = "cloud") -> int:
    """Let a destination refuse a reading of acme; return its row."""
    theirs = await asker(site, "device", "acme")
    assert (await theirs.post("/api/v1/sensor-data", json.loads(reading("attic"))))[0] == 202
    row = site.log.last_row
    letters = site.log.dead_letters
    (one,) = await site.log.read(row - 1, limit=1)
    await letters.set_aside(destination, one, "no", site.clock.now)
    await letters._write((CONFIRM, [(destination, row)]))
    return row


async def requested(site: Site) -> set[int]:
    return {row for _, row in await site.log.dead_letters.requested_keys()}


async def test_they_are_listed_as_the_command_does_the_last_refused_first(both: Poisoned) -> None:
    site, _ = both
    api = await asker(site)
    status, answer = await api.get(API)
    assert (status, answer["next_cursor"]) == (200, None)
    assert await api.get("/functions/v1/dead-letters") == (status, answer)
    listed = [
        told(one) async for page in list_dead_letters(site.gateway._running.site, destination=None) for one in page
    ]
    assert answer["dead_letters"] == listed[::-1]
    assert [one["row"] for one in listed] == [2, 3, 5]
    assert (listed[0]["destination"], listed[0]["attempts"], listed[0]["provisional"]) == ("cloud", 1, False)
    assert "422" in listed[0]["reason"]
    status, readings = await api.get("/api/v1/readings")
    assert listed[0]["id"] in [one["id"] for one in readings["readings"]]


async def test_they_are_paged_and_filtered(both: Poisoned, monkeypatch: pytest.MonkeyPatch) -> None:
    site, _ = both
    api = await asker(site)
    _, first = await api.get(API, limit=2)
    _, rest = await api.get(API, limit=2, cursor=first["next_cursor"])
    rows = [[one["row"] for one in page["dead_letters"]] for page in (first, rest)]
    assert (rows, rest["next_cursor"]) == ([[5, 3], [2]], None)
    for query, count in (
        ({"destination": "cloud", "device_id": "kitchen"}, 3),
        ({"destination": "", "device_id": ""}, 3),
        ({"destination": "archive"}, 0),
        ({"device_id": "attic"}, 0),
    ):
        assert len((await api.get(API, **query))[1]["dead_letters"]) == count, query
    assert (await api.get(API, cursor="5x"))[0] == 400
    monkeypatch.setattr(web, "_AT_MOST", 2)
    assert len((await api.get(API, limit=3))[1]["dead_letters"]) == 2


async def test_what_is_asked_for_goes_out_again_and_what_is_taken_leaves(both: Poisoned) -> None:
    site, receiver = both
    receiver.poison = {3}
    api = await asker(site, "admin")
    status, answer = await api.post(f"{API}/replay", {"destination": "cloud", "rows": [2]})
    assert (status, answer) == (202, {"destination": "cloud", "requested": 1, "waits_for_integration": False})
    await settled(site)
    assert await site.log.dead_letters.keys() == {("cloud", 3), ("cloud", 5)}
    status, answer = await api.post("/functions/v1/dead-letters/replay", {"destination": "cloud"})
    assert (status, answer["requested"]) == (202, 2)
    await settled(site)
    _, answer = await api.get(API)
    assert [(one["row"], one["attempts"], one["replay_requested"]) for one in answer["dead_letters"]] == [(3, 2, False)]
    inside = site.gateway._running.site
    (last, *_) = await page_activity(inside, organization_id="default", limit=1)
    assert (last.action, last.subject, last.after) == ("dead_letters.replay", "cloud", {"count": 2})
    assert "default-admin" in last.actor


async def settled(site: Site) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await requested(site):  # noqa: ASYNC110 - of the disk, nobody tells
            await asyncio.sleep(0.01)


async def test_p8_an_organisation_replays_its_own_and_no_others(both: Poisoned) -> None:
    site, receiver = both
    receiver.open.clear()
    row = await refuse_one_more(site)
    theirs, ours, of_site = await asker(site, "owner", "acme"), await asker(site), await asker(site, "admin", None)

    async def listed(by: Any, **query: str) -> list[int]:
        return [one["row"] for one in (await by.get(API, **query))[1]["dead_letters"]]

    assert (await listed(theirs), await listed(ours), await listed(of_site)) == ([row], [5, 3, 2], [row, 5, 3, 2])
    assert await listed(of_site, organization_id="acme") == [row]
    status, answer = await theirs.post(f"{API}/replay", {"destination": "cloud", "rows": [2]})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert (await ours.post(f"{API}/replay", {"destination": "cloud"}))[0] == 403
    assert await requested(site) == set()
    status, answer = await theirs.post(f"{API}/replay", {"destination": "cloud"})
    assert (status, answer["requested"], await requested(site)) == (202, 1, {row})
    for body, count in (({"organization_id": "default"}, 3), ({}, 4)):
        status, answer = await of_site.post(f"{API}/replay", {"destination": "cloud"} | body)
        assert (status, answer["requested"]) == (202, count)
    receiver.open.set()


async def test_those_of_a_destination_that_is_no_more_wait_for_one(both: Poisoned) -> None:
    site, _ = both
    row = await refuse_one_more(site, "archive")
    api = await asker(site, "owner", "acme")
    for destination, count, waits in (("archive", 1, True), ("nothing", 0, False)):
        status, answer = await api.post(f"{API}/replay", {"destination": destination})
        expected = {"destination": destination, "requested": count, "waits_for_integration": waits}
        assert (status, answer) == (202, expected)
    assert await requested(site) == {row}


WRONG: tuple[dict[str, Any], ...] = (
    {},
    {"rows": [2]},
    {"destination": ""},
    {"destination": "cloud", "rows": []},
    {"destination": "cloud", "rows": ["2"]},
    {"destination": "cloud", "rows": [0]},
    {"destination": "cloud", "rows": [2] * 1_001},
    {"destination": "cloud", "row": 2},
)


async def test_what_is_not_decided_yet_is_shown_and_cannot_be_asked_for(both: Poisoned) -> None:
    site, receiver = both
    receiver.open.clear()
    (reading,) = await site.log.read(5, limit=1)
    await site.log.dead_letters.set_aside("archive", reading, "no", site.clock.now)
    api = await asker(site, "owner")
    (one,) = (await api.get(API, destination="archive"))[1]["dead_letters"]
    assert (one["row"], one["provisional"]) == (6, True)
    status, answer = await api.post(f"{API}/replay", {"destination": "archive", "rows": [6]})
    assert (status, "provisional" in answer["error"]["message"]) == (404, True)
    assert (await api.post(f"{API}/replay", {"destination": "archive"}))[1]["requested"] == 0
    receiver.open.set()


async def test_p4_what_does_not_say_which_replays_nothing(both: Poisoned) -> None:
    site, receiver = both
    receiver.open.clear()
    api = await asker(site, "owner")
    for body in WRONG:
        status, answer = await api.post(f"{API}/replay", body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), body
    assert await requested(site) == set()
    receiver.open.set()
