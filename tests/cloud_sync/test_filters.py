"""What a destination does not want costs it no request, holds up nothing, and is no loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.contract import Batch, IntegrationConfig, Rejected
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.model.selection import Selection
from gateway.storage.log import Log
from tests.cloud_sync.samples import NOW_MS, stored
from tests.cloud_sync.site import DOWN, Scripted, Site, deliver_all, open_site, running, until

PIR = {"pir": {"motion_detected": True}}
GAS = {"mq134": {"gas_concentration": 12.5}}


async def store(log: Log, device: str, *sensors: dict[str, Any], organization: str = "default") -> None:
    """Store one reading of the device for each of these."""
    stream = log.stream(organization, device, "boot-1")
    payloads = [json.dumps({"sensors": one}).encode() for one in sensors]
    await log.append([NewReading(stream, None, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, one) for one in payloads])


class Sensors(Scripted):
    """Notes which sensors it got, too."""

    def encode(self, batch: Batch) -> bytes:
        return json.dumps([[one.row, one.body["sensors"]] for one in batch.readings]).encode()


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"devices": ["kitchen-1"]}, [1]),
        ({"devices": ["kitchen-*"]}, [1, 2, 5]),
        ({"devices": ["kitchen-2", "hall"]}, [2, 3]),
        ({"organizations": ["other"]}, [4, 5]),
        ({"organizations": ["other"], "devices": ["kitchen-?"]}, [5]),
        ({"sensors": ["mq134"]}, [2, 4]),
        ({"sensors": ["mq134"], "devices": ["kitchen-*"]}, [2]),
        ({"devices": ["nowhere"]}, []),
        ({}, [1, 2, 3, 4, 5]),
    ],
)
async def test_only_what_is_wanted_goes_out(site: Site, settings: dict[str, Any], rows: list[int]) -> None:
    await store(site.log, "kitchen-1", PIR)
    await store(site.log, "kitchen-2", PIR | GAS)
    await store(site.log, "hall", PIR)
    await store(site.log, "hall-2", GAS, organization="other")
    await store(site.log, "kitchen-3", PIR, organization="other")
    destination = Scripted(**settings)
    forwarder = await deliver_all(site, destination)
    assert destination.accepted == rows
    assert len(destination.sent) == bool(rows)
    status = await forwarder.status()
    assert (status.position, status.undelivered, status.oldest_seconds) == (5, 0, 0)


async def test_a_reading_is_reduced_to_the_sensors_that_are_wanted(site: Site) -> None:
    await store(site.log, "a", PIR | GAS, GAS, PIR, {})
    destination = Sensors(sensors=["pir", "ld2410"])
    await deliver_all(site, destination)
    assert [body for _, body in destination.sent] == [json.dumps([[1, PIR], [3, PIR]]).encode()]


async def test_a_reading_whose_payload_is_damaged_is_not_silently_left_out() -> None:
    reading = stored()
    reading.body, reading.defect = {}, "damaged"
    assert Selection(sensors=frozenset({"pir"})).wants(reading)


async def test_only_what_is_wanted_counts_as_undelivered(site: Site) -> None:
    await store(site.log, "a", PIR)
    await store(site.log, "b", *[PIR] * 3)
    await store(site.log, "a", PIR)
    destination = Scripted(*[DOWN] * 1_000_000, devices=["a"])
    async with running(site.forwarder(destination)) as forwarder:
        await until(lambda: bool(destination.sent))
        status = await forwarder.status()
    assert status.undelivered == 2
    assert status.oldest_seconds > 0


async def test_p2_a_filtered_batch_is_the_same_after_a_restart(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        for _ in range(3):
            await store(site.log, "a", PIR)
            await store(site.log, "b", PIR, PIR)
        before = Sensors(*[DOWN] * 1_000_000, devices=["a"], batch_max_readings=2)
        async with running(site.forwarder(before)):
            await until(lambda: bool(before.sent))
    async with open_site(tmp_path / "log.db") as site:
        after = Sensors(devices=["a"])
        await deliver_all(site, after)
    assert after.sent[0][0].id == before.sent[0][0].id
    assert after.sent[0][1] == before.sent[0][1]
    assert after.accepted == [1, 4, 7]


async def test_p2_a_batch_is_another_when_the_filter_was_changed(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "a", PIR)
        await store(site.log, "b", PIR)
        before = Scripted(*[DOWN] * 1_000_000)
        async with running(site.forwarder(before)):
            await until(lambda: bool(before.sent))
    async with open_site(tmp_path / "log.db") as site:
        after = Scripted(devices=["b"])
        await deliver_all(site, after)
    assert after.accepted == [2]
    assert not set(after.ids) & set(before.ids)


async def test_an_erased_reading_that_nobody_wanted_is_no_reason_for_another_batch(site: Site) -> None:
    await store(site.log, "a", PIR)
    await store(site.log, "b", PIR)
    await store(site.log, "a", PIR)
    destination = Scripted(DOWN, devices=["a"])
    forwarder = site.forwarder(destination)

    async def sleep(seconds: float) -> None:
        await site.log._execute(("DELETE FROM device_telemetry_history WHERE id = ?", [(2,)]))
        site.log.erasures += 1
        await site.sleep(seconds)

    forwarder._sleep = sleep
    async with running(forwarder):
        await until(lambda: len(destination.sent) == 2)
    assert destination.ids[0] == destination.ids[1]


async def test_p4_a_refused_batch_is_split_among_what_is_wanted(site: Site) -> None:
    for number in range(8):
        await store(site.log, "a", {"pir": {"motion_detected": number == 5}})
        await store(site.log, "b", PIR)

    class Picky(Scripted):
        async def send(self, batch: Batch, body: bytes) -> Any:
            if any(one.row == 11 for one in batch.readings):
                self.sent.append((batch, body))
                return Rejected("not this one")
            return await super().send(batch, body)

    destination = Picky(devices=["a"])
    await deliver_all(site, destination)
    assert destination.accepted == [1, 3, 5, 7, 9, 13, 15]
    assert [letter.reading.row for letter in await site.log.dead_letters.letters()] == [11]


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({}, (6, 1, 6)),
        ({"devices": ["b"]}, (3, 2, 6)),
        ({"devices": ["b"], "sensors": ["mq134"]}, (1, 4, 4)),
        ({"devices": ["c"]}, None),
    ],
)
async def test_p5_what_is_left_out_is_no_loss(site: Site, settings: dict[str, Any], lost: Any) -> None:
    for sensors in (PIR, GAS, PIR, PIR):
        await store(site.log, "a", PIR)
        await store(site.log, "b", sensors)
    config = Scripted(**settings).config
    await site.log.open_cursor("cloud", start="oldest", selection=config.selection)
    site.log.bounds._reclaim(6, may_lose=True)
    await site.log.append([NewQuarantine("o", "d", "s", "c", "r", 0, b"")])  # goes through the same thread, after it
    loss = await site.log.loss("cloud")
    assert (loss and (loss.readings, loss.first_row, loss.last_row)) == lost


async def test_what_is_left_out_costs_little(site: Site) -> None:
    """A page is full of what is wanted, however far apart it is, and nobody waits for a request that is not made."""
    for _ in range(20):
        await store(site.log, "b", *[PIR] * 600)
        await store(site.log, "a", PIR)
    page = await site.log.select(0, until=site.log.last_row, selection=Selection(("a",)), limit=5)
    assert [one.row for one in page.readings] == [601 * number for number in range(1, 6)]
    assert page.rows == page.last_row < 601 * 6
    destination = Scripted(devices=["a"], rate_limit_per_minute=100)
    await deliver_all(site, destination)
    assert destination.sizes == [20]


def test_filters_are_settings_of_every_integration() -> None:
    config = IntegrationConfig.model_validate({"type": "x", "name": "x", "devices": ["a-*"], "sensors": ["pir"]})
    assert config.selection == Selection(("a-*",), frozenset(), frozenset({"pir"}))
    with pytest.raises(ValueError, match="devices"):
        IntegrationConfig.model_validate({"type": "x", "name": "x", "devices": [""]})
