"""Erasing one board's readings: beside a running gateway, without one, and beside a forwarder with a batch in hand."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from cloud_sync.contract import Batch, NotConnected, Ok, Outcome, Rejected
from gateway.cli.gateway_link import connect
from gateway.config import Settings
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device
from gateway.operations.erase import erase_device
from gateway.storage import erase as storage
from gateway.storage.commit_thread import CommitThread
from gateway.storage.erase import Erased, erase
from gateway.storage.log import Log
from tests.broker.raw import RawClient, puback, publish, subscribe
from tests.broker.raw import connect as raw_connect
from tests.cloud_sync.samples import NOW_MS
from tests.cloud_sync.site import Scripted, deliver_all, open_site, running, until
from tests.site import Site, running_site

SECRET = "at-home-%06d-in-the-bedroom"


async def store(log: Log, device: str, count: int, *, first: int = 0, note: str = SECRET) -> None:
    stream = log.stream("default", device, "boot-1")
    notes = [note % n for n in range(first, first + count)]
    payloads = [b'{"sensors":{"pir":{"motion_detected":true}},"note":"%b"}' % one.encode() for one in notes]
    await log.append(
        [
            NewReading(stream, first + n, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, payload)
            for n, payload in enumerate(payloads)
        ]
    )


def residue(folder: Path, words: bytes = b"at-home-") -> dict[str, int]:
    """Count the words in every file of the folder."""
    counts = {file.name: file.read_bytes().count(words) for file in folder.iterdir() if file.is_file()}
    return {name: count for name, count in counts.items() if count}


async def run(log: Log, device: str = "bedroom") -> Erased:
    return [so_far async for so_far in erase(log, "default", device)][-1]


async def until_confirmed(log: Log, count: int) -> None:
    """Wait for the cursor's move, which confirms the dead letters."""
    async with asyncio.timeout(20):
        while len(await log.dead_letters.keys()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_nothing_of_it_is_left_in_any_file_and_the_others_are_whole(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        log = site.log
        for turn in range(6):
            await store(log, "bedroom", 1_000, first=1_000 * turn)
            await store(log, "kitchen", 700, first=1_000 * turn, note="other-%d")
        await log.append([NewQuarantine("default", "bedroom", "http", "x", "y", NOW_MS, b"at-home-broken")])
        await log.append([NewQuarantine("default", "kitchen", "http", "x", "y", NOW_MS, b"other-broken")])
        await deliver_all(site, Picky(lambda row: row % 900 == 5))
        await until_confirmed(log, 11)
        assert residue(tmp_path)
        erased = await run(log)
        assert (erased.readings, erased.quarantined, erased.pages_left) == (6_000, 1, 0)
        assert erased.dead_letters > 1
        assert erased.count == erased.total
        assert residue(tmp_path) == {}
        assert [one.device_id for one in await log.read(0, limit=9_999)] == ["kitchen"] * 4_200
        assert len(await log.quarantined()) == 1
        assert await log.loss("cloud") is None
    assert residue(tmp_path) == {}
    assert residue(tmp_path, b"other-")


async def test_what_left_before_is_gone_too(tmp_path: Path) -> None:
    """Readings that retention took lie on free pages until something else is written there."""
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 3_000)
        await store(site.log, "kitchen", 100, note="other-%d")
        await site.log._execute(("DELETE FROM device_telemetry_history WHERE id <= ?", [(2_950,)]))
        assert (await run(site.log)).readings == 50
        assert residue(tmp_path) == {}


async def test_dead_letters_go_whose_readings_have_left_the_log(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 10)
        await site.log.append([NewQuarantine("default", "bedroom", "http", "x", "y", NOW_MS, b"at-home-broken")])
        await deliver_all(site, Picky(lambda row: row == 3))
        await until_confirmed(site.log, 1)
        await site.log._execute(("DELETE FROM device_telemetry_history", [()]))
        erased = await run(site.log)
        assert (erased.readings, erased.dead_letters, erased.quarantined) == (0, 1, 1)
        assert erased.count == erased.total
        assert await site.log.dead_letters.letters() == []
        assert residue(tmp_path) == {}


async def test_it_goes_on_after_an_interruption_and_a_second_run_finds_nothing(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 5_000)
        async with aclosing(erase(site.log, "default", "bedroom")) as steps:
            await anext(steps)
            assert (await anext(steps)).readings == 2_000
        assert len(await site.log.read(0, limit=9_999)) == 3_000
        assert (await run(site.log)).total == 3_000
        assert (await run(site.log)).total == 0


async def test_a_board_that_still_sends_is_stored_under_a_stream_of_its_own(tmp_path: Path) -> None:
    """What it sends after the erasure is not taken for what was erased, nor hung on a stream that is gone."""
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 10)
        await run(site.log)
        await store(site.log, "kitchen", 1, note="other-%d")
        await store(site.log, "bedroom", 3, first=5)
        await store(site.log, "bedroom", 3, first=5)
        assert [(one.device_id, one.seq, one.row) for one in await site.log.read(0, limit=99)] == [
            ("kitchen", 0, 11),
            ("bedroom", 5, 12),
            ("bedroom", 6, 13),
            ("bedroom", 7, 14),
        ]


async def test_who_stores_meanwhile_waits_for_one_step_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[str] = []
    attempt = CommitThread._attempt

    def noted(thread: CommitThread, transaction: object) -> Exception | None:
        jobs.append(type(transaction).__name__)
        return attempt(thread, transaction)  # type: ignore[arg-type]

    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 20_000)
        monkeypatch.setattr(CommitThread, "_attempt", noted)
        erasing = asyncio.create_task(run(site.log))
        first = 0
        while not erasing.done():
            await store(site.log, "kitchen", 1, first=first, note="other-%d")
            first += 1
        assert erasing.result().readings == 20_000
    assert jobs.count("_Step") == 11
    assert "_Step _Step" not in " ".join(jobs)


class Picky(Scripted):
    def __init__(self, refuses: Callable[[int], bool]) -> None:
        super().__init__()
        self._refuses = refuses

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        if any(self._refuses(reading.row) for reading in batch.readings):
            return Rejected("too hot")
        return await super().send(batch, body)


class Held(Scripted):
    """Answers when it is let."""

    def __init__(self, *answers: Outcome) -> None:
        super().__init__(*answers)
        self.held = asyncio.Event()

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        outcome = await super().send(batch, body)
        await self.held.wait()
        return outcome

    @property
    def devices(self) -> list[set[str]]:
        return [{reading.device_id for reading in batch.readings} for batch, _ in self.sent]


async def test_a_batch_in_memory_is_not_sent_again_after_the_erasure(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 3)
        await store(site.log, "kitchen", 3, note="other-%d")
        cloud = Held(NotConnected("away"))
        async with running(site.forwarder(cloud)) as forwarder:
            await until(lambda: len(cloud.sent) == 1)
            await run(site.log)
            cloud.held.set()  # only now the first attempt fails
            await until(lambda: forwarder._live.position == 6)
        assert cloud.devices == [{"bedroom", "kitchen"}, {"kitchen"}]
        assert cloud.ids[0] != cloud.ids[1]


async def test_a_batch_frozen_before_a_restart_is_not_sent_after_the_erasure(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 3)
        await store(site.log, "kitchen", 3, note="other-%d")
        cloud = Held()
        async with running(site.forwarder(cloud)):
            await until(lambda: len(cloud.sent) == 1)
        await run(site.log)
        again = Held()
        again.held.set()
        await deliver_all(site, again)
        assert again.devices == [{"kitchen"}]


async def test_a_rejection_that_comes_after_the_erasure_brings_nothing_back(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 1)
        cloud = Held(Rejected("too hot"))
        async with running(site.forwarder(cloud)):
            await until(lambda: len(cloud.sent) == 1)
            await run(site.log)
            cloud.held.set()
            await store(site.log, "kitchen", 2, note="other-%d")
            await until(lambda: cloud.accepted == [2, 3])
        assert await site.log.dead_letters.letters() == []
        assert residue(tmp_path) == {}


async def test_a_replay_in_memory_is_not_sent_again_after_the_erasure(tmp_path: Path) -> None:
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 3)
        await store(site.log, "kitchen", 3, note="other-%d")
        await deliver_all(site, Picky(lambda row: row in (2, 5)))
        await until_confirmed(site.log, 2)
        await site.log.dead_letters.request_replay([("cloud", 2), ("cloud", 5)])
        cloud = Held(NotConnected("away"))
        async with running(site.forwarder(cloud)):
            await until(lambda: len(cloud.sent) == 1)
            await run(site.log)
            cloud.held.set()
            await until(lambda: cloud.accepted == [5])
            async with asyncio.timeout(20):
                while await site.log.dead_letters.keys():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert cloud.devices == [{"bedroom", "kitchen"}, {"kitchen"}]


async def test_a_reader_that_takes_its_time_holds_up_only_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_TRUNCATE_PAUSE_S", 0.01)
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 10)
        await site.log.fetch("BEGIN")
        await site.log.fetch("SELECT count(*) FROM streams")
        erasing = asyncio.create_task(run(site.log))
        for n in range(3):
            await store(site.log, "kitchen", 1, first=n, note="other-%d")
        assert not erasing.done()
        await site.log.fetch("ROLLBACK")
        await erasing
        assert residue(tmp_path) == {}


async def test_through_a_running_gateway(site: Site, tmp_path: Path) -> None:
    for n in range(2):
        await store(site.log, "kitchen", 10, first=10 * n)
        async with connect(site.settings) as link:
            steps = [one async for one in link.stream(erase_device, organization_id="default", device_id="kitchen")]
        assert steps[-1].readings == 10
        assert residue(tmp_path / "data") == {}


async def test_without_a_gateway(tmp_path: Path) -> None:
    settings = Settings.model_validate({"gateway": {"data_dir": tmp_path}})
    async with open_site(tmp_path / "log.db") as site:
        await store(site.log, "bedroom", 10)
        await deliver_all(site, Scripted(Ok()))
    async with connect(settings) as link:
        steps = [one async for one in link.stream(erase_device, organization_id="default", device_id="bedroom")]
    assert steps[-1].readings == 10
    assert residue(tmp_path) == {}


async def test_what_the_broker_keeps_of_a_board_goes_too_and_the_others_are_whole(site: Site) -> None:
    """Retained, and for a subscriber that is away, on disk and in memory."""
    who = {name: await site.gateway.add_device(name) for name in ("bedroom", "kitchen2")}
    for name, login in who.items():
        topic = f"devices/{name}/status"
        async with RawClient.login(site, login, "panel", clean=False) as panel:
            panel.send(subscribe(f"devices/{name}/#", qos=1))
            await panel.packet()
        async with RawClient.login(site, login, "board") as board:
            said = b"at-home-" if name == "bedroom" else b"other-"
            for number in (1, 2, 3):
                board.send(publish(topic, said + b"%d" % number, qos=1, packet_id=number, retain=True))
            await board.expect(puback(1), puback(2), puback(3))
    folder = site.settings.gateway.data_dir
    assert residue(folder)
    async with connect(site.settings) as link:
        async for so_far in link.stream(erase_device, organization_id="default", device_id="bedroom"):
            erased = so_far
    assert (erased.messages, erased.count) == (4, erased.total)
    assert residue(folder) == {}
    for name, login in who.items():
        hello = raw_connect("panel", login.username, login.password, clean=False)
        async with RawClient.open(site, hello) as panel:
            assert await panel.packet() == b"\x20\x02\x01\x00"
            panel.send(subscribe(f"devices/{name}/#"))
            if name != "bedroom":
                topic = f"devices/{name}/status"
                await panel.expect(*(publish(topic, b"other-%d" % n, qos=1, packet_id=n) for n in (1, 2, 3)))
            assert (await panel.packet())[0] == 0x90
            if name != "bedroom":
                await panel.expect(publish(topic, b"other-3", retain=True))
            assert await panel.is_alive()


async def test_what_the_broker_keeps_under_a_route_goes_when_its_topic_names_the_board(tmp_path: Path) -> None:
    """By its id or by a registered hardware id, as a reading on that topic would be the board's."""
    fields = {"climate": {"temperature_c": "t"}}
    routes = [
        {"topic": "plant/+/now", "parser": "custom", "mapping": {"device_id": {"topic_level": 2}, "sensors": fields}},
        {"topic": "$sys/version/+/devices/#", "parser": "vmark"},
        {"topic": "packs/#", "parser": "senml"},
    ]
    kept = {
        "plant/press-4/now": b'{"t": 1, "note": "at-home-1"}',
        "plant/bedroom/now": b'{"t": 1, "note": "at-home-2"}',
        "$sys/version/1/devices/bedroom/state": b"at-home-3",
        "plant/hall/now": b'{"t": 1, "note": "other"}',
        "packs/bedroom": b'[{"bn": "bedroom:", "n": "t", "v": 1}]',
    }
    async with running_site(tmp_path / "data", ingest={"routes": routes}) as site:
        await site.command(
            add_device, organization_id="default", device_id="bedroom", metadata={}, hardware_ids=("press-4",)
        )
        hub = await site.command(add_credential, name="hub", organization_id="default")
        async with RawClient.login(site, hub, "away", clean=False) as away:
            away.send(subscribe("plant/+/now", "$sys/version/+/devices/#", "packs/#", qos=1))
            await away.packet()
        async with RawClient.login(site, hub, "hub") as client:
            for number, (topic, payload) in enumerate(kept.items(), 1):
                client.send(publish(topic, payload, qos=1, packet_id=number, retain=True))
                await client.expect(puback(number))
        assert residue(tmp_path / "data")
        async with connect(site.settings) as link:
            async for so_far in link.stream(erase_device, organization_id="default", device_id="bedroom"):
                erased = so_far
        assert (erased.readings, erased.messages, erased.count) == (3, 6, erased.total)
        assert residue(tmp_path / "data") == {}
        async with RawClient.login(site, hub, "another") as client:
            client.send(subscribe("plant/+/now", "$sys/version/+/devices/#", "packs/#"))
            await client.packet()
            await client.expect(*(publish(topic, kept[topic], retain=True) for topic in list(kept)[3:]))
            assert await client.is_alive()
