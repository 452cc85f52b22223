"""P4 for readings that cannot even be written: changed by a worn card, or beyond what an integration can say."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud_sync.contract import Batch
from gateway.model.reading import wire_reading
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import Scripted, Site, deliver_all, open_site

CULPRIT = 40


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, 100)
        yield site


@pytest.mark.parametrize("damage", [b"\x00" * 40, b'{"sensors":{"pir', b"[1]"])
async def test_p4_a_reading_that_is_damaged_on_disk_holds_nobody_up(site: Site, tmp_path: Path, damage: bytes) -> None:
    with closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute("UPDATE device_telemetry_history SET payload = ? WHERE id = ?", (damage, CULPRIT))
    destination = Scripted()
    await deliver_all(site, destination)
    assert sorted(destination.accepted) == [row for row in range(1, 101) if row != CULPRIT]
    (letter,) = await site.log.dead_letters.letters()
    assert letter.key == ("cloud", CULPRIT)
    assert "damaged" in letter.reason
    assert letter.reading.defect
    (reading,) = await site.log.read(CULPRIT - 1, limit=1)
    assert "damaged" in wire_reading(reading, gateway_id="site-1", log_uuid="log-1")["defect"]


async def test_p4_a_reading_that_an_integration_cannot_write_holds_nobody_up(site: Site) -> None:
    class Narrow(Scripted):
        def encode(self, batch: Batch) -> bytes:
            if CULPRIT in (reading.row for reading in batch.readings):
                raise OverflowError("a year beyond 9999")
            return super().encode(batch)

    destination = Narrow()
    await deliver_all(site, destination)
    assert sorted(destination.accepted) == [row for row in range(1, 101) if row != CULPRIT]
    (letter,) = await site.log.dead_letters.letters()
    assert letter.key == ("cloud", CULPRIT)
    assert "a year beyond 9999" in letter.reason
